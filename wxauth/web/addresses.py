"""Whose address it is: what counts as one caller."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

#: Some proxies put the port into X-Forwarded-For too.
WITH_PORT: Final = re.compile(r"(?:\[(.+)\]|([0-9.]+))(?::[0-9]+)?")


def client_network(address: str) -> str:
    """The IPv4 address, or the /64 that an IPv6 address is one of; one name for all that is neither."""
    found = WITH_PORT.fullmatch(address)
    try:
        parsed = ipaddress.ip_address((found[1] or found[2]) if found else address)
    except ValueError:
        return "unknown"
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
