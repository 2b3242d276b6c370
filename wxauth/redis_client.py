"""The door to `redis`: the few operations that the store needs, and when Redis can't be asked. Knows no session.

Absent is never unreachable: `None` means that Redis answered and has no such key; whatever keeps Redis from
answering is StoreUnavailable.

redis-py lends its connections, pools and topology; what is said on a connection is said here. Its own pipelines
repeat commands by themselves, and in a cluster go on without their WATCH after a lost connection.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import redis
from redis.cluster import RedisCluster
from redis.exceptions import AskError, MovedError, RedisClusterException, TryAgainError

from .breaker import Breaker
from .errors import StoreUnavailable
from .metrics import BREAKER_OPEN, REDIS_SECONDS
from .redis_connect import POOL_WAIT, AnyClient

T = TypeVar("T")
Command = tuple[str | bytes | int, ...]

#: How long a transaction may be begun anew because others change the same keys, or a slot is on its way.
PATIENCE: Final = 0.3
REFRESH_INTERVAL: Final = 0.1
MOVE_PAUSE: Final = 0.01
WAIT_MILLISECONDS: Final = 150

#: The first fit names the cause; the one word is what the log and `/readyz` say.
CAUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis.exceptions.MaxConnectionsError, "pool_exhausted"),
    (redis.exceptions.BusyLoadingError, "loading"),
    (redis.exceptions.AuthenticationError, "noauth"),
    (redis.exceptions.NoPermissionError, "noperm"),
    (redis.exceptions.ReadOnlyError, "readonly"),
    (redis.exceptions.OutOfMemoryError, "oom"),
    (redis.exceptions.ClusterDownError, "cluster_down"),
    (redis.exceptions.TimeoutError, "timeout"),
    (redis.exceptions.ConnectionError, "unreachable"),
    (RedisClusterException, "unreachable"),
    (OSError, "unreachable"),
)
CURES: Final[Mapping[str, str]] = {
    "noauth": "the user or the password in REDIS_URL is missing or wrong",
    "noperm": "the Redis user may not do what is needed: allow it +@read +@write +@transaction ~wxa:*",
    "readonly": "REDIS_URL names a replica: name the primary, or use redis+sentinel://",
    "oom": "Redis is full: raise its maxmemory",
    "misconf": "Redis can't write to its disk: see its log",
    "loading": "Redis is reading its data: wait",
    "timeout": "Redis does not answer in time: is it overloaded, or far away?",
    "unreachable": "nobody listens at REDIS_URL, or the TLS certificate is not to be trusted",
    "pool_exhausted": "more threads than connections: lower the number of threads of a worker",
    "not_replicated": "no replica confirmed the write in time: see WXAUTH_WAIT_REPLICAS",
    "evicting": "set maxmemory-policy to noeviction: any other throws sessions away",
    "too_old": "Redis 4 or newer is needed",
}
OLDEST_REDIS: Final = 4
PROBE: Final = "wxa:{ready}:p"

REDIRECTIONS: Final = (MovedError, AskError, TryAgainError)
FAILURES: Final = (redis.RedisError, RedisClusterException, OSError)


class Wire:
    """One connection for as long as one conversation takes."""

    def __init__(self, connection: Any, asking: bool) -> None:
        self._connection = connection
        self._asking = asking

    def ask(self, *commands: Command) -> list[Any]:
        """The replies to `commands`, in one round trip; the first that is an error is raised once all are read."""
        if self._asking:
            commands = tuple(part for command in commands for part in (("ASKING",), command))
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        replies = [self._reply() for _ in commands]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies[1::2] if self._asking else replies

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error


class Reader:
    """What may be read, at large or in the midst of a transaction."""

    def __init__(self, ask: Callable[..., list[Any]]) -> None:
        self._ask = ask

    def fields(self, key: str) -> dict[bytes, bytes]:
        """The hash at `key`; empty if it is absent."""
        (flat,) = self._ask(("HGETALL", key))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def present(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` (all of one slot) that are there."""
        # EXISTS would only count them.
        (values,) = self._ask(("MGET", *keys)) if keys else ([],)
        return {key for key, value in zip(keys, values, strict=True) if value is not None}


