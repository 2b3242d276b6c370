"""RedisClient: the few operations that the rest needs, and one error, StoreUnavailable.

`None` means that Redis answered and the key is not there. If Redis cannot be asked, StoreUnavailable is raised.

redis-py's clients and pools do the work, with three exceptions:
- Their retries are off. After a lost connection they would count twice.
- Commands for a cluster go to the clients of its nodes. RedisCluster asks for the nodes again within the request, one
  thread after the other: a silent cluster would hold all threads.
- Most commands go straight to a connection of the pool. That takes half the processor time.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeGuard, TypeVar, cast

import redis
from redis.cluster import PRIMARY, ClusterNode, RedisCluster
from redis.exceptions import AskError, MovedError, NoScriptError
from redis.sentinel import SentinelConnectionPool

from ..errors import StoreUnavailable
from ..metrics import REDIS_SECONDS
from .acl import PROBE_SCRIPT, REVOCATIONS
from .circuit_breaker import CircuitBreaker
from .connections import AnyClient, Pool
from .reasons import FAILURES, REDIRECTIONS, dangers, reason, unavailable
from .round_trips import Command, round_trip

T = TypeVar("T")

#: How many keys Redis looks at in one SCAN.
SCAN_BATCH: Final = 1000
PROBE: Final = "wxa:{ready}:p"
#: Enough keys that each primary of a cluster of usual size has one.
CLUSTER_PROBES: Final = [f"wxa:{{ready{number}}}:p" for number in range(100)]
#: Seconds that other threads wait for the first one to connect to a cluster.
CONNECT_WAIT: Final = 0.3
#: An idle Redis looks for ended waits every 100 ms, and the reply must come within the timeout of a read.
WAIT_MILLISECONDS: Final = 150
#: Seconds. A command is sent again for so long while its slot is moving.
REDIRECT_TIMEOUT: Final = 0.3
REDIRECT_PAUSE: Final = 0.01
#: Seconds between two questions to the sentinels who is primary.
PRIMARY_INTERVAL: Final = 0.5
#: The errors of redis-py after which a second try may succeed: the connection was lost, or a reply was unreadable.
TRANSIENT: Final = (redis.ConnectionError, redis.InvalidResponse)
#: What a reply of the wrong type raises. It belongs to another command.
MISMATCH: Final = (TypeError, ValueError, LookupError, AttributeError)
#: The reasons that mean: no connection was free. Redis may answer all others.
NO_CONNECTION: Final = ("pool_exhausted", "max_clients")
#: The reasons that mean: this command is not allowed. `error` is any reply without a reason of its own.
FORBIDDEN: Final = ("noperm", "error")


class Script:
    """A Lua script with one key. Redis knows it by its hash. If it does not, the source is sent."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()  # the hash that EVALSHA takes


#: What a login needs: the clock, and writes.
RIGHTS_PROBE: Final = Script(PROBE_SCRIPT)
#: Adds 1, or only reads if ARGV[2] is 0. Returns the sum.
COUNT: Final = Script("""
if ARGV[2] == '0' then return tonumber(redis.call('GET', KEYS[1]) or 0) end
local sum = redis.call('INCR', KEYS[1])
if sum == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return sum
""")


