"""The layout of a user's hash in Redis: names, packing and sealing. Pure functions: no Redis and no clock.

    wxa:{<22 characters>}   one hash per user and ring key, whose id comes first; `shared.lua` lists its fields
    wxa:b:<22 characters>   a ban
    wxa:l:{<22 characters>}  the user's failed tries to decrypt user data
    wxa:{<22 characters>}:a  a random mark, which the user's approvals of scans name; without it they are void
    wxa:{<22 characters>}:w  for a millisecond, so that WAIT has a write to wait for

A session's value is read in two ways. The list of a user needs the clear part and the label, which is sealed for the
user. A check needs the record, which only the token opens.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..keys import TAG_LENGTH, InvalidSeal, KeyRing, SigningKey, Token, UserKeys, seal, unseal
from ..models import Secret, SessionKeys, User

#: Idle end and login time in microseconds, kind, length of the sealed label. The Lua scripts read the first two.
CLEAR: Final = struct.Struct(">QQcH")
#: The part of CLEAR that the login script does not write itself.
TAIL: Final = struct.Struct(">cH")
#: The kinds of session: from `wx.login`, from a scan (RFC 8628), from a ticket.
WX_LOGIN: Final = "w"
SCAN: Final = "s"
TICKET: Final = "t"
ID_LENGTH: Final = 22

NEWEST: Final = b"k"
PREVIOUS: Final = b"p"
#: The field of the reasons why sessions ended. An entry: its end in microseconds, the reason, the session's id.
REASONS: Final = "r"
ENTRY: Final = struct.Struct(">Qc22s")
SINCE: Final = struct.Struct(">Q4s")  # microseconds, fingerprint; the sealed session_key follows
MICROSECONDS: Final = 1_000_000
ENCODE: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
#: Returns the value and its length. Only for a sealed text of ENCODE: what follows the value is ignored.
DECODE: Final = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Record:
    """What only the token opens. `ends_at` is the absolute end. Times are Unix seconds.

    `parent` is the id of the session that asked for the ticket; "" for the other kinds.
    """

    user: User
    unionid: str | None = field(repr=False)
    device: str | None
    created_at: int
    ends_at: int
    kind: str = WX_LOGIN
    parent: str = ""


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A session in its user's list. `login_time` (microseconds) gives the order."""

    id: str
    login_time: int
    device: str | None
    kind: str = WX_LOGIN

    @property
    def created_at(self) -> int:
        """Unix seconds."""
        return self.login_time // MICROSECONDS


def hash_name(hash_tag: str) -> str:
    """Return the key of a user's hash. The braces are Redis Cluster's hash tag."""
    return f"wxa:{{{hash_tag}}}"


#: The names of all users' hashes, for SCAN.
ALL_HASHES: Final = hash_name("?" * TAG_LENGTH)


def is_opened_by(ring: KeyRing, name: str) -> bool:
    """Whether the hash `name` belongs to a key of the ring."""
    return any(name.startswith(f"wxa:{{{key.id}") for key in ring)


def ban_name(user: User) -> str:
    """Return the key of a user's ban. It is a plain hash, because a ban must outlive every ring key."""
    digest = hashlib.sha256(f"wxauth ban {user.appid}\0{user.openid}".encode()).digest()
    return f"wxa:b:{urlsafe_b64encode(digest[:16]).decode().rstrip('=')}"


def approvals_name(user_hash: UserHash) -> str:
    """Return the key of the mark without which the user's approvals of scans are void."""
    return f"{user_hash.name}:a"


def failures_name(user_hash: UserHash) -> str:
    """Return the key of a user's failed tries to decrypt user data."""
    return user_hash.name.replace("wxa:", "wxa:l:", 1)


def seal_record(token: Token, record: Record) -> bytes:
    """Return the record, sealed for the token."""
    user = record.user
    # The kind in the clear part can be changed by a writer to Redis, this one cannot.
    origin = [] if record.kind == WX_LOGIN else [record.kind, record.parent]
    payload = [user.appid, user.openid, record.unionid, record.device, record.created_at, *origin]
    return seal(token.seal_key, _context(token.hash_tag, token.id), record.ends_at, ENCODE(payload).encode())


def open_session(token: Token, value: bytes) -> tuple[Record, float]:
    """Return the record and the idle end (Unix seconds) of a session's value.

    Raises InvalidSeal, also if the parent in the clear part is another one: the scripts read that one.
    """
    if len(value) < CLEAR.size:
        raise InvalidSeal
    idle_end, _, kind, label_length = CLEAR.unpack_from(value)
    start = _label_start(kind)
    sealed = value[start + label_length :]
    ends_at, payload = unseal(token.seal_key, _context(token.hash_tag, token.id), sealed)
    appid, openid, unionid, device, created_at, *origin = DECODE(payload.decode())[0]
    record = Record(User(appid, openid), unionid, device, created_at, ends_at, *origin)
    if value[CLEAR.size : start] != record.parent.encode():
        raise InvalidSeal
    return record, idle_end / MICROSECONDS