class RedisClient:
    """One for each worker; safe to share between threads. It connects when first asked, so a start needs no Redis.

    With `wait_replicas`, a transaction that is to be `confirmed` is so only once that many replicas have it.
    """

    def __init__(self, connect: Callable[[], AnyClient], wait_replicas: int = 0) -> None:
        self._connect = connect
        self._wait_replicas = wait_replicas
        self._client: AnyClient | None = None
        self._lock = threading.Lock()
        self._breakers: dict[str, Breaker] = {}
        self._refreshed_at = 0.0

    def examine(self) -> str:
        """`ok`, or a word of CURES for what endangers sessions; StoreUnavailable if none can be kept."""
        self._talk(PROBE, lambda wire: wire.ask(("SET", PROBE, "", "EX", 10)))
        try:
            facts = self.facts()
        except StoreUnavailable:
            # Some hosts forbid INFO; what it would say is then the host's matter.
            return "ok"
        return next(dangers(facts), "ok")

    def read(self, key: str) -> tuple[bytes, float] | None:
        """The value of `key` and the seconds it has left, in one round trip; None if it is absent."""
        value, milliseconds = self._talk(key, lambda wire: wire.ask(("GET", key), ("PTTL", key)))
        if value is None:
            return None
        if not isinstance(value, bytes) or not isinstance(milliseconds, int):
            raise StoreUnavailable("garbled")
        return value, milliseconds / 1000

    def read_afresh(self, key: str) -> tuple[bytes, float] | None:
        """As `read`, over a new connection: for whoever doubts that an old one still answers what it is asked."""
        pool, _ = self._place(key)
        pool.disconnect(inuse_connections=False)
        return self.read(key)

    def at(self, key: str) -> Reader:
        """To read whatever lies in the slot of `key`."""
        return Reader(lambda *commands: self._talk(key, lambda wire: wire.ask(*commands)))

    def expire(self, key: str, seconds: int) -> bool:
        """Gives `key` `seconds` from now. False if it is absent: this brings nothing back."""
        (done,) = self._talk(key, lambda wire: wire.ask(("EXPIRE", key, seconds)))
        return bool(done)

    def set(self, key: str, seconds: int) -> None:
        """Sets a mark at `key` for `seconds`."""
        self._talk(key, lambda wire: wire.ask(("SET", key, "", "EX", seconds)))

    def count(self, key: str, seconds: int, amount: int) -> int:
        """Adds `amount` to the counter at `key`, which lives `seconds` from its first use; the sum."""
        *_, sums = self._talk(
            key,
            lambda wire: wire.ask(
                ("MULTI",), ("SET", key, 0, "EX", seconds, "NX"), ("INCRBY", key, amount), ("EXEC",)
            ),
        )
        return int(sums[1])

    def delete(self, key: str) -> None:
        self._talk(key, lambda wire: wire.ask(("DEL", key)))

    def facts(self) -> dict[str, str]:
        """What INFO says; StoreUnavailable also where a host forbids it."""
        return self._talk(PROBE, _facts)

    def clock(self) -> float:
        """The time that Redis has, Unix seconds; StoreUnavailable also where a host forbids TIME."""
        return self._talk(PROBE, _time)

    def transact(
        self, keys: Sequence[str], plan: Callable[[Reader], Iterable[Command]], *, confirmed: bool = False
    ) -> None:
        """Carries out the commands that `plan` makes of what it reads, all or none.

        If anything under `keys` changes in between, the plan is made anew. All keys must be of one slot. The plan may
        also run again after a lost connection, so what it does twice must come to the same as once.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._talk(keys[0], lambda wire: self._attempt(wire, keys, plan, confirmed)):
            if time.monotonic() > deadline:
                raise StoreUnavailable("contention")

    def _attempt(
        self, wire: Wire, keys: Sequence[str], plan: Callable[[Reader], Iterable[Command]], confirmed: bool
    ) -> bool:
        """Whether the plan was carried out; if not, something under `keys` changed and nothing was done."""
        wire.ask(("WATCH", *keys))
        commands = list(plan(Reader(wire.ask)))
        if not commands:
            wire.ask(("UNWATCH",))
            return True
        *_, results = wire.ask(("MULTI",), *commands, ("EXEC",))
        if results is None:
            return False
        for result in results:
            if isinstance(result, Exception):
                raise result
        if confirmed and self._wait_replicas:
            # WAIT speaks of the writes of its own connection alone.
            (count,) = wire.ask(("WAIT", self._wait_replicas, WAIT_MILLISECONDS))
            if count < self._wait_replicas:
                raise StoreUnavailable("not_replicated", CURES["not_replicated"])
        return True

    def _talk(self, key: str, conversation: Callable[[Wire], T]) -> T:
        """Has the conversation with the node that holds `key`; once more if the connection was lost, and for a while
        longer if the slot of `key` is being moved.
        """
        with REDIS_SECONDS.time():
            return self._talk_on(key, conversation)

    def _talk_on(self, key: str, conversation: Callable[[Wire], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        asked: AskError | None = None
        lost = False
        while True:
            try:
                return self._converse(key, conversation, asked)
            except FAILURES as error:
                failure = error
            again = isinstance(failure, REDIRECTIONS) if lost else _may_pass(failure)
            if not again or time.monotonic() > deadline:
                cause = _cause(failure)
                raise StoreUnavailable(cause, CURES.get(cause))
            lost = lost or not isinstance(failure, REDIRECTIONS)
            asked = failure if type(failure) is AskError else None
            self._look_around(failure)

    def _converse(self, key: str, conversation: Callable[[Wire], T], asked: AskError | None) -> T:
        pool, breaker = self._place(key, asked)
        if not breaker.admits():
            raise StoreUnavailable("breaker_open")
        connection: Any = None
        try:
            connection = pool.get_connection()
            answer = conversation(Wire(connection, asking=asked is not None))
        except BaseException as error:
            # Whatever went wrong, a reply may still be on its way, or a WATCH in force: nobody else gets this one.
            if connection is not None:
                connection.disconnect()
            if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
                breaker.failed()
                BREAKER_OPEN.set(breaker.is_open)
            raise
        finally:
            if connection is not None:
                pool.release(connection)
        if breaker.succeeded():
            BREAKER_OPEN.set(False)
        return answer

    def _place(self, key: str, asked: AskError | None = None) -> tuple[Any, Breaker]:
        """The pool of connections to the node that holds `key`, or that was said to, and the breaker of that node."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            return client.connection_pool, self._breakers.setdefault("", Breaker())
        node = client.get_node(asked.host, asked.port) if asked else client.get_node_from_key(key)
        return client.get_redis_connection(node).connection_pool, self._breakers.setdefault(node.name, Breaker())

    def _connected(self) -> AnyClient:
        if self._client is None:
            if not self._lock.acquire(timeout=POOL_WAIT):
                raise StoreUnavailable("unreachable")
            try:
                self._client = self._client or self._connect()
            finally:
                self._lock.release()
        return self._client

    def _look_around(self, failure: Exception) -> None:
        """Learn where the slots are now, without making anyone wait for it."""
        if isinstance(self._client, RedisCluster):
            if type(failure) is MovedError:
                self._client.nodes_manager.move_slot(failure)
            elif time.monotonic() - self._refreshed_at > REFRESH_INTERVAL:
                self._refreshed_at = time.monotonic()
                threading.Thread(target=_refresh, args=(self._client,), daemon=True).start()
            time.sleep(MOVE_PAUSE)


