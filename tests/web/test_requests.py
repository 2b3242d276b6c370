"""What the service reads from a request. The routes' own tests cover JSON, forms, tokens and credentials."""

from __future__ import annotations

import pytest

from wxauth.web.requests import client_network

ADDRESSES = {
    "1.2.3.4": "1.2.3.4",
    "1.2.3.4:567": "1.2.3.4",
    "::ffff:1.2.3.4": "1.2.3.4",
    "2001:db8::1": "2001:db8::/64",
    "[2001:db8::2]:567": "2001:db8::/64",
    "2001:db8:0:1::1": "2001:db8:0:1::/64",
    "": "unknown",
    "somewhere": "unknown",
    "1.2.3.256": "unknown",
    "fe80::1%eth0": "unknown",
    "[fe80::1%25eth0]:567": "unknown",
    "::ffff:1.2.3.4%1": "unknown",
    "1.2.3.4%1": "unknown",
    '"1.2.3.4"': "unknown",
    '"[2001:db8::1]:567"': "unknown",
    "[1.2.3.4": "unknown",
    "2001:db8::1]:567": "unknown",
    "1.2.3.4:port": "unknown",
    "1.2.3.٤": "unknown",
}


@pytest.mark.parametrize(("address", "network"), ADDRESSES.items())
def test_client_network_of_an_address(address: str, network: str) -> None:
    """The port is dropped, IPv6 is cut to its /64, and all texts that are no address count as one caller."""
    assert client_network(address) == network
