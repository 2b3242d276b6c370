"""The door to `redis`: the few operations that the store needs, and when Redis can't be asked. Knows no session.

Absent is never unreachable: `None` means that Redis answered and has no such key; whatever keeps Redis from
answering is StoreUnavailable.

redis-py lends its connections, pools and topology; what is said on a connection is said here. Its own pipelines
repeat commands by themselves, and in a cluster go on without their WATCH after a lost connection.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import AskError

from ..errors import StoreUnavailable
from ..metrics import BREAKER_OPEN, REDIS_SECONDS
from .circuit_breaker import CircuitBreaker
from .connections import AnyClient
from .nodes import PROBE, Nodes
from .reasons import FAILURES, REDIRECTIONS, dangers, reason, unavailable
from .wire import (
    REVOCATIONS,
    Command,
    Reader,
    Wire,
    add,
    carried_out,
    claimed,
    delete,
    expire,
    facts,
    sound,
    time_of,
    value,
    write,
)

T = TypeVar("T")

#: How long a transaction may be begun anew because others change the same keys, or a slot is on its way.
PATIENCE: Final = 0.3
CONTENTION_PAUSE: Final = 0.01
A_MOMENT: Final = 0.25
MOVE_PAUSE: Final = 0.01
WAIT_MILLISECONDS: Final = 150
#: What it looks like where a command is not allowed.
FORBIDDEN: Final = ("noperm", "error")


class RedisClient:
    """One for each worker; safe to share between threads. It connects when first asked, so a start needs no Redis.

    With `wait_replicas`, a transaction that is to be `confirmed` is so only once that many replicas have it.
    """

    def __init__(self, connect: Callable[[], AnyClient], wait_replicas: int = 0) -> None:
        self.nodes = Nodes(connect)
        self._wait_replicas = wait_replicas
        self._answered_at = float("-inf")

    def ping(self) -> None:
        """Returns if Redis answers, or did a moment ago. Of a cluster no one node speaks for the others, so there it
        is not asked.
        """
        if time.monotonic() - self._answered_at > A_MOMENT and not self.nodes.are_a_cluster:
            self.read(PROBE)

    def health(self) -> str:
        """`ok`, or a word of HINTS for what endangers sessions; StoreUnavailable if none can be kept.

        A cluster keeps the sessions of those nodes that are well: the word then is what ails the others.
        """
        words, refusals = [], []
        for probe in self.nodes.probes():
            try:
                words.append(self._examine(probe))
            except StoreUnavailable as error:
                refusals.append(error)
        if not words:
            raise refusals[0]
        return next((word for word in (*(it.reason for it in refusals), *words) if word != "ok"), "ok")

    def _examine(self, probe: str) -> str:
        self._talk(probe, lambda wire: wire.ask(("SET", probe, "", "EX", 10), ("PUBLISH", REVOCATIONS, "")))
        try:
            return next(dangers(self.facts(probe)), "ok")
        except StoreUnavailable as error:
            if error.reason not in FORBIDDEN:
                raise
            # What INFO would say is the host's matter, where the host forbids it.
            return "ok"

    def read(self, key: str) -> tuple[bytes, float] | None:
        """The value of `key` and the seconds it has left, in one round trip; None if it is absent."""
        return self._talk(key, lambda wire: value(wire, key))

    def read_afresh(self, key: str) -> tuple[bytes, float] | None:
        """As `read`, over a new connection: for whoever doubts that an old one still answers what it is asked."""
        return self._talk(key, lambda wire: value(wire, key), afresh=True)

    def at(self, key: str) -> Reader:
        """To read whatever lies in the slot of `key`."""
        return Reader(lambda conversation: self._talk(key, conversation))

    def expire(self, key: str, seconds: int) -> bool:
        """Gives `key` `seconds` from now. False if it is absent: this brings nothing back."""
        return self._talk(key, lambda wire: expire(wire, key, seconds))

    def set(self, key: str, seconds: int, value: bytes = b"") -> None:
        """Sets `value`, or a mark, at `key` for `seconds`."""
        self._talk(key, lambda wire: write(wire, key, seconds, value))

    def claim(self, key: str, owner: str, seconds: float) -> bool:
        """Whether `key` is `owner`'s for `seconds` from now; not if somebody else has claimed it before."""
        return self._talk(key, lambda wire: claimed(wire, key, owner, int(seconds * 1000)))

    def count(self, key: str, seconds: int, amount: int) -> int:
        """Adds `amount` to the counter at `key`, which lives `seconds` from its first use; the sum.

        Not asked again over a lost connection: it might count twice.
        """
        return self._talk(key, lambda wire: add(wire, key, seconds, amount), once=True)

    def delete(self, key: str) -> None:
        self._talk(key, lambda wire: delete(wire, key))

    def ensure_replicas(self, key: str) -> None:
        """Returns if as many replicas as a confirmation takes follow the node of `key`; else StoreUnavailable."""
        if self._wait_replicas:
            self._talk(key, lambda wire: self._wait(wire, key))

    def facts(self, probe: str = PROBE) -> dict[str, str]:
        """What INFO says on the node of `probe`; StoreUnavailable also where a host forbids it."""
        return self._talk(probe, facts)

    def clock(self) -> float:
        """The time that Redis has, Unix seconds; StoreUnavailable also where a host forbids TIME."""
        return self._talk(PROBE, time_of)

    def transact(
        self, keys: Sequence[str], plan: Callable[[Reader], Iterable[Command]], *, confirmed: bool = False
    ) -> None:
        """Carries out the commands that `plan` makes of what it reads, all or none.

        If anything under `keys` changes once the plan has begun to read, it is made anew. All keys must be of one
        slot. The plan may also run again after a lost connection: what it does twice must come to the same as once.
        """
        deadline = time.monotonic() + PATIENCE
        begun = time.monotonic()
        while not self._talk(keys[0], lambda wire: self._attempt(wire, keys, plan, confirmed)):
            # Where Redis is slow, the next attempt would take as long as this one.
            begun, last = time.monotonic(), begun
            if begun + (begun - last) > deadline:
                raise unavailable("contention")
            # Not all of them at the same moment again.
            time.sleep(random.uniform(0, CONTENTION_PAUSE))  # noqa: S311 - no secret depends on it

    def _attempt(
        self, wire: Wire, keys: Sequence[str], plan: Callable[[Reader], Iterable[Command]], confirmed: bool
    ) -> bool:
        """Whether the plan was carried out; if not, something under `keys` changed and nothing was done."""
        wire.watch(keys)
        commands = list(plan(Reader(lambda conversation: conversation(wire))))
        if not commands:
            sound(wire.ask(("UNWATCH",)) == [b"OK"])
        elif not carried_out(wire, commands):
            return False
        if confirmed and self._wait_replicas:
            # Also where there was nothing left to do: that may be the doing of an attempt that was never confirmed.
            self._wait(wire, keys[0])
        return True

    def _wait(self, wire: Wire, key: str) -> None:
        # WAIT speaks of the writes of its own connection alone, so there has to be one.
        *_, count = wire.ask(("SET", f"{key}:w", "", "PX", 1), ("WAIT", self._wait_replicas, WAIT_MILLISECONDS))
        sound(isinstance(count, int))
        if count < self._wait_replicas:
            raise unavailable("not_replicated")

    def _talk(self, key: str, conversation: Callable[[Wire], T], *, afresh: bool = False, once: bool = False) -> T:
        """Has the conversation with the node that holds `key`; once more if the connection was lost (but not where it
        may take place only `once`), and for a while longer if the slot of `key` is being moved.
        """
        with REDIS_SECONDS.time():
            return self._talk_on(key, conversation, afresh, once)

    def _talk_on(self, key: str, conversation: Callable[[Wire], T], afresh: bool, once: bool) -> T:
        deadline = time.monotonic() + PATIENCE
        asked: AskError | None = None
        lost = False
        while True:
            try:
                pool, breaker = self._place(key, asked, admitted=lost)
                return self._converse(pool, breaker, conversation, asking=asked is not None, afresh=afresh or lost)
            except FAILURES as error:
                failure = error
            self.nodes.learn_from(failure)
            again = isinstance(failure, REDIRECTIONS) if lost or once else _may_pass(failure)
            if not again or time.monotonic() > deadline:
                raise unavailable(reason(failure))
            time.sleep(MOVE_PAUSE if isinstance(failure, REDIRECTIONS) else 0)
            lost = lost or not isinstance(failure, REDIRECTIONS)
            asked = failure if type(failure) is AskError else None

    def _place(self, key: str, asked: AskError | None, *, admitted: bool) -> tuple[Any, CircuitBreaker]:
        """The pool and the breaker of the node; StoreUnavailable where that does not let it be tried.

        A second try is `admitted` with the first, which may have been all that is let through for a while.
        """
        pool, breaker = self.nodes.place(key, asked)
        if not admitted and not breaker.admits():
            self.nodes.suspect()
            raise unavailable(breaker.reason)
        return pool, breaker

    def _converse(
        self, pool: Any, breaker: CircuitBreaker, conversation: Callable[[Wire], T], *, asking: bool, afresh: bool
    ) -> T:
        connection: Any = None
        try:
            connection = pool.get_connection()
            if afresh:
                # What has ended one connection may be about to end the others of the pool.
                connection.disconnect()
                connection.connect()
            answer = conversation(Wire(connection, asking))
        except BaseException as error:
            # Whatever went wrong, a reply may still be on its way, or a WATCH in force: nobody else gets this one.
            if connection is not None:
                connection.disconnect()
            _note(breaker, error, afresh)
            BREAKER_OPEN.set(self.nodes.one_is_held_for_down)
            raise
        finally:
            if connection is not None:
                pool.release(connection)
        self._answered_at = time.monotonic()
        if breaker.succeeded():
            BREAKER_OPEN.set(self.nodes.one_is_held_for_down)
        return answer


def _note(breaker: CircuitBreaker, error: BaseException, afresh: bool) -> None:
    if isinstance(error, redis.ResponseError) or not isinstance(error, FAILURES):
        # A refusal is an answer too, and Redis may grant the next what it refused this one; so is whatever else the
        # conversation came to.
        breaker.succeeded()
    elif (afresh or not _may_pass(error)) and reason(error) != "pool_exhausted":
        # Connections of a pool may break all at once, or all be in use: only a new one shows how Redis is.
        breaker.failed(reason(error))


def _may_pass(failure: BaseException) -> bool:
    """Whether the same may succeed at once: a connection was lost (not slow) or mixed up, or the key moved."""
    return type(failure) in (redis.ConnectionError, redis.InvalidResponse) or isinstance(failure, REDIRECTIONS)