def dangers(facts: Mapping[str, str]) -> Iterator[str]:
    """The words of CURES for what endangers sessions, going by what INFO said."""
    if int(facts["redis_version"].partition(".")[0]) < OLDEST_REDIS:
        yield "too_old"
    if facts.get("maxmemory_policy", "noeviction") != "noeviction":
        yield "evicting"


def _facts(wire: Wire) -> dict[str, str]:
    (info,) = wire.ask(("INFO",))
    return dict(re.findall(r"^(\w+):(\S+)", info.decode(), re.MULTILINE))


def _time(wire: Wire) -> float:
    ((seconds, microseconds),) = wire.ask(("TIME",))
    return int(seconds) + int(microseconds) / 1e6


def _refresh(client: RedisCluster) -> None:
    # Whoever needs it comes upon the same trouble, and says so.
    with contextlib.suppress(*FAILURES):
        client.nodes_manager.initialize()


def _may_pass(failure: Exception) -> bool:
    """Whether the same may succeed at once: the connection was lost (which is not slow), or the key has moved."""
    return type(failure) is redis.ConnectionError or isinstance(failure, REDIRECTIONS)


def _cause(error: Exception) -> str:
    for kind, word in CAUSES:
        if isinstance(error, kind):
            return word
    return "misconf" if str(error).startswith("MISCONF") else "error"
