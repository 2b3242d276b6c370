"""The door to `redis`: a client from REDIS_URL, and the few operations that the store needs. Knows no session.

Absent is never unreachable: `None` means that Redis answered and has no such key; whatever keeps Redis from
answering is StoreUnavailable. No command is sent twice by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from .errors import StoreUnavailable

T = TypeVar("T")
AnyClient = redis.Redis | RedisCluster
Command = tuple[str | bytes | int, ...]

PLAIN_TIMEOUT: Final = 0.25
TLS_TIMEOUT: Final = 1.0
POOL_WAIT: Final = 0.1
POOL_SIZE: Final = 128
CONTENTION_TRIES: Final = 50

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


class Watched:
    """What a plan may ask while its keys are being watched."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def fields(self, key: str) -> dict[bytes, bytes]:
        return cast(dict[bytes, bytes], self._pipe.hgetall(key))

    def exists(self, key: str) -> bool:
        return bool(self._pipe.exists(key))

    def alive(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that are there."""
        return _alive(self._pipe, keys)


class RedisClient:
    """One for each worker; safe to share between threads. It connects when first asked, so a start needs no Redis."""

    def __init__(self, connect: Callable[[], AnyClient]) -> None:
        self._connect = connect
        self._client: AnyClient | None = None
        self._lock = threading.Lock()

    def ping(self) -> None:
        """Returns if Redis answers, else StoreUnavailable."""
        _ask(lambda: self._connected().ping())

    def read(self, key: str) -> tuple[bytes, float] | None:
        """The value of `key` and the seconds it has left, in one round trip; None if it is absent."""

        def ask() -> tuple[bytes, float] | None:
            with self._connected().pipeline(transaction=False) as pipe:
                pipe.get(key)
                pipe.pttl(key)
                value, milliseconds = pipe.execute()
            return None if value is None else (value, milliseconds / 1000)

        return _ask(ask)

    def fields(self, key: str) -> dict[bytes, bytes]:
        """The hash at `key`; empty if it is absent."""
        return _ask(lambda: cast(dict[bytes, bytes], self._connected().hgetall(key)))

    def exists(self, key: str) -> bool:
        return bool(_ask(lambda: self._connected().exists(key)))

    def alive(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` (all of one slot) that are there."""
        return _ask(lambda: _alive(self._connected(), keys))

    def expire(self, key: str, seconds: int) -> bool:
        """Gives `key` `seconds` from now. False if it is absent: this brings nothing back."""
        return bool(_ask(lambda: self._connected().expire(key, seconds)))

    def write(self, commands: Iterable[Command]) -> None:
        """Carries out `commands` (all of one slot) as one transaction."""
        self.transact((), lambda _: commands)

    def transact(self, keys: Sequence[str], plan: Callable[[Watched], Iterable[Command]]) -> None:
        """Carries out the commands that `plan` makes of what it reads, all or none.

        If anything under `keys` changes in between, the plan is made anew. All keys must be of one slot.
        """

        for tries in range(CONTENTION_TRIES):
            if _ask(lambda: _attempt(self._connected(), keys, plan)):
                return
            time.sleep(min(0.0005 * tries, 0.01))
        raise StoreUnavailable("contention")

    def _connected(self) -> AnyClient:
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
        return self._client


def _attempt(client: AnyClient, keys: Sequence[str], plan: Callable[[Watched], Iterable[Command]]) -> bool:
    """Whether the plan was carried out; if not, something under `keys` changed and nothing was done."""
    with client.pipeline(transaction=True) as pipe:
        try:
            if keys:
                pipe.watch(*keys)
            commands = list(plan(Watched(pipe)))
            if keys:
                pipe.multi()
            for command in commands:
                pipe.execute_command(*command)
            pipe.execute()
        except redis.WatchError as error:
            lost = error.__context__
        else:
            return True
    # redis-py says WatchError for a lost connection too, and whether EXEC ran is then unknown.
    if isinstance(lost, redis.RedisError | OSError):
        raise lost
    return False


def _alive(client: Any, keys: Sequence[str]) -> set[str]:
    # One command for all of them: EXISTS would only count, and a pipeline can't answer in the midst of a WATCH.
    values = client.execute_command("MGET", *keys) if keys else []
    return {key for key, value in zip(keys, values, strict=True) if value is not None}


def _ask(call: Callable[[], T]) -> T:
    try:
        return call()
    except (redis.RedisError, RedisClusterException, OSError) as error:
        cause = _cause(error)
    raise StoreUnavailable(cause)


def _cause(error: Exception) -> str:
    for kind, word in CAUSES:
        if isinstance(error, kind):
            return word
    return "misconf" if str(error).startswith("MISCONF") else "error"


def connector(url: str, tls: str) -> Callable[[], AnyClient]:
    """How to connect to `url`, one of the forms that REDIS_URL may have; `tls` as WXAUTH_REDIS_TLS."""
    scheme, _, rest = url.partition("://")
    options = _options(scheme.startswith("rediss"), tls)
    if scheme.endswith("+sentinel"):
        return lambda: _sentinel(rest, options)
    if scheme.endswith("+cluster"):
        return lambda: _cluster(rest, options)
    return lambda: _single(url, options)


def _options(encrypted: bool, tls: str) -> dict[str, Any]:
    timeout = TLS_TIMEOUT if encrypted else PLAIN_TIMEOUT
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": 0,
        # RESP3 is the default of redis-py 8: Redis 4 and 5 refuse its handshake.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    if encrypted and tls != "verify":
        options |= {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    if tls.startswith("pin:"):
        options |= {"connection_class": PinnedConnection, "fingerprint": tls.removeprefix("pin:")}
    return options


class PinnedConnection(SSLConnection):
    """TLS to the one certificate whose SHA-256 was configured, whoever signed it."""

    def __init__(self, fingerprint: str, **options: Any) -> None:
        super().__init__(**options)
        self._fingerprint = fingerprint

    def _connect(self) -> Any:
        sock = super()._connect()  # type: ignore[no-untyped-call]
        certificate = sock.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), self._fingerprint):
            sock.close()
            raise redis.ConnectionError("the server's certificate is not the pinned one")
        return sock


def _single(url: str, options: Mapping[str, Any]) -> AnyClient:
    pool = redis.BlockingConnectionPool.from_url(url, max_connections=POOL_SIZE, timeout=POOL_WAIT, **options)
    return redis.Redis(connection_pool=pool)


def _sentinel(rest: str, options: Mapping[str, Any]) -> AnyClient:
    authority, service, *db = rest.split("/")
    login, hosts = _login_and_hosts(authority)
    shared: dict[str, Any] = {**options, **login}
    sentinel = Sentinel(hosts, sentinel_kwargs=shared, **shared)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(service, db=int(db[0]) if db else 0)  # type: ignore[no-untyped-call]
    return client


def _cluster(rest: str, options: Mapping[str, Any]) -> AnyClient:
    login, hosts = _login_and_hosts(rest.rstrip("/"))
    shared: dict[str, Any] = {**options, **login}
    nodes = [ClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
    return RedisCluster(startup_nodes=nodes, **shared)


def _login_and_hosts(authority: str) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """`user:password@host:port,host:port` taken apart."""
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    login = {"username": unquote(user), "password": unquote(password)}
    places = [host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "6379") for host in hosts.split(",")]
    return {name: text for name, text in login.items() if text}, [(host, int(port)) for host, _, port in places]
