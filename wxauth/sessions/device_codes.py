"""Device codes (RFC 8628): a website asks for one, a phone approves it, the website polls until it gets a token.

    wxa:d:{<22 characters>}    one hash for each; the name is a keyed hash of its user_code

The device_code has the form of a token, and its hash tag names this hash. Redis keeps a hash of it, as of each token.
The token that it gives is derived from it, so that a worker that ends between the session and the answer loses
nothing.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any, Final

from ..errors import (
    AccessDenied,
    AuthorizationPending,
    DeviceCodeAnswered,
    DeviceCodeNotFound,
    ExpiredToken,
    InvalidGrant,
    ServerBusy,
    SlowDown,
    TokenInvalid,
    UserBanned,
    WxAuthError,
)
from ..keys import DEVICE_PREFIX, InvalidSeal, KeyRing, SigningKey, Token, seal, unseal
from ..models import Secret, User
from ..storage.client import RedisClient
from . import records
from .approvals import Approvals
from .records import ENCODE, MICROSECONDS, Record
from .store import NewSession, SessionStore, WxSession, script

#: Seconds (RFC 8628, 3.2).
LIFE: Final = 300
INTERVAL: Final = 2
#: No vowels, so that no words come out (RFC 8628, 6.1).
LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
USER_CODE: Final = re.compile(f"[{LETTERS}]{{8}}")
#: 20^8 codes, and a few thousand are open at the same time.
MAX_TRIES: Final = 5

SCRIPT: Final = script("device_code", shared=False)
#: The words with which the replies of the script begin. Another reply belongs to another command.
WORDS: Final = frozenset({"ok", "no", "answered", "approved", "denied", "pending", "slow_down", "expired", "invalid"})

ERRORS: Final = {
    "pending": AuthorizationPending,
    "slow_down": SlowDown,
    "denied": AccessDenied,
    "expired": ExpiredToken,
    "invalid": InvalidGrant,
}


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """Who asks to be logged in: the client, for which app, when (Unix seconds), from which network."""

    client_id: str
    appid: str
    created_at: int
    network: str


class DeviceCodes:
    """All device codes. One for each worker; safe to share between threads. Every method raises StoreUnavailable."""

    def __init__(self, redis: RedisClient, ring: KeyRing, store: SessionStore) -> None:
        self._redis = redis
        self._ring = ring
        self._store = store
        self._approvals = Approvals(store)

    def request(self, client_id: str, appid: str, network: str) -> tuple[Secret, str]:
        """Return a new device_code, shown once, and its user_code. Raises ServerBusy if no user_code is free."""
        details = [client_id, appid, int(self._store.now()), network]
        for _ in range(MAX_TRIES):
            user_code = "".join(secrets.choice(LETTERS) for _ in range(8))
            tag = self._ring.newest.for_user_code(user_code)
            code = self._ring.make(tag, prefix=DEVICE_PREFIX)
            sealed = _seal(self._ring.newest, tag, "details", details)
            arguments = (code.id, client_id, LIFE * MICROSECONDS, INTERVAL * MICROSECONDS, sealed)
            if self._does(tag, "request", *arguments):
                return Secret(code.text), user_code
        raise ServerBusy

    def show(self, user_code: str, appid: str | None = None) -> tuple[DeviceRequest, int]:
        """Return who asks with this user_code, and for how many seconds.

        Raises DeviceCodeNotFound or a subclass, also if it is not for the app `appid`.
        """
        for key in self._ring:
            tag = key.for_user_code(user_code)
            word, found = self._run(tag, "show")
            if word == "answered":
                raise DeviceCodeAnswered
            if word == "ok":
                asked = DeviceRequest(*_open(key, tag, "details", found[0]))
                if appid not in (None, asked.appid):
                    break
                return asked, int(found[1]) // MICROSECONDS
        raise DeviceCodeNotFound

    def answer(self, user_code: str, session: WxSession, *, approve: bool) -> None:
        """Approve or deny, for the user of `session`.

        Raises DeviceCodeNotFound also for the phone of another app, TokenInvalid if the session has just ended.
        """
        self.show(user_code, session.appid)
        mark = self._approvals.mark(session, LIFE) if approve else ""
        user = [session.appid, session.openid, session.unionid, mark] if approve else []
        state = "approved" if approve else "denied"
        for key in self._ring:
            tag = key.for_user_code(user_code)
            if self._does(tag, "answer", state, _seal(key, tag, "user", user)):
                return
        # Another phone has answered since then.
        raise DeviceCodeAnswered

    def poll(self, text: str, client_id: str) -> tuple[Secret, WxSession]:
        """Return the token that a user has granted to the client, and its session.

        `text` is the device_code, which may be any text. Raises the errors of RFC 8628, 3.5. A code that gets no
        token is not used.
        """
        code, key = self._verified(text)
        state, more = self._run(code.hash_tag, "poll", code.id, client_id)
        if state != "approved":
            raise ERRORS[state]
        user = _open(key, code.hash_tag, "user", more[0], InvalidGrant)
        token, session = self._log_in(code, client_id, *user)
        if not self._does(code.hash_tag, "take"):
            raise InvalidGrant
        return token, session

    def name_of(self, user_code: str) -> str:
        """Return the key of the hash of a new user_code."""
        return hash_name(self._ring.newest.for_user_code(user_code))

    def _log_in(
        self, code: Token, client_id: str, appid: str, openid: str, unionid: str | None, mark: str
    ) -> tuple[Secret, WxSession]:
        user, now = User(appid, openid), int(self._store.now())
        token = self._ring.issue_for(code, user)
        record = Record(user, unionid, client_id, now, now + self._store.policy.max_ttl, records.SCAN)
        try:
            session = self._store.add(NewSession(token, record))
        except UserBanned:
            raise AccessDenied from None
        # After the session: a logout from elsewhere sees the session, or its deletion of the mark is seen here.
        if not self._approvals.has(user, mark):
            self._store.withdraw(session)
            raise AccessDenied
        return Secret(token.text), session

    def _verified(self, text: str) -> tuple[Token, SigningKey]:
        try:
            code = self._ring.verify(text, DEVICE_PREFIX)
        except TokenInvalid:
            raise InvalidGrant from None
        return code, self._ring.key_of(code.hash_tag)

    def _does(self, tag: str, step: str, *arguments: str | bytes | int) -> bool:
        """Run one step of the script. Return whether it did what it says."""
        return self._run(tag, step, *arguments)[0] == "ok"

    def _run(self, tag: str, step: str, *arguments: str | bytes | int) -> tuple[str, list[bytes]]:
        """Run one step of the script. Return its word, and what goes with it."""
        offset, call = int(self._store.now.offset * MICROSECONDS), secrets.token_hex(8)
        return self._redis.run(SCRIPT, hash_name(tag), offset, step, call, *arguments, parse=_reply)


def hash_name(tag: str) -> str:
    """Return the key of a device code's hash."""
    return f"wxa:d:{{{tag}}}"


def normalized(user_code: str) -> str:
    """Return a user_code without dashes and in capitals. Raises DeviceCodeNotFound if it has another form."""
    code = user_code.replace("-", "").upper()
    if not USER_CODE.fullmatch(code):
        raise DeviceCodeNotFound
    return code


def _reply(reply: Any) -> tuple[str, list[bytes]]:
    word, *more = reply
    if word.decode() not in WORDS:
        raise LookupError
    return word.decode(), more


def _seal(key: SigningKey, tag: str, field: str, payload: list[Any]) -> bytes:
    return seal(key.for_device(tag), f"{tag} {field}", 0, ENCODE(payload).encode())


def _open(
    key: SigningKey, tag: str, field: str, sealed: bytes, error: type[WxAuthError] = DeviceCodeNotFound
) -> list[Any]:
    """Return the payload. Raises `error` if it was changed in Redis."""
    try:
        found: list[Any] = json.loads(unseal(key.for_device(tag), f"{tag} {field}", sealed)[1])
    except InvalidSeal:
        raise error from None
    return found
