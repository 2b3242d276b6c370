"""Sessions: create, check, list, end, ban. Knows no HTTP.

Every method of SessionStore raises StoreUnavailable if Redis cannot be asked. "Not there" is another error
(TokenInvalid, SessionNotFound) or None.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import Any, Final

from ..clock import Clock
from ..errors import (
    RateLimited,
    SessionBanned,
    SessionKeyStale,
    SessionNotFound,
    SessionReplaced,
    SessionRevoked,
    StoreUnavailable,
    TicketInvalid,
    TokenInvalid,
    UserBanned,
)
from ..keys import InvalidSeal, KeyRing, Token
from ..metrics import ENDED
from ..models import Identity, Secret, SessionKeys, User
from ..storage.client import RedisClient, Script, bytes_or_none
from ..storage.round_trips import Command
from ..wechat.open_data import Watermark, check_signed, open_encrypted, sign
from . import records
from .records import MICROSECONDS, Record, SessionEntry, UserHash

log = logging.getLogger(__name__)

#: Seconds. The shortest time between two recorded uses, except with an idle life below two minutes.
TOUCH_INTERVAL: Final = 60
BAN_TTL: Final = 10 * 365 * 86400
#: The failed tries to decrypt that a user has in FAILURE_WINDOW seconds. An answer shows what a block decrypts to,
#: and its time depends a little on the content. With some ten thousand tries a user could forge a block of own data.
MAX_FAILURES: Final = 10
FAILURE_WINDOW: Final = 3600

#: The letters under which a hash keeps the reasons why sessions ended. The others leave no entry.
LETTERS: Final[Mapping[str | None, str]] = {"cap": "c", "everywhere": "r", "revoked": "r", "purge": "r", "ban": "b"}
#: What the token of an ended session raises. Without an entry it raises TokenInvalid.
ERRORS: Final[Mapping[bytes | None, type[TokenInvalid]]] = {
    b"c": SessionReplaced,
    b"r": SessionRevoked,
    b"b": SessionBanned,
}


def script(name: str, *, shared: bool = True) -> Script:
    """Return the script of a file in `scripts`, behind `shared.lua` if it is one of a user's hash."""
    folder = resources.files(__package__).joinpath("scripts")
    names = ("shared", name) if shared else (name,)
    return Script("".join(folder.joinpath(f"{part}.lua").read_text() for part in names))


LOGIN, END, TOUCH, REKEY, LIST, UNBAN = map(script, ("login", "end", "touch", "rekey", "list", "unban"))
#: How a session began, by the kind of its record.
KINDS: Final[Mapping[str, str]] = {records.WX_LOGIN: "login", records.SCAN: "scan", records.TICKET: "ticket"}
#: Sessions by scan have the limit of the others, but at least this one. Sessions by ticket have it for each parent.
MIN_SCANS: Final = 5
MAX_BY_TICKET: Final = 5


