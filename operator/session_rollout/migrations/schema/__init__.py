"""Bundles of SQL files: linted, planned, applied once in a transaction each, and undone."""
