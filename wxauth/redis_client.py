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
from typing import Any, Final, TypeVar, cast

import redis
from redis.cluster import PRIMARY, ClusterNode, RedisCluster
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisClusterException, TryAgainError

from .breaker import Breaker
from .errors import StoreUnavailable
from .redis_connect import AnyClient

T = TypeVar("T")
Command = tuple[str | bytes | int, ...]

#: How long a transaction may be begun anew because others change the same keys, or a slot is on its way.
PATIENCE: Final = 0.3
REFRESH_INTERVAL: Final = 0.1
MOVE_PAUSE: Final = 0.01
WAIT_MILLISECONDS: Final = 150

REDIRECTIONS: Final = (MovedError, AskError, TryAgainError)
#: The first fit names the cause; the one word is what the log and `/readyz` say.
CAUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis.exceptions.MaxConnectionsError, "pool_exhausted"),
    (redis.exceptions.BusyLoadingError, "loading"),
    (redis.exceptions.AuthenticationError, "noauth"),
    (redis.exceptions.NoPermissionError, "noperm"),
    (redis.exceptions.ReadOnlyError, "readonly"),
    (redis.exceptions.OutOfMemoryError, "oom"),
    (redis.exceptions.ClusterDownError, "cluster_down"),
    *((kind, "slot_moving") for kind in REDIRECTIONS),
    (redis.exceptions.InvalidResponse, "garbled"),
    (redis.exceptions.TimeoutError, "timeout"),
    (redis.exceptions.ConnectionError, "unreachable"),
    (RedisClusterException, "unreachable"),
    (OSError, "unreachable"),
)
#: What redis-py has no class of its own for; these go first.
CAUSES_BY_TEXT: Final[Mapping[str, str]] = {
    "MISCONF": "misconf",
    "NOREPLICAS": "too_few_replicas",
    "max number of clients": "max_clients",
    # redis-py says this where a new connection brings something unasked, which can only be a refusal.
    "Connection not ready": "max_clients",
}
CURES: Final[Mapping[str, str]] = {
    "noauth": "the user or the password in REDIS_URL is missing or wrong",
    "noperm": "the Redis user may not do what is needed: allow it +@read +@write +@transaction ~wxa:*",
    "readonly": "REDIS_URL names a replica: name the primary, or use redis+sentinel://",
    "oom": "Redis is full: raise its maxmemory",
    "misconf": "Redis can't write to its disk: see its log",
    "max_clients": "Redis turns connections away: raise its maxclients, or lower WEB_CONCURRENCY",
    "loading": "Redis is reading its data: wait",
    "garbled": "these are not the answers to what was asked: something between here and Redis mixes them up",
    "unreachable": "nobody listens at REDIS_URL, or the TLS certificate is not to be trusted",
    "pool_exhausted": "more threads than connections: lower the number of threads of a worker",
    "slot_moving": "the cluster is moving a slot to another node, and takes its time: wait",
    "too_few_replicas": "Redis wants replicas for a write (min-replicas-to-write), and has lost them: see to them",
    "not_replicated": "no replica confirmed the write in time: see WXAUTH_WAIT_REPLICAS",
    "evicting": "set maxmemory-policy to noeviction: any other throws sessions away",
    "too_old": "Redis 4 or newer is needed",
}
OLDEST_REDIS: Final = 4
GONE: Final = -2  # what PTTL answers for a key that is absent
PROBE: Final = "wxa:{ready}:p"

ASKING: Final[Command] = ("ASKING",)
LOST: Final = (redis.ConnectionError, redis.TimeoutError, OSError)
FAILURES: Final = (redis.RedisError, RedisClusterException, OSError)


class Wire:
    """One connection for as long as one conversation takes."""

    def __init__(self, connection: Any, asking: bool) -> None:
        self._connection = connection
        self._asking = asking
        self._watch: tuple[Command, ...] = ()

    def watch(self, keys: Sequence[str]) -> None:
        """WATCH them from the next question on: it travels along with that, which saves a round trip."""
        self._watch = (("WATCH", *keys),)

    def ask(self, *commands: Command) -> list[Any]:
        """The replies to `commands`, in one round trip; the first that is an error is raised once all are read."""
        begun, self._watch = self._watch, ()
        told = list(_each_asking([*begun, *commands]) if self._asking else [*begun, *commands])
        self._connection.send_packed_command(self._connection.pack_commands(told))
        replies = [self._reply() for _ in told]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        replies = [reply for command, reply in zip(told, replies, strict=True) if command != ASKING]
        _sound(replies[: len(begun)] == [b"OK"] * len(begun))
        return replies[len(begun) :]

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error
        except (TypeError, ValueError) as error:
            raise redis.InvalidResponse from error


