"""RedisClient: the few operations that the rest needs, and one error, StoreUnavailable. Knows no session.

`None` means that Redis answered and the key is not there. If Redis cannot be asked, StoreUnavailable is raised.

redis-py provides connections, pools and the topology. Commands are sent on its connections directly, because its
clients fall short in three points of the list of faults:
- After a lost connection a counter must not be sent again, everything else once. redis-py's retry sends both again.
- A connection that delivered an unreadable reply must not go back to the pool: the next reply may be another's.
- In a cluster a request must fail within 600 ms. RedisCluster reloads the topology within the request.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import AskError, NoScriptError

from ..errors import StoreUnavailable
from ..metrics import BREAKER_OPEN, REDIS_SECONDS
from .circuit_breaker import CircuitBreaker
from .connections import AnyClient
from .nodes import PROBE, Nodes
from .reasons import FAILURES, REDIRECTIONS, dangers, reason, unavailable

T = TypeVar("T")
Command = tuple[str | bytes | int, ...]

#: The channel on which the ends of sessions are published.
REVOCATIONS: Final = "wxa:revoked"
ASKING: Final[Command] = ("ASKING",)
#: Seconds. A command is sent again for so long while its slot is moving.
REDIRECT_TIMEOUT: Final = 0.3
REDIRECT_PAUSE: Final = 0.01
#: Seconds. `ping` relies on an answer that is not older.
RECENT: Final = 0.25
WAIT_MILLISECONDS: Final = 150
#: The reasons that mean: this command is not allowed.
FORBIDDEN: Final = ("noperm", "error")
#: What a login needs of Redis: a script that writes, and the channel.
PROBE_SCRIPT: Final = "redis.call('TIME') return redis.call('SET', KEYS[1], '', 'EX', 10)"
COUNT_SCRIPT: Final = """
local sum = redis.call('INCRBY', KEYS[1], ARGV[2])
if sum == tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return sum
"""


class Script:
    """A Lua script with one key. Redis knows it by its hash; it is loaded when Redis does not."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()  # the hash that EVALSHA takes


COUNT: Final = Script(COUNT_SCRIPT)


