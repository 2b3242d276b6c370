"""The fuzz targets. Each passes any bytes to a parser, and compares the result with a second, simple parser.

A target returns whether the parser accepted its input.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wxauth.errors import CodeInvalid, CodeUsed, TokenInvalid, UserBlocked, WeChatError, WeChatUnreachable
from wxauth.keys import InvalidSeal, KeyRing, Token
from wxauth.models import Identity, Secret, User
from wxauth.sessions.records import CLEAR, MICROSECONDS, TICKET, Record, UserHash, open_session
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Request, Transport

# Not imported from conftest: its imports would slow each fuzzer down.
APPID: Final = "wx0123456789abcdef"
APP_SECRET: Final = "app-secret-that-nobody-may-see"
ALICE: Final = User(APPID, "oALICE-0123456789_abcdefghij")
RING_KEYS: Final = ("ring-key-that-nobody-may-see-0001", "1000-ees-yam-ydobon-taht-yek-gnir")
RING: Final = KeyRing([Secret(key) for key in RING_KEYS])
ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

SESSION: Final = Token("", "hash-tag", "id-1", bytes(range(32)))
RECORD: Final = Record(ALICE, None, "手机", 1_700_000_000, 1_702_592_000)
HASH: Final = UserHash.of(RING.newest, ALICE)
#: The part of a value that is not sealed: idle end, login time and kind may have any value.
UNSEALED: Final = CLEAR.size - 2
KIND: Final = UNSEALED - 1

#: What asks for a signature, or an edit, in place of the bytes as they are.
SIGN: Final = b"S"
EDIT: Final = b"E"


def token(data: bytes) -> bool:
    """Any text is the token that one of our keys signed, letter by letter, or TokenInvalid."""
    raw = _signed(data[1:]) if data[:1] == SIGN else data
    text = raw.decode("utf-8", "surrogateescape")
    try:
        found = RING.verify(text)
    except TokenInvalid:
        assert not _is_ours(raw)
        return False
    assert _is_ours(raw)
    assert found.text == text
    return True


def _signed(value: bytes) -> bytes:
    return value + b"." + _signature(RING_KEYS[len(value) % 2], value)


def _signature(key: str, value: bytes) -> bytes:
    for_tokens = hmac.digest(hashlib.sha256(key.encode()).digest(), b"wxauth.token.2", "sha256")
    return urlsafe_b64encode(hmac.digest(for_tokens, value, "sha256")).rstrip(b"=")


def _is_ours(raw: bytes) -> bool:
    value, _, signature = raw.rpartition(b".")
    shaped = len(value) == 69 and value[:4] == b"wxa_" and ALPHABET.issuperset(value)
    return shaped and signature in {_signature(key, value) for key in RING_KEYS}


def _sealed_by_hand() -> bytes:
    payload = json.dumps([ALICE.appid, ALICE.openid, None, "手机", RECORD.created_at]).encode()
    head, nonce = struct.pack(">BQ", 3, RECORD.ends_at), bytes(12)
    sealed = head + nonce + AESGCM(SESSION.seal_key).encrypt(nonce, payload, head + b"hash-tag id-1")
    return struct.pack(">QQcH", 1_700_604_800_000_000, 1_700_000_000_000_000, b"w", 0) + sealed


GENUINE: Final = _sealed_by_hand()


def record(data: bytes) -> bool:
    """Any bytes are the one sealed record, or raise InvalidSeal. They never open as a label or session_key."""
    value = _edited(data[1:]) if data[:1] == EDIT else data
    assert all(entry.device is None for entry in HASH.entries({b"id-1": value}))
    assert HASH.session_keys({b"k": value, b"p": value}) == []
    try:
        found, idle_until = open_session(SESSION, value)
    except InvalidSeal:
        # The value of a session by ticket has its parent before the seal.
        is_other = value[UNSEALED:] != GENUINE[UNSEALED:] or value[KIND] == ord(TICKET)
        assert len(value) < CLEAR.size or is_other
        return False
    assert value[UNSEALED:] == GENUINE[UNSEALED:]
    assert found == RECORD
    assert idle_until == int.from_bytes(value[:8]) / MICROSECONDS
    return True


def _edited(script: bytes) -> bytes:
    """The genuine record after `script`: each two bytes say where, and what to put there; an odd one cuts."""
    sealed = bytearray(GENUINE)
    for where, what in zip(script[::2], script[1::2], strict=False):
        sealed[where % len(sealed)] ^= what
    return bytes(sealed[: script[-1]] if len(script) % 2 else sealed)


class AnsweredTransport(Transport):
    """A transport whose answer has arrived already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def ask(self, request: Request, deadline: float) -> bytes:
        return self._answer


def wechat(data: bytes) -> bool:
    """Any answer is the identity that it holds, or raises a WeChatError without a secret."""
    client = WeChatClient({APPID: Secret(APP_SECRET)}, AnsweredTransport(data), timeout=0, max_concurrent=1)
    found = _exchange(client)
    if isinstance(found, WeChatError):
        assert APP_SECRET not in f"{found!s}{found!r}"
        assert type(found) not in SAID or found.errcode == SAID[type(found)]
        assert isinstance(found, WeChatUnreachable) == (found.errcode is None)
    if data.count(b"[") + data.count(b"{") < DEEP:
        assert _identity(data) == (found if isinstance(found, Identity) else None)
    return isinstance(found, Identity)


#: From this depth on, Python may raise RecursionError, depending on the stack.
DEEP: Final = 500
SAID: Final[Mapping[type[WeChatError], int]] = {CodeInvalid: 40029, CodeUsed: 40163, UserBlocked: 40226}


def _exchange(client: WeChatClient) -> Identity | WeChatError:
    try:
        return client.exchange(APPID, "code")
    except WeChatError as error:
        return error


def _identity(data: bytes) -> Identity | None:
    """Return the identity in the answer, from a second, simple parser."""
    odd: list[object] = []

    def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        odd.extend(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        return dict(pairs)

    try:
        answer = json.loads(data.decode(), strict=False, object_pairs_hook=once_each, parse_constant=odd.append)
    except ValueError:
        return None
    if odd or not isinstance(answer, dict) or not re.fullmatch(r'0|"-?0{1,9}"', json.dumps(answer.get("errcode", 0))):
        return None
    openid, session_key, unionid = (answer.get(name) for name in ("openid", "session_key", "unionid"))
    named = [openid] if unionid in (None, "") else [openid, unionid]
    if not all(isinstance(name, str) and re.fullmatch(r"[\w-]{1,128}", name, re.ASCII) for name in named):
        return None
    if not isinstance(session_key, str) or not re.fullmatch(r"[\x21-\x7e]{1,128}", session_key):
        return None
    return Identity(User(APPID, str(openid)), Secret(session_key), unionid or None)


TARGETS: Final[Mapping[str, Callable[[bytes], bool]]] = {"token": token, "record": record, "wechat": wechat}
