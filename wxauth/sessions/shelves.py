"""A user's sessions under all ring keys: the transactions that enter and end them. Knows no token and no HTTP.

Each ring key keeps a user on a shelf of its own, in a slot of its own; what is done there is done in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from ..errors import UserBanned
from ..keys import KeyRing
from ..metrics import ENDED
from ..models import Secret, SessionKeys, User
from ..storage.client import RedisClient
from ..storage.wire import Command, Reader
from .records import Entry, Record, Shelf
from .roster import Roster

Choice = Callable[[AbstractSet[str]], AbstractSet[str]]
Also = Callable[[Shelf], Sequence[Command]]


def nothing(_: Shelf) -> Sequence[Command]:
    return ()


class Shelves:
    """Every method raises StoreUnavailable where Redis can't be asked."""

    def __init__(self, redis: RedisClient, ring: KeyRing, cap: int) -> None:
        self._redis = redis
        self._ring = ring
        self._cap = cap
        #: Told the ids of sessions that are over, before anybody else is.
        self.on_ended: Callable[[Iterable[str]], None] = lambda ids: None

    def of(self, user: User) -> list[Shelf]:
        """The user's, that of the newest key first."""
        return [Shelf.of(key, user) for key in self._ring]

    def entries(self, user: User) -> list[Entry]:
        """The user's live sessions, oldest first."""
        found = [entry for shelf in self.of(user) for entry in self._roster(shelf).entries]
        return sorted(found, key=lambda entry: entry.serial)

    def session_keys(self, user: User) -> SessionKeys | None:
        """The user's newest session_key and the one before it; None after the last logout."""
        return _newest(shelf.session_keys(self._redis.at(shelf.hash).fields(shelf.hash)) for shelf in self.of(user))

    def rekey(self, user: User, keys: SessionKeys) -> None:
        """Keep these session_keys and none before, wherever the user is logged in."""
        for shelf in self.of(user):
            self._redis.transact([shelf.hash], partial(_rekeyed, shelf, keys))

    def enter(self, id: str, record: Record, write: Command, session_key: Secret, replaced: AbstractSet[str]) -> None:
        """`write` the record and list it as `id`; the sessions that it replaces end, and the oldest past the cap.

        Raises UserBanned.
        """
        shelf, *older = self.of(record.user)
        rosters = [self._roster(old) for old in older]
        listed: set[str] = set()
        over = set(replaced)

        def plan(reader: Reader) -> Iterator[Command]:
            # Who is dead matters only where there would be too many.
            roster = Roster.read(shelf, reader, unasked=self._cap - 1)
            if roster.banned:
                raise UserBanned
            serial = max(known.last_serial for known in (roster, *rosters)) + 1
            entry = Entry(id, serial, record.created_at, record.ends_at, record.device)
            keys = _followed([roster, *rosters], session_key, record.created_at)
            ended = replaced | roster.surplus(self._cap, id, replaced)
            listed.update(roster.listed)
            over.update(ended)
            yield write
            yield from roster.admit(entry, keys, record.created_at, ended)

        # A login that no replica would confirm is refused before it has ended anything.
        self._redis.ensure_replicas(shelf.hash)
        try:
            self._redis.transact([shelf.hash, shelf.ban], plan, confirmed=True)
        finally:
            # Also where it is not known whether they ended: then Redis is to be asked.
            self.on_ended(over)
        ENDED.labels("cap").inc(len(over - replaced))
        ENDED.labels("logout").inc(len(replaced & listed))
        for old in older if replaced else ():
            self._dismiss(old, lambda _: replaced, "logout", ())
        if older:
            self._trim(record.user)

    def dismiss(self, user: User, choose: Choice, reason: str, also: Also = nothing) -> set[str]:
        """End those sessions that `choose` picks out of all that are alive on a shelf: the ids of these.

        `also` says what else is to be done on each shelf, in the same transaction.
        """
        return set().union(*(self._dismiss(shelf, choose, reason, also(shelf)) for shelf in self.of(user)))

    def _dismiss(self, shelf: Shelf, choose: Choice, reason: str, also: Sequence[Command]) -> set[str]:
        alive: set[str] = set()
        over: set[str] = set()

        def plan(reader: Reader) -> Iterator[Command]:
            # Whether one that is listed alone is dead makes no difference.
            roster = Roster.read(shelf, reader, unasked=1)
            doomed = choose(roster.alive)
            # Attempts add up: one whose answer was lost may have done its work.
            alive.update(roster.alive)
            over.update(doomed)
            yield from also
            yield from roster.dismiss(doomed)

        try:
            self._redis.transact([shelf.hash], plan, confirmed=True)
        finally:
            # Also where it is not known whether they ended: then Redis is to be asked.
            self.on_ended(over)
        ENDED.labels(reason).inc(len(over & alive))
        return over & alive

    def _trim(self, user: User) -> None:
        """Keep the cap over several shelves, of which each login looks after one alone."""
        surplus = {entry.id for entry in self.entries(user)[: -self._cap]}
        if surplus:
            self.dismiss(user, lambda ids: ids & surplus, "cap")

    def _roster(self, shelf: Shelf) -> Roster:
        return Roster.read(shelf, self._redis.at(shelf.hash))


def _rekeyed(shelf: Shelf, keys: SessionKeys, reader: Reader) -> Iterator[Command]:
    return Roster.read(shelf, reader).rekeyed(keys)


def _followed(rosters: list[Roster], session_key: Secret, now: int) -> SessionKeys:
    """What the user's session_keys are after a login that brought `session_key`."""
    known = _newest(roster.session_keys for roster in rosters)
    return known.followed_by(session_key, now) if known else SessionKeys(session_key, now)


def _newest(found: Iterable[SessionKeys | None]) -> SessionKeys | None:
    return max((keys for keys in found if keys), key=lambda keys: keys.since, default=None)
