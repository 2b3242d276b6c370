"""Faults of callers, WeChat and the workers of the service."""
