"""Whose address it is: what counts as one caller."""

from __future__ import annotations

import ipaddress


def neighbourhood(address: str) -> str:
    """The IPv4 address, or the /64 that an IPv6 address is one of; one name for all that is neither."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