class Reader:
    """What may be read, at large or in the midst of a transaction; `talk` has a conversation and hands on its end."""

    def __init__(self, talk: Callable[[Callable[[Wire], Any]], Any]) -> None:
        self._talk = talk

    def fields(self, key: str) -> dict[bytes, bytes]:
        """The hash at `key`; empty if it is absent."""
        flat = self._talk(lambda wire: _flat_fields(wire, key))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def present(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` (all of one slot) that are there."""
        values = self._talk(lambda wire: _values(wire, keys)) if keys else []
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
            facts = self._talk(PROBE, _facts)
        except StoreUnavailable:
            # Some hosts forbid INFO; what it would say is then the host's matter.
            return "ok"
        if int(facts["redis_version"].partition(".")[0]) < OLDEST_REDIS:
            return "too_old"
        return "ok" if facts.get("maxmemory_policy", "noeviction") == "noeviction" else "evicting"

    def read(self, key: str) -> tuple[bytes, float] | None:
        """The value of `key` and the seconds it has left, in one round trip; None if it is absent."""
        return self._talk(key, lambda wire: _value(wire, key))

    def read_afresh(self, key: str) -> tuple[bytes, float] | None:
        """As `read`, over a new connection: for whoever doubts that an old one still answers what it is asked."""
        pool, _ = self._place(key)
        pool.disconnect(inuse_connections=False)
        return self.read(key)

    def at(self, key: str) -> Reader:
        """To read whatever lies in the slot of `key`."""
        return Reader(lambda conversation: self._talk(key, conversation))

    def expire(self, key: str, seconds: int) -> bool:
        """Gives `key` `seconds` from now. False if it is absent: this brings nothing back."""
        return self._talk(key, lambda wire: _expire(wire, key, seconds))

    def set(self, key: str, seconds: int) -> None:
        """Sets a mark at `key` for `seconds`."""
        self._talk(key, lambda wire: wire.ask(("SET", key, "", "EX", seconds)))

    def delete(self, key: str) -> None:
        self._talk(key, lambda wire: wire.ask(("DEL", key)))

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
                raise StoreUnavailable("contention")

    def _attempt(
        self, wire: Wire, keys: Sequence[str], plan: Callable[[Reader], Iterable[Command]], confirmed: bool
    ) -> bool:
        """Whether the plan was carried out; if not, something under `keys` changed and nothing was done."""
        wire.watch(keys)
        commands = list(plan(Reader(lambda conversation: conversation(wire))))
        if not commands:
            _sound(wire.ask(("UNWATCH",)) == [b"OK"])
            return True
        if not _carried_out(wire, commands):
            return False
        if confirmed and self._wait_replicas:
            # WAIT speaks of the writes of its own connection alone.
            (count,) = wire.ask(("WAIT", self._wait_replicas, WAIT_MILLISECONDS))
            _sound(isinstance(count, int))
            if count < self._wait_replicas:
                raise StoreUnavailable("not_replicated", CURES["not_replicated"])
        return True

    def _talk(self, key: str, conversation: Callable[[Wire], T]) -> T:
        """Has the conversation with the node that holds `key`; once more if the connection was lost, and for a while
        longer if the slot of `key` is being moved.
        """
        deadline = time.monotonic() + PATIENCE
        asked: AskError | None = None
        lost = False
        while True:
            try:
                return self._converse(key, conversation, asked, afresh=lost)
            except FAILURES as error:
                failure = error
            self._look_around(failure)
            again = isinstance(failure, REDIRECTIONS) if lost else _may_pass(failure)
            if not again or time.monotonic() > deadline:
                cause = _cause(failure)
                raise StoreUnavailable(cause, CURES.get(cause))
            lost = lost or not isinstance(failure, REDIRECTIONS)
            asked = failure if type(failure) is AskError else None

    def _converse(self, key: str, conversation: Callable[[Wire], T], asked: AskError | None, *, afresh: bool) -> T:
        pool, breaker = self._place(key, asked)
        if not breaker.admits():
            raise StoreUnavailable(breaker.cause, CURES.get(breaker.cause))
        connection: Any = None
        try:
            connection = pool.get_connection()
            if afresh:
                # What has ended one connection may be about to end the others of the pool.
                connection.disconnect()
                connection.connect()
            answer = conversation(Wire(connection, asking=asked is not None))
        except BaseException as error:
            # Whatever went wrong, a reply may still be on its way, or a WATCH in force: nobody else gets this one.
            if connection is not None:
                connection.disconnect()
            _note(breaker, error, afresh)
            raise
        finally:
            if connection is not None:
                pool.release(connection)
        breaker.succeeded()
        return answer

    def _place(self, key: str, asked: AskError | None = None) -> tuple[Any, Breaker]:
        """The pool of connections to the node that holds `key`, or that was said to, and the breaker of that node."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            return client.connection_pool, self._breakers.setdefault("", Breaker())
        node = _node_asked(client, asked) if asked else client.get_node_from_key(key)
        return client.get_redis_connection(node).connection_pool, self._breakers.setdefault(node.name, Breaker())

    def _connected(self) -> AnyClient:
        if self._client is None:
            # The first to ask learns where the slots of a cluster are; whoever comes meanwhile is to hear it too.
            if not self._lock.acquire(timeout=PATIENCE):
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
            elif _may_be_elsewhere(failure) and time.monotonic() - self._refreshed_at > REFRESH_INTERVAL:
                self._refreshed_at = time.monotonic()
                threading.Thread(target=_refresh, args=(self._client,), daemon=True).start()
            time.sleep(MOVE_PAUSE)


def _flat_fields(wire: Wire, key: str) -> list[bytes]:
    (flat,) = wire.ask(("HGETALL", key))
    _sound(_is_list_of(bytes, flat) and len(flat) % 2 == 0)
    return cast(list[bytes], flat)


def _values(wire: Wire, keys: Sequence[str]) -> list[bytes | None]:
    # EXISTS would only count them.
    (values,) = wire.ask(("MGET", *keys))
    _sound(_is_list_of(bytes | None, values) and len(values) == len(keys))
    return cast(list[bytes | None], values)


def _value(wire: Wire, key: str) -> tuple[bytes, float] | None:
    value, milliseconds = wire.ask(("GET", key), ("PTTL", key))
    if value is None:
        # Written in between, or two answers of different questions: asking again tells.
        _sound(milliseconds == GONE)
        return None
    _sound(isinstance(value, bytes) and type(milliseconds) is int and milliseconds >= GONE)
    return value, milliseconds / 1000


def _expire(wire: Wire, key: str, seconds: int) -> bool:
    (done,) = wire.ask(("EXPIRE", key, seconds))
    _sound(done in (0, 1))
    return bool(done)


def _facts(wire: Wire) -> dict[str, str]:
    (info,) = wire.ask(("INFO",))
    _sound(isinstance(info, bytes) and b"redis_version:" in info)
    return dict(re.findall(r"^(\w+):(\S+)", info.decode(), re.MULTILINE))


def _carried_out(wire: Wire, commands: Sequence[Command]) -> bool:
    """Whether EXEC did it; an error of any of `commands` is raised."""
    begun, *queued, results = wire.ask(("MULTI",), *commands, ("EXEC",))
    _sound(begun == b"OK" and queued == [b"QUEUED"] * len(commands))
    if results is None:
        return False
    _sound(isinstance(results, list) and len(results) == len(commands))
    for result in results:
        if isinstance(result, Exception):
            raise result
    return True


def _is_list_of(kind: Any, reply: Any) -> bool:
    return isinstance(reply, list) and all(isinstance(item, kind) for item in reply)


def _sound(shape: bool) -> None:
    """Ends the conversation, and with it its connection, where a reply has not the shape of an answer to what was
    asked: it may be somebody else's.
    """
    if not shape:
        raise redis.InvalidResponse


def _each_asking(commands: Iterable[Command]) -> Iterator[Command]:
    """With ASKING before each; those of a transaction share that of its MULTI, or they would be queued with it."""
    within = False
    for command in commands:
        if not within:
            yield ASKING
        within = command == ("MULTI",) or (within and command != ("EXEC",))
        yield command


def _node_asked(client: RedisCluster, asked: AskError) -> ClusterNode:
    """A primary to which the first of its slots is just on the way stands in no list as yet."""
    nodes: dict[str, ClusterNode] = client.nodes_manager.nodes_cache
    node = ClusterNode(asked.host, asked.port, PRIMARY)
    return nodes.setdefault(node.name, node)


def _refresh(client: RedisCluster) -> None:
    # Whoever needs it comes upon the same trouble, and says so.
    with contextlib.suppress(*FAILURES):
        client.nodes_manager.initialize()


def _may_be_elsewhere(failure: Exception) -> bool:
    """Whether the node said nothing, so that another may have taken over; one that is slow may be gone for good."""
    return isinstance(failure, ClusterDownError) or not isinstance(failure, redis.ResponseError)


def _note(breaker: Breaker, error: BaseException, afresh: bool) -> None:
    if isinstance(error, redis.ResponseError):
        # A refusal is an answer too, and Redis may grant the next what it refused this one.
        breaker.succeeded()
    elif isinstance(error, LOST) and (afresh or not _may_pass(error)):
        # Connections of a pool may break all at once: only a new one shows how Redis is.
        breaker.failed(_cause(error))


def _may_pass(failure: BaseException) -> bool:
    """Whether the same may succeed at once: a connection was lost (not slow) or mixed up, or the key moved."""
    return type(failure) in (redis.ConnectionError, redis.InvalidResponse) or isinstance(failure, REDIRECTIONS)


def _cause(error: BaseException) -> str:
    for text, word in CAUSES_BY_TEXT.items():
        if text in str(error):
            return word
    for kind, word in CAUSES:
        if isinstance(error, kind):
            return word
    return "error"
