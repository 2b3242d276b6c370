"""A writer to Redis changes the kind or the parent of a session, so that the scripts judge it as another one."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
import redis

from tests.conftest import ALICE
from wxauth.errors import TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret
from wxauth.sessions.store import SessionStore, WxSession
from wxauth.sessions.tickets import Tickets

#: The kind, the length of the label, the parent.
KIND, LENGTH, PARENT = slice(16, 17), slice(17, 19), slice(19, 41)


def with_length(value: bytes, kind: bytes, difference: int) -> bytes:
    """Return the value with another kind. The length of the label hides the parent: the record opens."""
    (length,) = struct.unpack(">H", value[LENGTH])
    return value[:16] + kind + struct.pack(">H", length + difference) + value[19:]


CHANGES: dict[str, Callable[[bytes, WxSession], bytes]] = {
    "a login": lambda value, other: with_length(value, b"w", 22),
    "a scan": lambda value, other: with_length(value, b"s", 22),
    "another parent": lambda value, other: value[:19] + other.id.encode() + value[41:],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_session_by_ticket_that_was_given_another_origin_does_not_open(
    store: SessionStore,
    ring: KeyRing,
    raw_redis: redis.Redis,
    alice: Identity,
    change: Callable[[bytes, WxSession], bytes],
) -> None:
    """It outlived the logout of its parent."""
    tickets, parent, other = Tickets(store, ring), store.create(alice)[1], store.create(alice)[1]
    token, child = tickets.redeem(tickets.issue(parent).reveal())
    name = store.hashes(ALICE)[0].name
    value = bytes(raw_redis.hget(name, child.id) or b"")  # type: ignore[arg-type]  # redis-py types both its clients
    assert (value[KIND], value[PARENT]) == (b"t", parent.id.encode())
    raw_redis.hset(name, child.id, change(value, other))
    store.revoke(parent)
    with pytest.raises(TokenInvalid):
        store.resolve(token.reveal())
    assert store.resolve(store.create(Identity(ALICE, Secret("k")))[0].reveal()).user == ALICE
