"""Sessions: create, resolve, list, end, ban. Knows no HTTP, and of Redis only what `redis_client` offers.

A record is written once. Use is recorded by EXPIRE alone, which brings nothing back, so no refresh can revive a
session that a logout has just ended.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SessionNotFound, StoreUnavailable, TokenInvalid, UserBanned
from ..keys import InvalidSeal, KeyRing, Token
from ..models import Identity, Secret, SessionKeys, User
from ..storage.client import RedisClient
from ..storage.wire import Command
from ..wechat.open_data import EncryptedData, SignedData, Watermark
from .records import Entry, Record, ban_name, open_record, record_name, seal_record
from .shelves import Shelves

log = logging.getLogger(__name__)

TOUCH_INTERVAL: Final = 60
BAN_TTL: Final = 10 * 365 * 86400


@dataclass(frozen=True, slots=True)
class WxSession:
    """A live session. Times are Unix seconds; it ends at `expires_at` unless it is used again before."""

    id: str
    appid: str
    openid: str = field(repr=False)
    unionid: str | None = field(repr=False)
    device: str | None
    created_at: int
    expires_at: int
    _store: SessionStore = field(repr=False, compare=False)

    @property
    def user(self) -> User:
        return User(self.appid, self.openid)

    @property
    def expires_in(self) -> int:
        """Whole seconds from now."""
        return max(self.expires_at - int(self._store.now()), 0)

    @property
    def age(self) -> float:
        """Seconds since the login."""
        return self._store.now() - self.created_at

    @property
    def session_key(self) -> str | None:
        """The user's newest session_key, asked for anew each time. It must never leave the server."""
        keys = self._store.session_keys(self.user)
        return keys.newest.reveal() if keys else None

    def decrypt(self, encrypted_data: str, iv: str) -> dict[str, Any]:
        """What WeChat sealed for this user as `encryptedData` and `iv`, its watermark included.

        Raises SessionKeyStale if it does not open or is too old, BadRequest if it can't be such data at all, and
        StoreUnavailable.
        """
        sealed = EncryptedData.read(encrypted_data, iv)
        expected = Watermark(self.appid, self._store.now(), self._store.userdata_max_age)
        return sealed.open(self._store.session_keys(self.user), expected)

    def verify(self, raw_data: str, signature: str) -> dict[str, Any]:
        """What `rawData` says, if WeChat signed it for this user. Raises as `decrypt` does."""
        signed = SignedData.read(raw_data, signature)
        return signed.check(self._store.session_keys(self.user), self._store.now())


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long sessions live, how many a user may have, and how old user data may be. Times are seconds."""

    idle_ttl: int
    max_ttl: int
    max_sessions: int
    userdata_max_age: int = 600

    @property
    def touch_after(self) -> float:
        """How much of the idle life may pass before a use is recorded: a write that is not made costs nothing.

        Half of a life that is shorter than two minutes, or no use would ever count.
        """
        return min(max(TOUCH_INTERVAL, self.idle_ttl / 20), self.idle_ttl / 2)


class SessionStore:
    """All sessions of all users. Every method raises StoreUnavailable where Redis can't be asked."""

    def __init__(
        self, redis: RedisClient, ring: KeyRing, limits: SessionPolicy, clock: Callable[[], float] = time.time
    ) -> None:
        self.redis = redis
        self._ring = ring
        self._limits = limits
        self.now = clock
        self.shelves = Shelves(redis, ring, limits.max_sessions)

    @property
    def userdata_max_age(self) -> int:
        """In seconds."""
        return self._limits.userdata_max_age

    def ping(self) -> None:
        """Returns if the store answers."""
        self.redis.ping()

    def health(self) -> str:
        """`ok`, or one word for what endangers sessions; StoreUnavailable if none can be kept."""
        return self.redis.health()

    def create(
        self, identity: Identity, device: str | None = None, replacing: WxSession | None = None
    ) -> tuple[Secret, WxSession]:
        """Log a user in: the token to hand out, and its session. Past the cap the user's oldest sessions end.

        `replacing`, which may be another user's, ends too. Raises UserBanned.
        """
        if self.redis.read(ban_name(identity.user)):
            raise UserBanned
        now = int(self.now())
        token = self._ring.issue(identity.user)
        record = Record(identity.user, identity.unionid, device, now, now + self._limits.max_ttl)
        replaced = {replacing.id} if replacing and replacing.user == identity.user else set[str]()
        self.shelves.enter(token.id, record, self._writing(token, record), identity.session_key, replaced)
        if replacing and not replaced:
            self.revoke(replacing)
        return Secret(token.text), self._session(token.id, record, now + self._first_life)

    def resolve(self, text: str, *, touch: bool = True) -> WxSession:
        """The session of a token (any text at all), or TokenInvalid. `touch` keeps it from idling out."""
        return self.load(text, touch=touch)[0]

    def load(self, text: str, *, touch: bool = True) -> tuple[WxSession, float]:
        """As `resolve`, and the time from which on a use has to be recorded again."""
        token = self._ring.verify(text)
        name = record_name(token.tag, token.id)
        record, left = self._open(token, name)
        now = self.now()
        # The setting counts too, so that a shorter one holds at once.
        full = min(self._limits.idle_ttl, record.ends_at - now, record.created_at + self._limits.max_ttl - now)
        if full <= 0:
            raise TokenInvalid
        if touch and abs(full - left) > self._limits.touch_after and self._touched(name, int(full)):
            left = full
        touch_due_at = now + self._limits.touch_after - max(full - left, 0)
        return self._session(token.id, record, int(now + min(left, full))), touch_due_at

    def verify_signature(self, text: str) -> None:
        """TokenInvalid for what none of our keys has signed; nobody is asked."""
        self._ring.verify_signature(text)

    def sessions_of(self, user: User) -> list[Entry]:
        """The user's live sessions, oldest first."""
        return self.shelves.entries(user)

    def session_keys(self, user: User) -> SessionKeys | None:
        """The user's newest session_key and the one before it; None after the last logout."""
        return self.shelves.session_keys(user)

    def replace_session_key(self, user: User, session_key: Secret) -> None:
        """Keep the session_key that a reset brought. Those before it are dead; who has logged out has none."""
        self.shelves.rekey(user, SessionKeys(session_key, int(self.now())))

    def revoke(self, session: WxSession) -> None:
        """End this session, whether its user's list knows of it or not."""
        self.shelves.dismiss(session.user, lambda _: {session.id}, "logout")

    def end(self, user: User, id: str) -> None:
        """End one of the user's own sessions; SessionNotFound if it is not alive or somebody else's."""
        if not self.shelves.dismiss(user, lambda ids: ids & {id}, "logout"):
            raise SessionNotFound("You have no such session.")

    def end_all(self, user: User, shown: WxSession | None = None) -> None:
        """End all of the user's sessions, and the one that was `shown`, whether the list knows of it or not."""
        ids_shown = {shown.id} if shown else set[str]()
        self.shelves.dismiss(user, lambda ids: ids | ids_shown, "everywhere")

    def end_others(self, session: WxSession) -> None:
        """End all sessions of the user but this one."""
        self.shelves.dismiss(session.user, lambda ids: ids - {session.id}, "everywhere")

    def purge(self, user: User) -> None:
        """End all of the user's sessions and forget the session_keys, also where no session is left."""
        self.shelves.dismiss(user, lambda ids: ids, "purge", lambda shelf: [("DEL", shelf.hash)])

    def ban(self, user: User) -> None:
        """End all of the user's sessions, and refuse every login until `unban`."""
        self.redis.set(ban_name(user), BAN_TTL)
        self.shelves.dismiss(user, lambda ids: ids, "ban", lambda shelf: [("SET", shelf.ban, "", "EX", BAN_TTL)])

    def unban(self, user: User) -> None:
        for shelf in self.shelves.of(user):
            self.redis.delete(shelf.ban)
        self.redis.delete(ban_name(user))

    @property
    def _first_life(self) -> int:
        return min(self._limits.idle_ttl, self._limits.max_ttl)

    def _writing(self, token: Token, record: Record) -> Command:
        name = record_name(token.tag, token.id)
        return ("SET", name, seal_record(token.seal_key, name, record), "EX", self._first_life)

    def _open(self, token: Token, name: str) -> tuple[Record, float]:
        """The token's record and the seconds it has left; asked for once more where the reply can't be right."""
        for read in (self.redis.read, self.redis.read_afresh):
            found = read(name)
            if found is None:
                raise TokenInvalid
            with contextlib.suppress(InvalidSeal):
                return open_record(token.seal_key, name, found[0]), found[1]
        log.error("record_does_not_open", extra={"session": token.id})
        raise TokenInvalid

    def _touched(self, name: str, seconds: int) -> bool:
        """Whether the use is recorded. That Redis can only be read is no reason to refuse a live session."""
        try:
            alive = self.redis.expire(name, max(seconds, 1))
        except StoreUnavailable:
            return False
        # A reply that was spoilt on its way is no reason either.
        if not alive and self.redis.read_afresh(name) is None:
            raise TokenInvalid
        return alive

    def _session(self, id: str, record: Record, expires_at: int) -> WxSession:
        user = record.user
        return WxSession(
            id, user.appid, user.openid, record.unionid, record.device, record.created_at, expires_at, self
        )
