"""How a session and its user lie in Redis: names, seals, layouts. Pure functions; no Redis and no clock here.

    wxa:{rout}:s:<id>      a session's record, sealed under a key that only its token gives
    wxa:{rout}:u:<name>    a user's hash: a sealed entry for each session, the session_key under "k", its forerunner
                           under "p"
    wxa:{rout}:b:<name>    a ban, where a login sees it in its transaction
    wxa:b:<name>           the same ban, under a name that no rotation of our keys changes

`{rout}` is the routing tag, Redis Cluster's hash tag, so all that belongs to one user lies in one slot.

One value of more than 64 bytes would make Redis keep the whole hash in a form that takes twice the room. So what lies
in it is packed, and each session_key has a field of its own: two under one seal come to more.
"""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64decode, b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final

from ..keys import InvalidSeal, SigningKey, seal, unseal
from ..models import Secret, SessionKeys, User

NEWEST: Final = "k"
PREVIOUS: Final = "p"

# Times have 32 bits, which last until 2106.
ENTRY: Final = struct.Struct(">LL")  # serial, created_at; the device follows
SINCE: Final = struct.Struct(">L")  # the session_key follows
#: What a session_key begins with there: the bytes that it spells in base64, as WeChat's do, or itself.
DECODED, AS_IT_IS = b"b", b"t"


@dataclass(frozen=True, slots=True)
class Record:
    """What a token's record says. Never rewritten; `ends_at` is the absolute end of its life, Unix seconds."""

    user: User
    unionid: str | None = field(repr=False)
    device: str | None
    created_at: int
    ends_at: int


def record_name(tag: str, id: str) -> str:
    return f"wxa:{{{tag}}}:s:{id}"


def ban_name(user: User) -> str:
    """A plain hash: it has to outlive every ring key, and tells only whoever knows the openid already."""
    digest = hashlib.sha256(f"wxauth ban {user.appid}\0{user.openid}".encode()).digest()
    return f"wxa:b:{urlsafe_b64encode(digest[:16]).decode().rstrip('=')}"


def seal_record(seal_key: bytes, name: str, record: Record) -> bytes:
    user = record.user
    payload = _dump([user.appid, user.openid, record.unionid, record.device, record.created_at])
    return seal(seal_key, name, record.ends_at, payload)


def open_record(seal_key: bytes, name: str, sealed: bytes) -> Record:
    """The record, or InvalidSeal."""
    ends_at, payload = unseal(seal_key, name, sealed)
    appid, openid, unionid, device, created_at = json.loads(payload)
    return Record(User(appid, openid), unionid, device, created_at, ends_at)


@dataclass(frozen=True, slots=True)
class Entry:
    """A session in its user's own list. `serial` orders sessions that were made in the same second."""

    id: str
    serial: int
    created_at: int
    ends_at: int
    device: str | None


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where one ring key keeps a user: names in Redis, and the key that seals what lies under them."""

    hash: str
    ban: str
    tag: str
    _seal_key: bytes = field(repr=False)

    @classmethod
    def of(cls, key: SigningKey, user: User) -> Shelf:
        tag, name = key.tag(user), key.user_name(user)
        return cls(f"wxa:{{{tag}}}:u:{name}", f"wxa:{{{tag}}}:b:{name}", tag, key.for_user(user, "seal"))

    def record(self, id: str) -> str:
        return record_name(self.tag, id)

    def seal_entry(self, entry: Entry) -> bytes:
        device = (entry.device or "").encode()
        return self._seal(entry.id, entry.ends_at, ENTRY.pack(entry.serial, entry.created_at) + device)

    def seal_session_keys(self, keys: SessionKeys, ends_at: int) -> dict[bytes, bytes]:
        """The fields of the user's hash that hold them."""
        packed = {NEWEST: SINCE.pack(keys.since) + _packed(keys.newest)}
        if keys.previous:
            packed[PREVIOUS] = _packed(keys.previous)
        return {field.encode(): self._seal(field, ends_at, payload) for field, payload in packed.items()}

    def entries(self, fields: dict[bytes, bytes]) -> list[Entry]:
        """The sessions in the user's hash, oldest first. An entry that does not open is nobody's session."""
        found = [self._entry(id, fields) for id in self.ids(fields)]
        return sorted(filter(None, found), key=lambda entry: entry.serial)

    def ids(self, fields: dict[bytes, bytes]) -> frozenset[str]:
        """The ids of all sessions in the user's hash, also of those whose entry does not open."""
        return frozenset(field.decode("latin-1") for field in fields) - {NEWEST, PREVIOUS}

    def session_keys(self, fields: dict[bytes, bytes]) -> SessionKeys | None:
        """The user's session_keys, or None if there are none that open."""
        newest, previous = self._opened(NEWEST, fields), self._opened(PREVIOUS, fields)
        if newest is None:
            return None
        payload = newest[1]
        (since,) = SINCE.unpack_from(payload)
        return SessionKeys(_unpacked(payload[SINCE.size :]), since, _unpacked(previous[1]) if previous else None)

    def _entry(self, id: str, fields: dict[bytes, bytes]) -> Entry | None:
        opened = self._opened(id, fields)
        if opened is None:
            return None
        ends_at, payload = opened
        serial, created_at = ENTRY.unpack_from(payload)
        return Entry(id, serial, created_at, ends_at, payload[ENTRY.size :].decode() or None)

    def _seal(self, field: str, ends_at: int, payload: bytes) -> bytes:
        return seal(self._seal_key, f"{self.hash} {field}", ends_at, payload)

    def _opened(self, field: str, fields: dict[bytes, bytes]) -> tuple[int, bytes] | None:
        """The end and the payload of what lies under `field`, or None if nothing there opens."""
        try:
            return unseal(self._seal_key, f"{self.hash} {field}", fields.get(field.encode("latin-1"), b""))
        except InvalidSeal:
            return None


def _packed(session_key: Secret) -> bytes:
    text = session_key.reveal().encode()
    try:
        decoded = b64decode(text, validate=True)
    except ValueError:
        decoded = b""
    # Base64 has several spellings for some bytes: only what comes back as it was may be decoded.
    return DECODED + decoded if b64encode(decoded) == text else AS_IT_IS + text


def _unpacked(packed: bytes) -> Secret:
    form, content = packed[:1], packed[1:]
    return Secret((b64encode(content) if form == DECODED else content).decode())


def _dump(payload: list[object]) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
