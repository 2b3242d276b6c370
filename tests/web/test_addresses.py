"""What counts as one caller."""

from __future__ import annotations

import pytest

from wxauth.web.addresses import client_network

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
}


@pytest.mark.parametrize(("address", "caller"), ADDRESSES.items())
def test_an_address_is_one_caller(address: str, caller: str) -> None:
    """With or without its port, mapped or not; of IPv6 the /64; and whatever is no address is one."""
    assert client_network(address) == caller
