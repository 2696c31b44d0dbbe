"""`make bench`: figures of the operator on real parts; see `bench.__main__`."""
