"""Tests of the service while Redis, WeChat, callers or the service itself fail."""
