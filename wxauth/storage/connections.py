"""How to connect to Redis: the forms of REDIS_URL, TLS, timeouts."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import queue
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from .fair_semaphore import FairSemaphore
from .reasons import reason
from .round_trips import Command, SharedRoundTrips

AnyClient = redis.Redis | RedisCluster

PLAIN_TIMEOUT: Final = 0.25
TLS_TIMEOUT: Final = 1.0
#: Seconds in which no new connection is opened, after one that could not be opened.
REFUSAL_PAUSE: Final = 0.5
#: Seconds after which a thread that waits for an open connection looks again.
WAIT_STEP: Final = 0.05


def connector(url: str, tls: str, connections: int = 8, timeout: float | None = None) -> Callable[[], AnyClient]:
    """Return a function that connects to `url`, in one of the forms of REDIS_URL. `tls` is WXAUTH_REDIS_TLS.

    `connections` is WXAUTH_REDIS_CONNECTIONS, the size of the pool of each node; `timeout` is WXAUTH_REDIS_TIMEOUT.
    """
    scheme, _, rest = url.partition("://")
    timeout = timeout or (TLS_TIMEOUT if is_encrypted(url) else PLAIN_TIMEOUT)
    options = _options(scheme, is_encrypted(url), tls, timeout) | {"max_connections": connections}
    if scheme == "unix":
        return lambda: _unix(rest, options)
    if scheme.endswith("+sentinel"):
        return lambda: _sentinel(rest, options)
    if scheme.endswith("+cluster"):
        return lambda: _cluster(rest, options)
    return lambda: _single(rest, options)


def is_encrypted(url: str) -> bool:
    """Whether this form of REDIS_URL means TLS."""
    return url.startswith(("rediss", "valkeys"))


def _options(scheme: str, encrypted: bool, tls: str, timeout: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": 0,
        # redis-py 8 speaks RESP3 by default, and Redis 5 refuses its handshake.
        "protocol": 2,
        # Redis 5 refuses CLIENT SETINFO too, which every connection would send.
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": _connect_and_ping,
    }
    if encrypted and scheme.endswith("+sentinel"):
        # redis-py then takes the class of connections that asks the sentinels.
        options["ssl"] = True
    elif encrypted:
        options["connection_class"] = SSLConnection
    if encrypted and tls != "verify":
        options |= {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    if encrypted and tls.startswith("pin:"):
        options |= {"connection_class": PinnedConnection, "fingerprint": tls.removeprefix("pin:")}
    return options


def _connect_and_ping(connection: Any) -> None:
    """Send a PING on each new connection, so that it counts as open only once Redis has accepted it.

    The PING also drains TLS 1.3 session tickets, which redis-py mistakes for unread data.
    """
    connection.on_connect()
    connection.send_command("PING", check_health=False)
    # PING may be forbidden. The error reply drains the tickets too.
    with contextlib.suppress(redis.ResponseError):
        connection.read_response()


class OpenFirstQueue(queue.LifoQueue[Any]):
    """Hands out open connections before those that must be opened: closed ones, and None for a new one."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        #: Counts the items. Threads wait here, in order.
        self.turns = FairSemaphore()
        #: A `time.monotonic()` value. Until then it hands out open connections only.
        self.open_only_until = float("-inf")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return an item. Raises queue.Empty if there is none within `timeout` seconds, or none open in a pause."""
        if not self.turns.acquire(timeout):
            raise queue.Empty
        try:
            # Neither the end of a pause nor a connection that is lost wakes a thread, so it waits in steps.
            return super().get(block, WAIT_STEP)
        except queue.Empty:
            self.turns.release()
            raise

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item. Raises queue.Full."""
        super().put(item, block, timeout)
        self.turns.release()

    def _put(self, item: Any) -> None:
        self.queue.insert(self.maxsize if _is_open(item) else 0, item)

    def _qsize(self) -> int:
        if time.monotonic() < self.open_only_until:
            return sum(map(_is_open, self.queue))
        return len(self.queue)


def _is_open(connection: Any) -> bool:
    return connection is not None and bool(connection.is_connected)


def _has_data(connection: Any) -> bool:
    try:
        return bool(connection.can_read())
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return True


