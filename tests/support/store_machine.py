"""A model of the store in plain Python, and a state machine that compares the two."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import fakeredis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.conftest import APPID
from wxauth.clock import Clock
from wxauth.errors import SessionBanned, SessionNotFound, SessionReplaced, SessionRevoked, TokenInvalid, UserBanned
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.store import MAX_BY_TICKET, MIN_SCANS, SessionPolicy, SessionStore, WxSession
from wxauth.sessions.tickets import Tickets
from wxauth.storage.client import RedisClient

# Time moves in steps of 100 seconds, so no session ends within the seconds that a run takes.
POLICY = SessionPolicy(idle_ttl=604850, max_ttl=2592050, max_sessions=2)
TOUCH_AFTER = POLICY.idle_ttl / 20
TICK = 100
MAX_STEP = 5 * 86400 // TICK
#: Seconds for which a reason is kept, and how many of them a hash keeps.
REASON_LIFE = 7 * 86400
MAX_REASONS = 20

PEOPLE = [User(APPID, "oALICE"), User("wx-second-app", "oALICE")]
SESSION_KEYS = [f"session-key-{number}" for number in range(3)]

people = st.sampled_from(PEOPLE)
picks = st.integers(0, 11)
devices = st.none() | st.sampled_from(["iPhone", "手机", "watch"])


@dataclass(eq=False)
class ModelSession:
    """A session of the model. `order` counts the logins. `kind` is that of WxSession; `parent` only of a ticket's."""

    order: int
    token: str
    id: str
    user: User
    device: str | None
    session_key: str
    ring_key: str
    ends_at: float
    idle_until: float
    kind: str = "login"
    parent: ModelSession | None = None
    ended: bool = False
    error: type[TokenInvalid] = TokenInvalid
    error_until: float = 0


