"""The pure core: observed state and a point in time in, a decision out. No I/O, no clock, nothing but values.

`decide.decide(observed, now) -> Decision` is the entry point; the other modules are its rules.
"""
