"""Generators: what they write is committed, and a test compares it with what they would write now."""