@dataclass(frozen=True, slots=True)
class WxSession:
    """A session as it was read. Times are Unix seconds. It ends at `expires_at` if it is not used again.

    `kind` is how it began: "login" (wx.login), "scan" or "ticket". The `device` of a scan is the id of the client.
    `parent` is the id of the session that asked for the ticket; "" for the other kinds.
    Example: `wx_session.openid` in a view with `@login_required`.
    """

    id: str
    appid: str
    openid: str = field(repr=False)
    unionid: str | None = field(repr=False)
    device: str | None
    created_at: int
    expires_at: int
    kind: str
    parent: str
    _store: SessionStore = field(repr=False, compare=False)

    @property
    def user(self) -> User:
        """The user: appid and openid."""
        return User(self.appid, self.openid)

    @property
    def expires_in(self) -> int:
        """Whole seconds from now."""
        return max(self.expires_at - int(self._store.now()), 0)

    @property
    def session_key(self) -> str | None:
        """The user's newest session_key, read from Redis each time. It must never leave the server."""
        keys = self._store.session_keys(self.user)
        return keys.newest.reveal() if keys else None

    def decrypt(self, encrypted_data: str, iv: str) -> dict[str, Any]:
        """Return the user data in `encryptedData` and `iv`, with its watermark.

        Raises SessionKeyStale if no session_key opens it or it is too old, RateLimited after MAX_FAILURES of these,
        BadRequest if it is malformed, and StoreUnavailable.
        """
        expected = Watermark(self.appid, self._store.now(), self._store.policy.userdata_max_age)
        with self._store.counting_failures(self.user):
            return open_encrypted(encrypted_data, iv, self._store.session_keys(self.user), expected)

    def sign(self, message: str) -> str:
        """Return the signature of `message` under the session_key, which WeChat's virtual payment asks for.

        It is the hexadecimal HMAC-SHA256 of the UTF-8 bytes. Raises SessionKeyStale without a session_key, BadRequest
        if the message is empty, and StoreUnavailable.
        """
        return self._store.sign(self.user, message)

    def verify(self, raw_data: str, signature: str) -> dict[str, Any]:
        """Return the parsed `rawData` if WeChat signed it for this user. Raises as `decrypt`, but not RateLimited."""
        return check_signed(raw_data, signature, self._store.session_keys(self.user), self._store.now())


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long sessions live, how many a user may have, how old user data may be. Times are seconds."""

    idle_ttl: int
    max_ttl: int
    max_sessions: int
    userdata_max_age: int = 600

    def limit_of(self, kind: str) -> int:
        """Return how many sessions of this kind a user may have, by ticket: for each parent."""
        limits = {records.SCAN: max(self.max_sessions, MIN_SCANS), records.TICKET: MAX_BY_TICKET}
        return limits.get(kind, self.max_sessions)

    @property
    def touch_after(self) -> float:
        """How much of the idle life may pass before a use is recorded.

        It is at most half of the idle life. Otherwise a session with a very short one would expire while it is used.
        """
        return min(max(TOUCH_INTERVAL, self.idle_ttl / 20), self.idle_ttl / 2)

    def touch_due_at(self, now: float, idle_until: float, ends_at: float) -> float:
        """Return the time from which on a use has to be recorded: at `now` `idle_until` is known (Unix seconds)."""
        if idle_until - min(now + self.idle_life, ends_at) > self.touch_after:
            # The settings were shortened.
            return now
        return idle_until - self.idle_life + self.touch_after if idle_until < ends_at else ends_at

    @property
    def idle_life(self) -> int:
        """How long a session lives after a use, its absolute end aside."""
        return min(self.idle_ttl, self.max_ttl)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to add. `ticket` is the field of the ticket that it uses; `hashes` are the user's, if known."""

    token: Token
    record: Record
    session_key: Secret | None = None
    ticket: str = ""
    hashes: Sequence[UserHash] = ()


