"""Migrations under random faults, on the whole lab; see `__main__`."""
