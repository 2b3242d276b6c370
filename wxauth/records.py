"""How a session and its user lie in Redis: names, seals, layouts. Pure functions; no Redis and no clock here.

    wxa:{rout}:s:<id>      a session's record, sealed under a key that only its token gives
    wxa:{rout}:u:<name>    a user's hash: a sealed entry for each session, and the session_keys under "k"
    wxa:{rout}:b:<name>    a ban, where a login sees it in its transaction
    wxa:b:<name>           the same ban, under a name that no rotation of our keys changes

`{rout}` is the routing tag, Redis Cluster's hash tag, so all that belongs to one user lies in one slot.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final

from .identity import Secret, User
from .sealing import SealBroken, seal, unseal
from .tokens import RingKey

KEYS_FIELD: Final = b"k"


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
    """The record, or SealBroken."""
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
class SessionKeys:
    """A user's newest session_key, since when (Unix seconds), and the one before. WeChat keeps one for each user."""

    newest: Secret
    since: int
    previous: Secret | None = None

    def followed_by(self, session_key: Secret, now: int) -> SessionKeys:
        """The pair after a login that brought `session_key`, which is often the one that is known already."""
        return self if session_key == self.newest else SessionKeys(session_key, now, self.newest)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where one ring key keeps a user: names in Redis, and the key that seals what lies under them."""

    hash: str
    ban: str
    tag: str
    _seal_key: bytes = field(repr=False)

    @classmethod
    def of(cls, key: RingKey, user: User) -> Shelf:
        tag, name = key.tag(user), key.user_name(user)
        return cls(f"wxa:{{{tag}}}:u:{name}", f"wxa:{{{tag}}}:b:{name}", tag, key.for_user(user, "seal"))

    def record(self, id: str) -> str:
        return record_name(self.tag, id)

    def seal_entry(self, entry: Entry) -> bytes:
        return self._seal(entry.id, entry.ends_at, [entry.serial, entry.created_at, entry.device])

    def seal_session_keys(self, keys: SessionKeys, ends_at: int) -> bytes:
        previous = keys.previous.reveal() if keys.previous else None
        return self._seal(KEYS_FIELD.decode(), ends_at, [keys.newest.reveal(), keys.since, previous])

    def entries(self, fields: dict[bytes, bytes]) -> list[Entry]:
        """The sessions in the user's hash, oldest first. An entry that does not open is nobody's session."""
        found = [self._entry(id, fields[id.encode("latin-1")]) for id in self.ids(fields)]
        return sorted(filter(None, found), key=lambda entry: entry.serial)

    def ids(self, fields: dict[bytes, bytes]) -> frozenset[str]:
        """The ids of all sessions in the user's hash, also of those whose entry does not open."""
        return frozenset(id.decode("latin-1") for id in fields if id != KEYS_FIELD)

    def session_keys(self, fields: dict[bytes, bytes]) -> SessionKeys | None:
        """The user's session_keys, or None if there are none that open."""
        sealed = fields.get(KEYS_FIELD)
        try:
            newest, since, previous = json.loads(self._unseal(KEYS_FIELD.decode(), sealed or b"")[1])
        except SealBroken:
            return None
        return SessionKeys(Secret(newest), since, Secret(previous) if previous else None)

    def _entry(self, id: str, sealed: bytes) -> Entry | None:
        try:
            ends_at, payload = self._unseal(id, sealed)
        except SealBroken:
            return None
        serial, created_at, device = json.loads(payload)
        return Entry(id, serial, created_at, ends_at, device)

    def _seal(self, field: str, ends_at: int, payload: list[object]) -> bytes:
        return seal(self._seal_key, f"{self.hash} {field}", ends_at, _dump(payload))

    def _unseal(self, field: str, sealed: bytes) -> tuple[int, bytes]:
        return unseal(self._seal_key, f"{self.hash} {field}", sealed)


def _dump(payload: list[object]) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