class Pool(redis.BlockingConnectionPool):
    """A few connections for many threads. A thread waits for one, but not as long as for a reply.

    So waiting, connecting and reading take less than 600 ms together if Redis is silent.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(timeout=options["socket_timeout"] * 0.8, queue_class=OpenFirstQueue, **options)
        self._shared = SharedRoundTrips(self, options["socket_timeout"])

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return an open connection. If Redis accepts no more, wait for one that is open."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return self._take()
            except redis.ConnectionError as error:
                is_refused = reason(error) != "pool_exhausted"
                is_last = time.monotonic() > deadline
                none_open = not any(map(_is_open, self._connections))
                if is_last or (is_refused and none_open):
                    raise
            if none_open:
                # They were lost since the pause began. Only a new one can help.
                self.pool.open_only_until = float("-inf")
            elif is_refused:
                self.pool.open_only_until = time.monotonic() + REFUSAL_PAUSE

    def _take(self) -> Any:
        """Return a connection that is open and has no unread data.

        redis-py's own method does the same, and counts for metrics of its own. That takes half as long again.
        """
        self._checkpid()
        try:
            connection = self.pool.get(timeout=self.timeout) or self.make_connection()
        except queue.Empty:
            raise redis.ConnectionError("No connection available.") from None
        try:
            connection.connect()
            if _has_data(connection):
                # It was closed, or a reply was not read.
                connection.disconnect()
                connection.connect()
                if _has_data(connection):
                    raise redis.ConnectionError("Connection not ready")
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Put a connection back. One of another process or primary is closed first."""
        self._checkpid()
        is_ours = self.owns_connection(connection)
        if not is_ours or connection.should_reconnect():
            connection.disconnect()
        with contextlib.suppress(queue.Full):  # a fork has made all of them new
            self.pool.put_nowait(connection if is_ours else None)

    def send_together(self, command: Command) -> Any:
        """Send a command in a round trip with those of other threads. Return its reply."""
        return self._shared.send(command)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections. With the lock, no thread takes one that is just being closed."""
        with self.pool.mutex:
            super().disconnect(inuse_connections)


class SentinelPool(SentinelConnectionPool, Pool):
    """A pool of connections to the primary that the sentinels name."""

    def owns_connection(self, connection: Any) -> int:
        """Close a connection to a former primary when it is released. It is opened again to the new one."""
        # redis-py would put a new one in its place, and keep the old one in its list.
        if self.master_address != (connection.host, connection.port):
            connection.mark_for_reconnect()
        return Pool.owns_connection(self, connection)


class PinnedConnection(SSLConnection):
    """TLS to the one certificate with the configured SHA-256, no matter who signed it."""

    def __init__(self, fingerprint: str, **options: Any) -> None:
        super().__init__(**options)
        self._fingerprint = fingerprint

    def _connect(self) -> Any:
        sock = super()._connect()
        certificate = sock.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), self._fingerprint):
            sock.close()
            raise redis.ConnectionError("the server's certificate is not the pinned one")
        return sock


def _single(rest: str, options: Mapping[str, Any]) -> AnyClient:
    authority, _, db = rest.partition("/")
    login, ((host, port),) = login_and_hosts(authority)
    return redis.Redis(connection_pool=Pool(host=host, port=port, db=int(db or 0), **login, **options))


def _unix(rest: str, options: Mapping[str, Any]) -> AnyClient:
    """Connect to a socket: `user:password@/path?db=1`."""
    authority, _, path = rest.partition("/")
    path, _, db = path.partition("?db=")
    login, _ = login_and_hosts(authority)
    # redis-py's class for sockets has no option of TCP.
    options = {name: value for name, value in options.items() if name != "socket_keepalive"} | login
    socket = {"connection_class": UnixDomainSocketConnection, "path": f"/{unquote(path)}", "db": int(db or 0)}
    return redis.Redis(connection_pool=Pool(**socket, **options))


def _sentinel(rest: str, options: Mapping[str, Any]) -> AnyClient:
    authority, service, *db = rest.split("/")
    login, hosts = login_and_hosts(authority)
    shared: dict[str, Any] = {**options, **login}
    # redis-py asks them one after another: all of them together may take as long as Redis itself.
    share = options["socket_timeout"] / len(hosts) / (2 if login else 1)
    sentinel_options = {**options, "socket_connect_timeout": share, "socket_timeout": share}
    # Their pool does not wait, and each thread that connects to Redis asks them.
    del sentinel_options["max_connections"]
    sentinel = Sentinel(hosts, sentinel_kwargs={**sentinel_options, **login}, **shared)
    if login:
        # Often only the data nodes have a password, and a sentinel without one refuses a client that sends one.
        sentinel.sentinels += Sentinel(hosts, sentinel_kwargs=sentinel_options).sentinels
    client: redis.Redis = sentinel.master_for(service, connection_pool_class=SentinelPool, db=int(db[0]) if db else 0)
    return client


def _cluster(rest: str, options: Mapping[str, Any]) -> AnyClient:
    login, hosts = login_and_hosts(rest.rstrip("/"))
    shared: dict[str, Any] = {**options, **login}
    nodes = [ClusterNode(*host) for host in hosts]
    # redis-py uses the class of the pool only if it gets a URL. It is that of the first node.
    url = f"redis://{rest.rpartition('@')[2].partition(',')[0]}"
    return RedisCluster(url=url, startup_nodes=nodes, connection_pool_class=Pool, **shared)


def login_and_hosts(authority: str) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """Parse `user:password@host:port,host:port`. A host may be an IPv6 address in brackets."""
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    login = {"username": unquote(user), "password": unquote(password)}
    parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
    return (
        {name: text for name, text in login.items() if text},
        [(str(part.hostname), part.port or 6379) for part in parts],
    )