def end_of(value: bytes, max_ttl: int) -> float:
    """Return when a session ends if it is not used (Unix seconds), by its clear part. 0 if that is damaged."""
    if len(value) < CLEAR.size:
        return 0
    idle_end, login_time, *_ = CLEAR.unpack_from(value)
    return float(min(idle_end, login_time + max_ttl * MICROSECONDS) / MICROSECONDS)


def _label_start(kind: bytes) -> int:
    return CLEAR.size + (ID_LENGTH if kind == TICKET.encode() else 0)


def reason_of(entries: bytes, id: str, now: float) -> bytes | None:
    """Return why the session `id` ended, one letter, or None if no entry says it. `now` is in Unix seconds."""
    entries = entries[: len(entries) // ENTRY.size * ENTRY.size]
    found = {name: reason for ends, reason, name in ENTRY.iter_unpack(entries) if ends > now * MICROSECONDS}
    return found.get(id.encode())


@dataclass(frozen=True, slots=True)
class UserHash:
    """The hash of one user under one ring key."""

    name: str
    _keys: UserKeys = field(repr=False)

    @classmethod
    def of(cls, key: SigningKey, user: User) -> UserHash:
        """Return the hash of `user` under `key`."""
        keys = key.for_user(user)
        return cls(hash_name(keys.hash_tag), keys)

    @property
    def hash_tag(self) -> str:
        """The part of a token that names this hash."""
        return self._keys.hash_tag

    def session_tail(self, id: str, record: Record, sealed_record: bytes) -> bytes:
        """Return a session's value after the idle end and the login time, which the login script writes."""
        label = self._seal(f"label {id}", record.device.encode()) if record.device else b""
        return TAIL.pack(record.kind.encode(), len(label)) + record.parent.encode() + label + sealed_record

    def session_key_value(self, session_key: Secret) -> bytes:
        """Return the value of a session_key's field after its time, which the script writes.

        It begins with a fingerprint, which tells the script whether the session_key is a new one.
        """
        text = session_key.reveal().encode()
        fingerprint = hmac.digest(self._keys.fingerprint_key, text, "sha256")[:4]
        return fingerprint + self._seal("session_key", text)

    def entries(self, fields: Mapping[bytes, bytes]) -> list[SessionEntry]:
        """Return the sessions in the hash, oldest login first."""
        sessions = ((id.decode("latin-1"), value) for id, value in fields.items() if len(id) > 1)
        found = [self._entry(id, value) for id, value in sessions if len(value) >= CLEAR.size]
        return sorted(found, key=lambda entry: entry.login_time)

    def session_keys(self, fields: Mapping[bytes, bytes]) -> list[tuple[int, Secret]]:
        """Return the session_keys in the hash, each with the time since when it is known (microseconds)."""
        found = []
        for name in (NEWEST, PREVIOUS):
            value = fields.get(name, b"")
            text = self._unseal("session_key", value[SINCE.size :])
            if text is not None:
                found.append((SINCE.unpack_from(value)[0], Secret(text.decode())))
        return found

    def _entry(self, id: str, value: bytes) -> SessionEntry:
        _, login_time, kind, label_length = CLEAR.unpack_from(value)
        start = _label_start(kind)
        label = self._unseal(f"label {id}", value[start : start + label_length])
        return SessionEntry(id, login_time, label.decode() if label else None, kind.decode("latin-1"))

    def _seal(self, field: str, payload: bytes) -> bytes:
        return seal(self._keys.seal_key, _context(self._keys.hash_tag, field), 0, payload)

    def _unseal(self, field: str, sealed: bytes) -> bytes | None:
        try:
            return unseal(self._keys.seal_key, _context(self._keys.hash_tag, field), sealed)[1]
        except InvalidSeal:
            return None


def merge_session_keys(found: Iterable[tuple[int, Secret]]) -> SessionKeys | None:
    """Return the newest session_key and the one before it, or None if there is none."""
    keys = sorted(found, key=lambda known: known[0], reverse=True)
    if not keys:
        return None
    since, newest = keys[0]
    previous = next((known for _, known in keys if known != newest), None)
    return SessionKeys(newest, since // MICROSECONDS, previous)


def _context(hash_tag: str, field: str) -> str:
    return f"{hash_tag} {field}"