class RedisClient:
    """One for each worker; safe to share between threads. It connects at the first command.

    With `wait_replicas`, a confirmed script has succeeded only when so many replicas have it (WAIT).
    """

    def __init__(self, connect: Callable[[], AnyClient], wait_replicas: int = 0) -> None:
        self.nodes = Nodes(connect)
        self._wait_replicas = wait_replicas
        self._answered_at = float("-inf")
        #: How often something was sent again after a lost connection. A script that ran twice returns less.
        self.retries = 0

    @property
    def is_cluster(self) -> bool:
        """Whether two keys may lie on two nodes."""
        return self.nodes.are_a_cluster

    def ask(
        self, key: str, *commands: Command, parse: Callable[..., T], once: bool = False, fresh: bool = False
    ) -> T:
        """Send commands to the node of `key` in one round trip. Return `parse` of the replies.

        `once`: do not send again after a lost connection. `fresh`: use a new connection.
        """
        return self._talk(
            key, lambda connection, asking: parse(*_exchange(connection, commands, asking)), once=once, fresh=fresh
        )

    def run(
        self,
        script: Script,
        key: str,
        *arguments: str | bytes | int,
        parse: Callable[..., T],
        also: Sequence[Command] = (),
        confirmed: bool = False,
        once: bool = False,
        fresh: bool = False,
    ) -> T:
        """Run a script on `key`, and commands for the same node, in one round trip. Return `parse` of the replies.

        The script must be idempotent unless `once`: it is sent again after a lost connection.
        """
        commands: list[Command] = [("EVALSHA", script.sha, 1, key, *arguments), *also]
        waiting = self._waiting(key) if confirmed else []

        def converse(connection: Any, asking: bool) -> T:
            try:
                replies = _exchange(connection, [*commands, *waiting], asking)
            except NoScriptError:
                _exchange(connection, [("SCRIPT", "LOAD", script.source)], asking=False)
                replies = _exchange(connection, [*commands, *waiting], asking)
            if waiting:
                self._check_replicas(replies[-1])
            return parse(*replies[: len(commands)])

        return self._talk(key, converse, once=once, fresh=fresh)

    def ensure_replicas(self, key: str) -> None:
        """Return if enough replicas follow the node of `key` to confirm a write. Raises StoreUnavailable."""
        if self._wait_replicas:
            self.ask(key, *self._waiting(key), parse=lambda _, count: self._check_replicas(count))

    def _waiting(self, key: str) -> list[Command]:
        # WAIT covers only the writes of its own connection, so there must be one, even if the script wrote nothing.
        wait = ("WAIT", self._wait_replicas, WAIT_MILLISECONDS)
        return [("SET", f"{key}:w", "", "PX", 1), wait] if self._wait_replicas else []

    def _check_replicas(self, count: int) -> None:
        if int(count) < self._wait_replicas:
            raise unavailable("not_replicated")

    def read(self, key: str) -> tuple[bytes, float] | None:
        """Return the value of `key` and the seconds it has left. None if it is not there."""
        return self.ask(key, ("GET", key), ("PTTL", key), parse=_value)

    def ping(self) -> None:
        """Return if Redis answers, or did within the last 250 ms. A cluster is not asked: no node speaks for all."""
        if time.monotonic() - self._answered_at > RECENT and not self.is_cluster:
            self.read(PROBE)

    def exists(self, key: str) -> bool:
        """Return whether `key` is there."""
        return self.ask(key, ("EXISTS", key), parse=bool)

    def set(self, key: str, seconds: int, value: bytes = b"") -> None:
        """Set `key` for `seconds`."""
        self.ask(key, ("SET", key, value, "EX", seconds), parse=bool)

    def claim(self, key: str, owner: str, seconds: float) -> bool:
        """Return whether `key` belongs to `owner` for `seconds` from now. False if it belongs to another."""
        # GET tells it also where SET was carried out and its reply was lost.
        commands: tuple[Command, ...] = (("SET", key, owner, "NX", "PX", int(seconds * 1000)), ("GET", key))
        return self.ask(key, *commands, parse=lambda _, found: bool(found == owner.encode()))

    def count(self, key: str, seconds: int, amount: int) -> int:
        """Add `amount` to a counter that ends `seconds` after its first use. Return the sum."""
        return self.run(COUNT, key, seconds, amount, parse=int, once=True)

    def delete(self, key: str) -> None:
        """Delete `key`, if it is there."""
        self.ask(key, ("DEL", key), parse=bool)

    def health(self) -> str:
        """Return `ok`, or the reason that endangers sessions. Raises StoreUnavailable if no node keeps sessions."""
        words, failures = [], []
        for probe in self.nodes.probes():
            try:
                words.append(self._probe(probe))
            except StoreUnavailable as error:
                failures.append(error)
        if not words:
            raise failures[0]
        return next((word for word in (*(error.reason for error in failures), *words) if word != "ok"), "ok")

    def _probe(self, probe: str) -> str:
        self.ask(probe, ("EVAL", PROBE_SCRIPT, 1, probe), ("PUBLISH", REVOCATIONS, ""), parse=lambda *_: None)
        try:
            return next(dangers(self.facts(probe)), "ok")
        except StoreUnavailable as error:
            if error.reason not in FORBIDDEN:
                raise
            # Some hosts forbid INFO. What it would say is then the host's responsibility.
            return "ok"

    def facts(self, probe: str = PROBE) -> dict[str, str]:
        """Return what INFO says on the node of `probe`. Raises StoreUnavailable also where a host forbids it."""
        return self.ask(probe, ("INFO",), parse=_info)

    def clock(self) -> float:
        """Return Redis' time, in Unix seconds. Raises StoreUnavailable also where a host forbids TIME."""
        return self.ask(PROBE, ("TIME",), parse=seconds_of)

    def _talk(
        self, key: str, conversation: Callable[[Any, bool], T], *, fresh: bool = False, once: bool = False
    ) -> T:
        with REDIS_SECONDS.time():
            return self._talk_with_retries(key, conversation, fresh, once)

    def _talk_with_retries(self, key: str, conversation: Callable[[Any, bool], T], fresh: bool, once: bool) -> T:
        """Try again once after a lost connection (not if `once`), and for REDIRECT_TIMEOUT while a slot moves."""
        deadline = time.monotonic() + REDIRECT_TIMEOUT
        asked: AskError | None = None
        lost = False
        while True:
            try:
                pool, breaker = self._node(key, asked, admitted=lost)
                return self._converse(pool, breaker, conversation, asking=asked is not None, fresh=fresh or lost)
            except FAILURES as error:
                failure = error
            self.nodes.learn_from(failure)
            moving = isinstance(failure, REDIRECTIONS)
            if not (moving if lost or once else _is_transient(failure)) or time.monotonic() > deadline:
                raise unavailable(reason(failure))
            time.sleep(REDIRECT_PAUSE if moving else 0)
            self.retries += not moving
            lost = lost or not moving
            asked = failure if type(failure) is AskError else None

    def _node(self, key: str, asked: AskError | None, *, admitted: bool) -> tuple[Any, CircuitBreaker]:
        """Return the pool and the breaker of the node. Raises StoreUnavailable while the breaker is open.

        A second try is `admitted` with the first, which may have been the only probe allowed for a while.
        """
        pool, breaker = self.nodes.place(key, asked)
        if not admitted and not breaker.admits():
            self.nodes.suspect()
            raise unavailable(breaker.reason)
        return pool, breaker

    def _converse(
        self, pool: Any, breaker: CircuitBreaker, conversation: Callable[[Any, bool], T], *, asking: bool, fresh: bool
    ) -> T:
        connection: Any = None
        try:
            connection = pool.get_connection()
            if fresh:
                # What ended one connection may have ended the others of the pool.
                connection.disconnect()
                connection.connect()
            answer = _readable(conversation, connection, asking)
        except BaseException as error:
            # A reply may still be on its way: this connection must not serve another request.
            if connection is not None:
                connection.disconnect()
            _report(breaker, error, fresh)
            BREAKER_OPEN.set(self.nodes.any_breaker_open)
            raise
        finally:
            if connection is not None:
                pool.release(connection)
        self._answered_at = time.monotonic()
        if breaker.succeeded():
            BREAKER_OPEN.set(self.nodes.any_breaker_open)
        return answer