class SessionStore:
    """All sessions of all users. One for each worker; safe to share between threads."""

    def __init__(self, redis: RedisClient, ring: KeyRing, policy: SessionPolicy, clock: Clock | None = None) -> None:
        self.redis = redis
        self.policy = policy
        self.now = clock or Clock()
        self._ring = ring
        #: Called with the ids of sessions that this worker has ended, None if not known. The cache sets it.
        self.on_ended: Callable[[Iterable[str] | None], None] = lambda ids: None

    def create(
        self, identity: Identity, device: str | None = None, replacing: WxSession | None = None
    ) -> tuple[Secret, WxSession]:
        """Log a user in. Return the token, shown once, and its session.

        Above the limit the user's oldest sessions end. `replacing` ends too; it may be a session of another user.
        Raises UserBanned.
        """
        now, hashes = int(self.now()), self.hashes(identity.user)
        record = Record(identity.user, identity.unionid, device, now, now + self.policy.max_ttl)
        token = self._ring.make(hashes[0].hash_tag)
        new = NewSession(token, record, identity.session_key, hashes=hashes)
        return Secret(token.text), self.add(new, replacing)

    def add(self, new: NewSession, replacing: WxSession | None = None) -> WxSession:
        """Add a session. Raises UserBanned, or TicketInvalid if its ticket is not good."""
        record = new.record
        parent_end = self._end_of_parent(new.token, record) if record.parent else record.ends_at
        ends_at = min(self.now() + self.policy.idle_life, record.ends_at, parent_end)
        session = self._session(new.token.id, record, int(ends_at))
        is_banned = self._write(new, replacing)
        if is_banned:
            self.withdraw(session)
            raise UserBanned
        if replacing and replacing.user != record.user:
            self.revoke(replacing)
        return session

    def resolve(self, text: str, *, touch: bool = True) -> WxSession:
        """Return the session of a token, which may be any text. `touch` prolongs its life.

        Raises TokenInvalid, or the subclass of it that says who ended the session.
        """
        return self.load(text, touch=touch)[0]

    def load(self, text: str, *, touch: bool = True) -> tuple[WxSession, float]:
        """Return what `resolve` returns, and the time from which on the next use has to be recorded."""
        token = self._ring.verify(text)
        record, idle_until = self._read(token)
        now = self.now()
        # The setting counts too, so that a shorter WXAUTH_MAX_TTL holds at once.
        ends_at = min(record.ends_at, record.created_at + self.policy.max_ttl)
        full = min(now + self.policy.idle_ttl, ends_at)
        parent_end = self._end_of_parent(token, record) if record.parent else full
        expired = min(idle_until, ends_at, parent_end) <= now
        due_at = self.policy.touch_due_at(now, idle_until, ends_at)
        if expired or (touch and due_at <= now):
            idle_until = self._touch(token, ends_at, move=touch, needed=expired) or idle_until
            # If the clocks differ, or Redis takes no writes, not each check tries again.
            due_at = max(self.policy.touch_due_at(now, idle_until, ends_at), now + self.policy.touch_after / 4)
        return self._session(token.id, record, int(min(idle_until, full, parent_end))), due_at

    def sessions_of(self, user: User) -> list[SessionEntry]:
        """Return the user's live sessions, oldest first. Sessions under older ring keys count as older."""
        return [entry for user_hash in reversed(self.hashes(user)) for entry in self._open(user_hash)[0]]

    def session_keys(self, user: User) -> SessionKeys | None:
        """Return the newest session_key and the one before it. None without a session."""
        return records.merge_session_keys(
            known for user_hash in self.hashes(user) for known in self._open(user_hash)[1]
        )

    def sign(self, user: User, message: str) -> str:
        """Return the signature of `message` under the newest session_key. Raises as `WxSession.sign`."""
        return sign(message, self.session_keys(user))

    def replace_session_key(self, user: User, session_key: Secret) -> None:
        """Keep the session_key that a reset brought, and none before it. Without a session nothing is kept."""
        for user_hash in self.hashes(user):
            self.run(REKEY, user_hash, user_hash.session_key_value(session_key), parse=int)

    @contextlib.contextmanager
    def counting_failures(self, user: User) -> Iterator[None]:
        """Count a SessionKeyStale of the body. Raises RateLimited before the body if there were too many.

        Tries at the same time may exceed the limit by their number.
        """
        number, age = divmod(int(self.now()), FAILURE_WINDOW)
        name = f"{records.failures_name(self.hashes(user)[0])}:{number}"
        if self.redis.count(name, FAILURE_WINDOW, 0) >= MAX_FAILURES:
            raise RateLimited(FAILURE_WINDOW - age, MAX_FAILURES, FAILURE_WINDOW, "user")
        try:
            yield
        except SessionKeyStale:
            self.redis.count(name, FAILURE_WINDOW)
            raise

    def withdraw(self, session: WxSession) -> None:
        """End a session that was not handed out. It is in no metric, and leaves no reason."""
        self._end(session.user, "these", [session.id], None)

    def revoke(self, session: WxSession, reason: str = "logout") -> None:
        """End this session: `logout` for its holder, `revoked` for the operator."""
        self._end(session.user, "these", [session.id], reason)

    def end(self, user: User, id: str, own: str = "") -> None:
        """End one session of the user, on behalf of the session `own` or of the operator.

        Raises SessionNotFound if the user has no live session of that id.
        """
        retries, reason = self.redis.retries, "logout" if id == own else "revoked"
        if not self._end(user, "these", [id], reason) and self.redis.retries == retries:
            raise SessionNotFound("You have no such session.")

    def end_all(self, user: User, reason: str = "everywhere", own: str = "") -> None:
        """End all sessions of the user. The session_keys go with the last session. `own` is as in `end`."""
        self._end(user, "others", [], reason, own)

    def end_others(self, session: WxSession) -> None:
        """End all sessions of the user but this one."""
        self._end(session.user, "others", [session.id], "everywhere")

    def ban(self, user: User) -> None:
        """End all sessions of the user, and refuse every login until `unban`.

        The mark is set first. A login writes first and then looks for the mark, so one of the two sees the other.
        """
        self.redis.set(records.ban_name(user), BAN_TTL)
        self._end(user, "others", [], "ban")
        if not self.is_banned(user):
            # An `unban` came in between. It did not see the reasons that this ban has written.
            self._forget_ban(user)

    def is_banned(self, user: User) -> bool:
        """Whether the operator banned the user."""
        return self.redis.read(records.ban_name(user)) is not None

    def unban(self, user: User) -> None:
        """Allow the user to log in again. The tokens from before the ban are TokenInvalid from now on."""
        self.redis.delete(records.ban_name(user))
        self._forget_ban(user)

    def _forget_ban(self, user: User) -> None:
        for user_hash in self.hashes(user):
            self.run(UNBAN, user_hash, parse=int)

    def orphans(self) -> Iterator[str]:
        """Yield the hashes that no key of the ring opens. A hash may come twice.

        Their users cannot be known, so no logout, ban or purge reaches them.
        """
        names = self.redis.scan(records.ALL_HASHES)
        return (name for name in names if not records.is_opened_by(self._ring, name))

    def hashes(self, user: User) -> list[UserHash]:
        """Return the user's hashes, one for each ring key, the newest first."""
        return [UserHash.of(key, user) for key in self._ring]

    def _write(self, new: NewSession, replacing: WxSession | None) -> bool:
        """Run the login script, and enforce the limit across ring keys. Return whether the user is banned."""
        user = new.record.user
        hashes = new.hashes or self.hashes(user)
        user_hash = next(it for it in hashes if it.hash_tag == new.token.hash_tag)
        is_same = replacing and replacing.user == user and replacing.id != new.record.parent
        replaced = replacing.id if replacing and is_same else ""
        arguments = self._login_arguments(new, user_hash, replaced)
        # A login that no replica would confirm is refused before it ends anything.
        self.redis.ensure_replicas(user_hash.name)
        ended: list[str] = []
        with self._reporting(ended):
            found, banned = self._login(user_hash, arguments, records.ban_name(user))
            ended += found
        for id in ended:
            ENDED.labels("logout" if id == replaced else "cap").inc()
        if len(hashes) > 1:
            self._end(user, "these", [replaced] if replaced else [], "logout")
            self._end(user, "these", self._surplus(new.record), "cap")
        return banned

    def _login_arguments(self, new: NewSession, user_hash: UserHash, replaced: str) -> Command:
        record, id, life = new.record, new.token.id, self.policy.idle_life * MICROSECONDS
        tail = user_hash.session_tail(id, record, records.seal_record(new.token, record))
        key = user_hash.session_key_value(new.session_key) if new.session_key else b""
        limit, login_time = self.policy.limit_of(record.kind), record.created_at * MICROSECONDS
        return limit, id, life, login_time, tail, key, replaced, record.kind, new.ticket, record.parent

    def _surplus(self, record: Record) -> list[str]:
        """Return the user's oldest sessions of this kind above the limit, under all ring keys.

        Sessions by ticket are in the hash of their parent, where the script has enforced their limit.
        """
        ids = [entry.id for entry in self.sessions_of(record.user) if entry.kind == record.kind]
        return ids[: -self.policy.limit_of(record.kind)] if record.kind != records.TICKET else []

    def _login(self, user_hash: UserHash, args: Command, ban: str) -> tuple[list[str], bool]:
        """Run the login script, then look for the ban: in one round trip where both keys are on one node.

        Raises TicketInvalid.
        """
        exists = ("EXISTS", ban)
        if self.redis.is_cluster:
            ended = self.run(LOGIN, user_hash, *args, parse=partial(_login_reply, user_hash.name))
            count = 0 if ended is None else self.redis.ask(ban, *exists, parse=int)
        else:
            ended, count = self.run(
                LOGIN, user_hash, *args, also=[exists], parse=partial(_login_and_ban, user_hash.name)
            )
        if ended is None:
            raise TicketInvalid
        return ended, count > 0

    def _end(self, user: User, which: str, ids: list[str], reason: str | None, own: str = "") -> list[str]:
        """End `these` sessions, or all `others`, under each ring key. Return the ids of those that were alive.

        The metric counts them under `reason`; None for a session that was never handed out. Their tokens raise the
        error of the reason, except that of the session `own`.
        """
        if which == "these" and not ids:
            return []
        ended: list[str] = []
        letter = LETTERS.get(reason, "")
        with self._reporting(ended):
            for user_hash in self.hashes(user):
                void, parse = _voiding(user_hash, letter), partial(_ended_ids, user_hash.name)
                ended += self.run(END, user_hash, which, letter, own, *ids, also=void, parse=parse)
        if reason:
            ENDED.labels(reason).inc(len(ended))
        return ended

    @contextlib.contextmanager
    def _reporting(self, ended: list[str]) -> Iterator[None]:
        """Tell the cache which sessions a script has `ended`; None if that is not known.

        A script that was sent again after a lost connection does not return what its first run ended.
        """
        retries = self.redis.retries
        known = False
        try:
            yield
            known = self.redis.retries == retries
        finally:
            self.on_ended(ended if known else None)

    def read_field(self, hash_tag: str, field: str) -> bytes | None:
        """Return a field of a user's hash, or None."""
        name = records.hash_name(hash_tag)
        return self.redis.ask(name, "HGET", name, field, parse=bytes_or_none)

    def _read(self, token: Token) -> tuple[Record, float]:
        """Return the record and the idle end (Unix seconds). Raises TokenInvalid or a subclass.

        First it asks together with other threads, and trusts only a record that opens with the token: any other reply
        may belong to another thread. After a record that does not open it asks on a fresh connection.
        """
        name, together, fresh = records.hash_name(token.hash_tag), True, False
        command = ("HMGET", name, token.id, records.REASONS)
        for _ in range(3):
            value, reasons = self.redis.ask(name, *command, parse=_two_values, together=together, fresh=fresh)
            if value is not None:
                try:
                    return records.open_session(token, value)
                except InvalidSeal:
                    fresh = True
            elif not together:
                raise ERRORS.get(records.reason_of(reasons or b"", token.id, self.now()), TokenInvalid)
            together = False
        log.error("record_does_not_open", extra={"session": token.id})
        raise TokenInvalid

    def _end_of_parent(self, token: Token, record: Record) -> float:
        """Return when the parent of a session by ticket ends if it is not used (Unix seconds). 0 if it has ended."""
        return records.end_of(self.read_field(token.hash_tag, record.parent) or b"", self.policy.max_ttl)

    def _touch(self, token: Token, ends_at: int, *, move: bool, needed: bool) -> float | None:
        """Record a use. Return the new idle end (Unix seconds), or None if Redis takes no writes just now.

        If the answer is `needed`, because the session may have expired, raises StoreUnavailable instead: Redis' clock
        decides what has expired. Raises TokenInvalid.
        """
        life = self.policy.idle_life * MICROSECONDS if move else ""
        name, arguments = records.hash_name(token.hash_tag), (*self._shared, token.id, life, ends_at * MICROSECONDS)
        try:
            idle_end = self.redis.run(TOUCH, name, *arguments, parse=int)
        except StoreUnavailable:
            if needed:
                raise
            return None
        if idle_end <= 0:
            # It has ended since it was read, or expired. The reason is in the hash.
            self._read(token)
            raise TokenInvalid
        return idle_end / MICROSECONDS

    def _open(self, user_hash: UserHash) -> tuple[list[SessionEntry], list[tuple[int, Secret]]]:
        """Return the live sessions of a hash, by Redis' clock, and its session_keys if there is one."""
        fields = self.redis.run(LIST, user_hash.name, *self._shared, parse=_fields)
        live = user_hash.entries(fields)
        return live, user_hash.session_keys(fields) if live else []

    @property
    def _shared(self) -> tuple[int, int]:
        """The arguments of `shared.lua`: what to add to Redis' clock, and the absolute life, in microseconds."""
        return int(self.now.offset * MICROSECONDS), self.policy.max_ttl * MICROSECONDS

    def run(self, script: Script, user_hash: UserHash, *arguments: Any, **options: Any) -> Any:
        """Run a script that changes sessions. It is confirmed by a replica where that is configured."""
        return self.redis.run(script, user_hash.name, *self._shared, *arguments, confirmed=True, **options)

    def _session(self, id: str, record: Record, expires_at: int) -> WxSession:
        return WxSession(
            id,
            record.user.appid,
            record.user.openid,
            record.unionid,
            record.device,
            record.created_at,
            expires_at,
            KINDS.get(record.kind, ""),
            record.parent,
            self,
        )


def _fields(reply: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(map(bytes, reply[::2]), map(bytes, reply[1::2]), strict=True))


def _two_values(reply: Any) -> tuple[bytes | None, bytes | None]:
    value, reasons = reply
    return bytes_or_none(value), bytes_or_none(reasons)


def _voiding(user_hash: UserHash, letter: str) -> list[Command]:
    """Return the command that makes approvals of scans void, if another session or the operator ends sessions."""
    return [("DEL", records.approvals_name(user_hash))] if letter in ("r", "b") else []


def _ended_ids(name: str, reply: Any, *_: Any) -> list[str]:
    """Return the ids in the reply of LOGIN or END. Raises ValueError if the reply is not that of the hash `name`."""
    first, *ids = reply
    if first != name.encode():
        raise ValueError
    return [id.decode() for id in ids]


def _login_reply(name: str, reply: Any) -> list[str] | None:
    """Return the ids of the ended sessions, or None if the ticket is not good."""
    return None if reply == b"refused" else _ended_ids(name, reply)


def _login_and_ban(name: str, reply: Any, count: Any) -> tuple[list[str] | None, int]:
    return _login_reply(name, reply), int(count)
