"""One simulated world on a virtual clock: for `rehearse`, for tests and for the documentation."""