class StoreMachine(RuleBasedStateMachine):
    """Each rule does one thing to the store and to the model. Each invariant compares the two."""

    store_class: type[SessionStore] = SessionStore

    def __init__(self) -> None:
        super().__init__()
        self.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
        self.clock = Clock()
        self.ring_keys = (f"ring-key-{number}".ljust(32, ".") for number in itertools.count())
        self.ring = [next(self.ring_keys)]
        self.sessions: list[ModelSession] = []
        self.banned: set[User] = set()
        #: The sessions that were ended with a reason, by hash, oldest first.
        self.reasons: dict[tuple[User, str], list[ModelSession]] = {}
        self.reopen()

    # --- The model

    def reopen(self) -> None:
        """Make a new store with the current ring, as a restarted process does."""
        ring = KeyRing([Secret(key) for key in self.ring])
        client = RedisClient(lambda: self.redis)
        self.store = self.store_class(client, ring, POLICY, self.clock)
        self.tickets = Tickets(self.store, ring)
        self.codes = DeviceCodes(client, ring, self.store)

    def is_alive(self, session: ModelSession) -> bool:
        in_time = self.clock() < min(session.idle_until, session.ends_at)
        parent_lives = session.parent is None or self.is_alive(session.parent)
        return in_time and parent_lives and not session.ended and session.ring_key in self.ring

    def alive(self, user: User | None = None) -> list[ModelSession]:
        """Oldest first. Sessions under an older ring key count as older."""
        alive = [known for known in self.sessions if self.is_alive(known) and user in (None, known.user)]
        return sorted(alive, key=lambda known: (-self.ring.index(known.ring_key), known.order))

    def logins(self, user: User | None = None, kind: str = "login") -> list[ModelSession]:
        return [session for session in self.alive(user) if session.kind == kind]

    def error_of(self, session: ModelSession) -> type[TokenInvalid]:
        """Return what the token of a dead session raises."""
        kept = self.reasons.get((session.user, session.ring_key), [])[-MAX_REASONS:]
        is_told = session in kept and session.ring_key in self.ring and self.clock() < session.error_until
        return session.error if is_told else TokenInvalid

    def picked(self, number: int) -> ModelSession:
        """Return one of the newest sessions, alive or not."""
        return self.sessions[-1 - number % len(self.sessions)]

    # --- The rules

    @rule(user=people, device=devices, session_keys=st.lists(st.sampled_from(SESSION_KEYS), min_size=1, max_size=3))
    def log_in(self, user: User, device: str | None, session_keys: list[str]) -> None:
        for session_key in session_keys:
            self._log_in(user, device, session_key, former=None)

    @precondition(lambda self: self.alive())
    @rule(number=picks, user=people, session_key=st.sampled_from(SESSION_KEYS))
    def log_in_with_a_token_sent_along(self, number: int, user: User, session_key: str) -> None:
        """The login ends the session of that token, also one of another user."""
        alive = self.alive()
        self._log_in(user, None, session_key, former=alive[number % len(alive)])

    def _log_in(self, user: User, device: str | None, session_key: str, former: ModelSession | None) -> None:
        identity = Identity(user, Secret(session_key))
        replacing = self.store.resolve(former.token, touch=False) if former else None
        if user in self.banned:
            with pytest.raises(UserBanned):
                self.store.create(identity, device, replacing)
            return
        token, session = self.store.create(identity, device, replacing)
        self._end([former] if former else [])
        self._add(token, session, session_key)
        self._end(self.logins(user)[: -POLICY.max_sessions], SessionReplaced)

    def _add(
        self, token: Secret, session: WxSession, session_key: str = "", parent: ModelSession | None = None
    ) -> None:
        now = self.clock()
        self.sessions.append(
            ModelSession(
                order=len(self.sessions),
                token=token.reveal(),
                id=session.id,
                user=session.user,
                device=session.device,
                session_key=session_key,
                ring_key=parent.ring_key if parent else self.ring[0],
                ends_at=parent.ends_at if parent else now + POLICY.max_ttl,
                idle_until=now + POLICY.idle_ttl,
                kind=session.kind,
                parent=parent,
            )
        )

    @precondition(lambda self: self.logins())
    @rule(number=picks, times=st.integers(1, 4))
    def log_in_by_scan(self, number: int, times: int) -> None:
        phone = self.logins()[number % len(self.logins())]
        for _ in range(times):
            code, user_code = self.codes.request("console", phone.user.appid, "")
            self.codes.answer(user_code, self.store.resolve(phone.token, touch=False), approve=True)
            self._add(*self.codes.poll(code.reveal(), "console"))
            self._end(self.logins(phone.user, "scan")[:-MIN_SCANS], SessionReplaced)

    @precondition(lambda self: self.logins())
    @rule(number=picks, times=st.integers(1, 4))
    def log_in_by_ticket(self, number: int, times: int) -> None:
        parent = self.logins()[number % len(self.logins())]
        for _ in range(times):
            ticket = self.tickets.issue(self.store.resolve(parent.token, touch=False))
            self._add(*self.tickets.redeem(ticket.reveal()), parent=parent)
            pages = [page for page in self.logins(parent.user, "ticket") if page.parent is parent]
            self._end(pages[:-MAX_BY_TICKET], SessionReplaced)

    @precondition(lambda self: self.sessions)
    @rule(number=picks)
    def use(self, number: int) -> None:
        session = self.picked(number)
        if not self.is_alive(session):
            with pytest.raises(TokenInvalid) as raised:
                self.store.resolve(session.token)
            assert raised.type is self.error_of(session)
            return
        found = self.store.resolve(session.token)
        longer = min(self.clock() + POLICY.idle_ttl, session.ends_at)
        if abs(longer - session.idle_until) > TOUCH_AFTER:
            session.idle_until = longer
        ends = [known for it in (session, session.parent) if it for known in (it.idle_until, it.ends_at)]
        assert abs(found.expires_at - min(ends)) < TICK / 2

    @precondition(lambda self: self.alive())
    @rule(number=picks)
    def log_out(self, number: int) -> None:
        alive = self.alive()
        session = alive[number % len(alive)]
        self.store.revoke(self.store.resolve(session.token, touch=False))
        self._end([session])

    @precondition(lambda self: self.sessions)
    @rule(number=picks, user=people)
    def log_out_by_id(self, number: int, user: User) -> None:
        session = self.picked(number)
        if self.is_alive(session) and session.user == user:
            self.store.end(user, session.id)
            self._end([session], SessionRevoked)
        else:
            with pytest.raises(SessionNotFound):
                self.store.end(user, session.id)

    @rule(user=people)
    def log_out_everywhere(self, user: User) -> None:
        self.store.end_all(user)
        self._end(self.alive(user), SessionRevoked)

    @precondition(lambda self: self.alive())
    @rule(number=picks)
    def log_out_everywhere_from(self, number: int) -> None:
        """The own session ends by a logout of its own."""
        alive = self.alive()
        session = alive[number % len(alive)]
        self.store.end_all(session.user, own=session.id)
        self._end([session])
        self._end(self.alive(session.user), SessionRevoked)

    @precondition(lambda self: self.alive())
    @rule(number=picks)
    def log_out_everywhere_else(self, number: int) -> None:
        alive = self.alive()
        session = alive[number % len(alive)]
        self.store.end_others(self.store.resolve(session.token, touch=False))
        self._end((other for other in self.alive(session.user) if other is not session), SessionRevoked)

    @rule(user=people, banned=st.booleans())
    def judge(self, user: User, banned: bool) -> None:
        if banned:
            self.store.ban(user)
            self.banned.add(user)
            self._end(self.alive(user), SessionBanned)
        else:
            self.store.unban(user)
            self.banned.discard(user)
            for key in self.ring:
                told = self.reasons.get((user, key), [])
                self.reasons[user, key] = [session for session in told if session.error is not SessionBanned]

    @rule(ticks=st.integers(1, 10) | st.integers(1, MAX_STEP))
    def time_passes(self, ticks: int) -> None:
        self.clock.advance(ticks * TICK)

    @rule(drop=st.booleans(), first=st.booleans())
    def rotate(self, drop: bool, first: bool) -> None:
        """One step of a rotation: add a key first or last, then reverse the ring or drop the last key."""
        if len(self.ring) == 1:
            added = next(self.ring_keys)
            self.ring = [added, *self.ring] if first else [*self.ring, added]
        elif drop:
            self.ring.pop()
        else:
            self.ring.reverse()
        # Two logins under different ring keys are never in the same second.
        self.clock.advance(TICK)
        self.reopen()

    def _end(self, sessions: Iterable[ModelSession], error: type[TokenInvalid] = TokenInvalid) -> None:
        """End the sessions, and those by ticket that they are the parents of."""
        ended = list(sessions)
        ended += [page for page in self.alive() if page.parent in ended and page not in ended]
        for session in sorted(ended, key=lambda known: known.order):
            session.ended = True
            if error is not TokenInvalid:
                session.error, session.error_until = error, min(session.idle_until, self.clock() + REASON_LIFE)
                self.reasons.setdefault((session.user, session.ring_key), []).append(session)

    # --- Invariants

    @invariant()
    def only_live_tokens_resolve(self) -> None:
        for session in self.sessions[-10:]:
            if self.is_alive(session):
                found = self.store.resolve(session.token, touch=False)
                assert (found.user, found.id, found.device) == (session.user, session.id, session.device)
                assert found.kind == session.kind
            else:
                with pytest.raises(TokenInvalid) as raised:
                    self.store.resolve(session.token, touch=False)
                assert raised.type is self.error_of(session)

    @invariant()
    def the_list_matches_the_model(self) -> None:
        """In the order of logins, each kind not longer than its limit, and empty for a banned user."""
        for user in PEOPLE:
            listed = [(entry.id, entry.device) for entry in self.store.sessions_of(user)]
            assert listed == [(session.id, session.device) for session in self.alive(user)]
            assert not (listed and user in self.banned)
            assert len(self.logins(user)) <= POLICY.max_sessions
            assert len(self.logins(user, "scan")) <= MIN_SCANS

    @invariant()
    def every_key_has_a_ttl(self) -> None:
        keys = cast(list[bytes], self.redis.keys())
        assert [key for key in keys if int(self.redis.ttl(key)) < 0] == []

    @invariant()
    def the_session_key_is_that_of_the_newest_login(self) -> None:
        """It may also be that of a later login that has ended. An older session_key never replaces a newer one."""
        for user in PEOPLE:
            if alive := self.logins(user):
                later = [it.session_key for it in self.sessions[max(it.order for it in alive) :] if it.user == user]
                keys = self.store.session_keys(user)
                assert keys is not None
                assert keys.newest.reveal() in later
