"""Servers, clients and data that the tests share."""
