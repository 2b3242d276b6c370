"""A reply that belongs to another command, on each connection: it never decides about a login, a ticket or a code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.conftest import APPID, SESSION_KEY
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import DEVICE_PREFIX, KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions import records
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.store import SessionStore, WxSession
from wxauth.sessions.tickets import Tickets
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import AnyClient
from wxauth.storage.round_trips import Command

BOB = Identity(User(APPID, "oBOB-0123456789_abcdefghijk"), Secret(SESSION_KEY), None)


class Swaps(RedisClient):
    """Gives each command the reply of another one."""

    def __init__(self, reply: Any) -> None:
        super().__init__(lambda: None)  # type: ignore[arg-type, return-value]  # no command is sent
        self._reply = reply

    def _send(
        self, client: AnyClient, key: str, commands: Sequence[Command], probing: bool = False, together: bool = False
    ) -> list[Any]:
        return [self._reply] * len(commands)

    def _drop_idle_connections(self, client: AnyClient, key: str) -> None:
        """There are none."""


Act = Callable[[SessionStore, KeyRing, Identity], object]


def session(store: SessionStore, who: Identity) -> WxSession:
    return WxSession("i" * 22, who.user.appid, who.user.openid, None, None, 0, 2**33, "login", "", store)


def codes(store: SessionStore, ring: KeyRing) -> DeviceCodes:
    return DeviceCodes(store.redis, ring, store)


def device_code(ring: KeyRing) -> str:
    return ring.make(ring.newest.for_user_code("BBBBBBBB"), prefix=DEVICE_PREFIX).text


ACTS: dict[str, Act] = {
    "login": lambda store, ring, who: store.create(who),
    "logout": lambda store, ring, who: store.revoke(session(store, who)),
    "logout everywhere": lambda store, ring, who: store.end_all(who.user),
    "ticket": lambda store, ring, who: Tickets(store, ring).issue(session(store, who)),
    "device code": lambda store, ring, who: codes(store, ring).request("desk", APPID, "unknown"),
    "who asks": lambda store, ring, who: codes(store, ring).show("BBBBBBBB"),
    "poll": lambda store, ring, who: codes(store, ring).poll(device_code(ring), "desk"),
}


@pytest.mark.parametrize("reply", [0, 1, None, b"OK", [], [b"text", b"text"]], ids=repr)
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_reply_to_another_command_is_an_unavailable_store(
    store: SessionStore, ring: KeyRing, alice: Identity, act: Act, reply: Any
) -> None:
    """Not "your ticket is invalid", "log in again" or "not found"."""
    swapped = SessionStore(Swaps(reply), ring, store.policy, store.now)
    with pytest.raises(StoreUnavailable, match="garbled"):
        act(swapped, ring, alice)


def swap_shared(monkeypatch: pytest.MonkeyPatch, store: SessionStore, reply: Any) -> None:
    """Give commands that are sent together with those of other threads this reply."""
    send: Callable[..., list[Any]] = store.redis._send

    def swapped(*args: Any, together: bool = False) -> list[Any]:
        return [reply] if together else send(*args)

    monkeypatch.setattr(store.redis, "_send", swapped)


def record_of(store: SessionStore, ring: KeyRing, who: Identity) -> tuple[str, bytes]:
    """Return a new token, and what Redis keeps of its session."""
    text = store.create(who)[0].reveal()
    token = ring.verify(text)
    value = store.read_field(token.hash_tag, token.id)
    assert value
    return text, value


@pytest.mark.parametrize("reply", ["nothing", "a reason", "another session", "a number", "a text"])
def test_check_that_gets_the_reply_to_another_one_asks_again(
    store: SessionStore, ring: KeyRing, alice: Identity, reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _ = record_of(store, ring, alice)
    _, other = record_of(store, ring, BOB)
    reasons = records.ENTRY.pack(2**60, b"b", ring.verify(text).id.encode())
    replies: dict[str, Any] = {"nothing": [None, None], "a reason": [None, reasons], "another session": [other, None]}
    swap_shared(monkeypatch, store, (replies | {"a number": 1, "a text": b"text"})[reply])
    assert store.resolve(text).openid == alice.user.openid


def test_check_of_an_ended_session_that_gets_the_reply_to_another_one_is_refused(
    store: SessionStore, ring: KeyRing, alice: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _ = record_of(store, ring, alice)
    _, other = record_of(store, ring, BOB)
    store.revoke(store.resolve(text))
    swap_shared(monkeypatch, store, [other, None])
    with pytest.raises(TokenInvalid):
        store.resolve(text)