class RedisClient:
    """One for each worker; safe to share between threads. It connects at the first command.

    With `wait_replicas`, a confirmed script has succeeded only when so many replicas have it (WAIT).
    """

    def __init__(self, connect: Callable[[], AnyClient], wait_replicas: int = 0) -> None:
        self._connect = connect
        self._wait_replicas = wait_replicas
        #: How often something was sent again after a lost connection. The reply may then be that of a second run.
        self.retries = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything, as at the start. A forked process must not use the connections of its parent."""
        self._client: AnyClient | None = None
        self._lock = threading.Lock()
        self._connecting = CircuitBreaker()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._refresher: threading.Thread | None = None
        self._followed_at = float("-inf")

    @property
    def is_cluster(self) -> bool:
        """Whether two keys may lie on two nodes."""
        return self._unless_unavailable(lambda: _is_cluster(self._connected()))

    def ask(
        self,
        key: str,
        *command: str | bytes | int,
        parse: Callable[[Any], T],
        fresh: bool = False,
        together: bool = False,
    ) -> T:
        """Send a command to the node of `key`. Return `parse` of the reply.

        `fresh`: on a new connection. `together`: in a round trip with commands of other threads. Trust such a reply
        only if its content proves that it belongs to this command.
        """
        # A reply of the wrong type may belong to another thread, so the second try is alone.
        tries = iter((together, False))
        return self._call(
            key, lambda client: parse(self._send(client, key, [command], together=next(tries))[0]), fresh=fresh
        )

    def run(
        self,
        script: Script,
        key: str,
        *arguments: str | bytes | int,
        parse: Callable[..., T],
        also: Sequence[Command] = (),
        confirmed: bool = False,
    ) -> T:
        """Run a script on `key`. Return `parse` of the reply.

        `also` are commands on the same node, sent in the same round trip; `parse` gets their replies too. The script
        must be idempotent: it is sent again after a lost connection.
        """
        more = [*also, *(self._waiting(key) if confirmed else [])]

        def action(client: AnyClient) -> tuple[T, list[Any]]:
            replies = self._eval(client, script, key, arguments, more)
            return parse(*replies[: 1 + len(also)]), replies[1 + len(also) :]

        result, waited = self._call(key, action)
        self._check_replicas(waited)
        return result

    def _eval(self, client: AnyClient, script: Script, key: str, args: Command, more: Sequence[Command]) -> list[Any]:
        try:
            return self._send(client, key, [("EVALSHA", script.sha, 1, key, *args), *more])
        except NoScriptError:
            return self._send(client, key, [("EVAL", script.source, 1, key, *args), *more])

    def ensure_replicas(self, key: str) -> None:
        """Return if enough replicas follow the node of `key` to confirm a write. Raises StoreUnavailable."""
        if self._wait_replicas:
            self._check_replicas(self._call(key, lambda client: self._send(client, key, self._waiting(key))))

    def _waiting(self, key: str) -> list[Command]:
        # WAIT covers only the writes of its own connection, so there must be one, even if the script wrote nothing.
        wait = ("WAIT", self._wait_replicas, WAIT_MILLISECONDS)
        return [("SET", f"{key}:w", "", "PX", 1), wait] if self._wait_replicas else []

    def _check_replicas(self, replies: Sequence[Any]) -> None:
        if replies and replies[-1] < self._wait_replicas:
            raise unavailable("not_replicated")

    def read(self, key: str) -> bytes | None:
        """Return the value of `key`. None if it is not there."""
        return self.ask(key, "GET", key, parse=bytes_or_none)

    def set(self, key: str, seconds: int, value: bytes = b"") -> None:
        """Set `key` for `seconds`."""
        self.ask(key, "SET", key, value, "EX", seconds, parse=bool)

    def delete(self, key: str) -> None:
        """Delete `key`, if it is there."""
        self.ask(key, "DEL", key, parse=bool)

    def scan(self, pattern: str) -> Iterator[str]:
        """Yield the keys that match `pattern`, on each node that takes writes. A key may come twice."""
        for probe in self.probes():
            cursor = None
            while cursor != 0:
                command = ("SCAN", cursor or 0, "MATCH", pattern, "COUNT", SCAN_BATCH)
                cursor, names = self.ask(probe, *command, parse=_scanned)
                yield from names

    def count(self, key: str, seconds: int, amount: int = 1) -> int:
        """Add 1 to a counter that ends `seconds` after its first use, or 0 to read it only. Return the sum."""
        # The second try after a lost connection only reads: the first may have counted.
        amounts = iter((amount, 0))
        return self._call(key, lambda client: int(self._eval(client, COUNT, key, (seconds, next(amounts)), [])[0]))

    def health(self) -> str:
        """Return `ok`, or the reason that endangers sessions. Raises StoreUnavailable if no node keeps sessions."""
        words, failures = [], []
        for probe in self.probes():
            try:
                words.append(self._check(probe))
            except StoreUnavailable as error:
                failures.append(error)
        if not words:
            raise failures[0]
        return next((word for word in (*(error.reason for error in failures), *words) if word != "ok"), "ok")

    def check_answers_since(self, start: float) -> None:
        """Raise StoreUnavailable if calls have failed since `start` (`time.monotonic()`), and no node has answered.

        Asks Redis nothing.
        """
        breakers = list(self._breakers.values())
        if breakers and all(breaker.has_only_failed_since(start) for breaker in breakers):
            raise unavailable(breakers[0].reason)

    def probes(self) -> list[str]:
        """Return one key on each node that takes writes."""
        client = self._unless_unavailable(self._connected)
        if not _is_cluster(client):
            return [PROBE]
        owners = client.nodes_manager.slots_cache
        return list({str((owners.get(client.keyslot(key)) or [])[:1]): key for key in CLUSTER_PROBES}.values())

    def _check(self, probe: str) -> str:
        self._call(probe, lambda client: self._send(client, probe, self._probing(probe), probing=True))
        try:
            return next(dangers(self.info(probe)), "ok")
        except StoreUnavailable as error:
            if error.reason not in FORBIDDEN:
                raise
            # Some hosts forbid INFO. What it would say is then the host's responsibility.
            return "ok"

    def _probing(self, probe: str) -> list[Command]:
        """Return commands that fail if a login would fail, or if the revocation channel would stay silent."""
        # EVAL loads the script for EVALSHA.
        scripts: list[Command] = [("EVAL", RIGHTS_PROBE.source, 1, probe), ("EVALSHA", RIGHTS_PROBE.sha, 1, probe)]
        wait: list[Command] = [("WAIT", 0, 1)] if self._wait_replicas else []
        return [*scripts, *wait, ("PING",), ("SUBSCRIBE", REVOCATIONS)]

    def info(self, probe: str = PROBE) -> dict[str, str]:
        """Return what INFO says on the node of `probe`. Raises StoreUnavailable also where a host forbids it."""
        return self._call(probe, lambda client: self._node(client, probe).info())

    def clock(self) -> float:
        """Return Redis' time, in Unix seconds. Raises StoreUnavailable also where a host forbids TIME."""
        seconds, microseconds = self._call(PROBE, lambda client: self._node(client, PROBE).time())
        return float(seconds + microseconds / 1e6)

    def pools(self) -> list[tuple[str, Any]]:
        """Return the name and the connection pool of each node that takes writes. Raises errors of redis-py."""
        client = self._connected()
        self._follow_primary(client)
        if _is_cluster(client):
            nodes = client.get_primaries()
            return [(node.name, client.get_redis_connection(node).connection_pool) for node in nodes]
        # Sentinel's pool knows the primary, so that a new primary has a new name.
        pool = cast(redis.Redis, client).connection_pool
        return [(str(getattr(pool, "master_address", "")), pool)]

    def refresh(self) -> None:
        """Learn the nodes of a cluster again. Raises errors of redis-py."""
        client = self._connected()
        if _is_cluster(client):
            # By default redis-py would also close the connections to the node that it asks.
            client.nodes_manager.initialize(disconnect_startup_nodes_pools=False)
            for gone in set(self._breakers) - {node.name for node in client.get_primaries()}:
                self._breakers.pop(gone, CircuitBreaker()).succeeded()

    def _refresh_soon(self, client: AnyClient) -> None:
        if _is_cluster(client) and not (self._refresher and self._refresher.is_alive()):
            self._refresher = threading.Thread(target=self._refresh, daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread is available
                self._refresher.start()

    def _refresh(self) -> None:
        # The next request reports the failure.
        with contextlib.suppress(*FAILURES, StoreUnavailable):
            self.refresh()

    def _send(
        self, client: AnyClient, key: str, commands: Sequence[Command], probing: bool = False, together: bool = False
    ) -> list[Any]:
        """Send the commands to the node of `key` in one round trip, and follow the redirections of a cluster.

        `probing`: with ASKING in a cluster, and on a connection that is closed afterwards, so that it may subscribe.
        `together`: as in `ask`.
        """
        deadline, node = time.monotonic() + REDIRECT_TIMEOUT, self._node(client, key)
        asking = probing and _is_cluster(client)
        while True:
            pool = node.connection_pool
            try:
                # The Redis in memory of the sandbox has another pool.
                if together and isinstance(pool, Pool) and not asking:
                    (command,) = commands
                    return [pool.send_together(command)]
                return _exchange(pool, commands, asking, probing)
            except REDIRECTIONS as error:
                if time.monotonic() > deadline or not _is_cluster(client):
                    raise
                node, asking = self._redirected(client, key, error)

    def _redirected(self, client: RedisCluster, key: str, error: Exception) -> tuple[redis.Redis, bool]:
        """Return the node to ask next, and whether it needs ASKING."""
        if isinstance(error, MovedError):
            client.nodes_manager.move_slot(error)
        elif isinstance(error, AskError):
            # A primary that gets its first slot is in no list yet.
            asked = ClusterNode(error.host, error.port, PRIMARY)
            return client.get_redis_connection(client.nodes_manager.nodes_cache.setdefault(asked.name, asked)), True
        else:
            time.sleep(REDIRECT_PAUSE)
        return self._node(client, key), False

    def _node(self, client: AnyClient, key: str) -> redis.Redis:
        if _is_cluster(client):
            return client.get_redis_connection(client.get_node_from_key(key))
        return cast(redis.Redis, client)

    def _call(self, key: str, action: Callable[[AnyClient], T], *, fresh: bool = False) -> T:
        start = time.perf_counter()
        try:
            return self._unless_unavailable(lambda: self._call_guarded(key, action, fresh))
        finally:
            REDIS_SECONDS.observe(time.perf_counter() - start)

    def _call_guarded(self, key: str, action: Callable[[AnyClient], T], fresh: bool) -> T:
        client = self._connected()
        self._follow_primary(client)
        breaker = self._breaker(client, key)
        if not breaker.admits():
            raise unavailable(breaker.reason)
        try:
            answer = self._try_twice(client, key, action, fresh)
        except FAILURES as error:
            word = reason(error)
            if isinstance(error, redis.ResponseError):
                # An error reply proves that Redis is up: count it as a success.
                breaker.succeeded()
            elif word not in NO_CONNECTION:
                breaker.failed(word)
            if word in ("cluster_down", "slot_moving", "timeout", "unreachable"):
                self._refresh_soon(client)
            raise
        breaker.succeeded()
        return answer

    def _try_twice(self, client: AnyClient, key: str, action: Callable[[AnyClient], T], fresh: bool) -> T:
        try:
            return self._try(client, key, action, fresh)
        except TRANSIENT as error:
            # Not the subclasses: a wrong password stays wrong.
            if type(error) not in TRANSIENT or reason(error) in NO_CONNECTION:
                raise
        self.retries += 1
        return self._try(client, key, action, fresh=True)

    def _try(self, client: AnyClient, key: str, action: Callable[[AnyClient], T], fresh: bool) -> T:
        if fresh:
            self._drop_idle_connections(client, key)
        try:
            return action(client)
        except MISMATCH:
            self._drop_idle_connections(client, key)
        raise redis.InvalidResponse("the reply belongs to another command")

    def _drop_idle_connections(self, client: AnyClient, key: str) -> None:
        """Close idle connections: they may be lost too, or hold the reply to another command."""
        self._node(client, key).connection_pool.disconnect(inuse_connections=False)

    def _breaker(self, client: AnyClient, key: str) -> CircuitBreaker:
        name = client.get_node_from_key(key).name if _is_cluster(client) else ""
        return self._breakers.get(name) or self._breakers.setdefault(name, CircuitBreaker())

    def _follow_primary(self, client: AnyClient) -> None:
        """Ask the sentinels now and then: their pool asks only when it connects, and a demoted primary answers on."""
        pool = getattr(client, "connection_pool", None)
        if isinstance(pool, SentinelConnectionPool) and time.monotonic() > self._followed_at + PRIMARY_INTERVAL:
            self._followed_at = time.monotonic()
            with contextlib.suppress(*FAILURES):
                pool.get_master_address()

    def _unless_unavailable(self, action: Callable[[], T]) -> T:
        """Return what `action` returns, with the errors of redis-py as StoreUnavailable."""
        try:
            return action()
        except FAILURES as error:
            word = reason(error)
        # Raised here, so that the error has no context: that of redis-py may show the address.
        raise unavailable(word)

    def _connected(self) -> AnyClient:
        if self._client is None:
            if not self._connecting.admits():
                raise unavailable(self._connecting.reason)
            # The first thread asks a cluster for its slots; the others wait for it.
            if not self._lock.acquire(timeout=CONNECT_WAIT):
                raise unavailable("unreachable")
            try:
                self._client = self._client or self._connect()
                self._connecting.succeeded()
            except FAILURES as error:
                self._connecting.failed(reason(error))
                raise
            finally:
                self._lock.release()
        return self._client


def _is_cluster(client: AnyClient) -> TypeGuard[RedisCluster]:
    # isinstance takes some microseconds here: the classes of redis-py are Protocols.
    return hasattr(client, "nodes_manager")


def _exchange(pool: Any, commands: Sequence[Command], asking: bool, close: bool = False) -> list[Any]:
    """Send the commands in one round trip, and return their replies. Raises the first error reply, if there is one.

    `close` the connection afterwards.
    """
    sent = [it for command in commands for it in (("ASKING",), command)] if asking else commands
    replies = round_trip(pool, sent, close=close)
    for reply in replies:
        if isinstance(reply, redis.ResponseError):
            raise reply
    return replies[1::2] if asking else replies


def _scanned(reply: Any) -> tuple[int, list[str]]:
    cursor, names = reply
    return int(cursor), [name.decode() for name in names]


def bytes_or_none(reply: Any) -> bytes | None:
    """Return a reply that must be a string or nil. Raises TypeError."""
    if not isinstance(reply, bytes | None):
        raise TypeError
    return reply
