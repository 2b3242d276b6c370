"""Faults of Redis and of the way to it."""
