"""Servers, load and checks that the fault tests share."""