def _exchange(connection: Any, commands: Sequence[Command], asking: bool) -> list[Any]:
    """Send the commands in one round trip. Return the replies; the first error among them is raised."""
    sent = [it for command in commands for it in (ASKING, command)] if asking else commands
    connection.send_packed_command(connection.pack_commands(sent))
    replies = [_reply(connection) for _ in sent]
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies[1::2] if asking else replies


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        # The replies after it must be read too.
        return error


def _readable(conversation: Callable[[Any, bool], T], connection: Any, asking: bool) -> T:
    """Have the conversation. Raises InvalidResponse if a reply does not have the type that the command returns."""
    try:
        return conversation(connection, asking)
    except (TypeError, ValueError, KeyError) as error:
        raise redis.InvalidResponse from error


def _report(breaker: CircuitBreaker, error: BaseException, fresh: bool) -> None:
    if isinstance(error, redis.ResponseError) or not isinstance(error, FAILURES):
        # An error reply proves that Redis is up: count it as a success.
        breaker.succeeded()
    elif (fresh or not _is_transient(error)) and reason(error) != "pool_exhausted":
        # All pooled connections may break at once. Only a new one shows the state of Redis.
        breaker.failed(reason(error))


def _is_transient(failure: BaseException) -> bool:
    """Return whether a second try may succeed: the connection was lost (not slow) or mixed up, or the key moved."""
    return type(failure) in (redis.ConnectionError, redis.InvalidResponse) or isinstance(failure, REDIRECTIONS)


def _value(value: bytes | None, milliseconds: int) -> tuple[bytes, float] | None:
    return None if value is None else (bytes_of(value), milliseconds / 1000)


def bytes_or_none(reply: Any) -> bytes | None:
    """Return a reply that must be a string or nil. Raises TypeError."""
    return None if reply is None else bytes_of(reply)


def bytes_of(reply: Any) -> bytes:
    """Return a reply that must be a string. Raises TypeError."""
    if not isinstance(reply, bytes):
        raise TypeError
    return reply


def seconds_of(reply: Sequence[bytes]) -> float:
    """Return the reply to TIME as Unix seconds."""
    seconds, microseconds = reply
    return int(seconds) + int(microseconds) / 1e6


def fields_of(reply: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the reply to HGETALL as a dictionary."""
    return dict(zip(map(bytes_of, reply[::2]), map(bytes_of, reply[1::2]), strict=True))


def _info(reply: bytes) -> dict[str, str]:
    found = dict(line.split(":", 1) for line in reply.decode("latin-1").splitlines() if ":" in line)
    found["redis_version"].index(".")
    return found
