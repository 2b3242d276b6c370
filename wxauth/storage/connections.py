"""How to connect to Redis: the forms of REDIS_URL, TLS, timeouts."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

AnyClient = redis.Redis | RedisCluster

PLAIN_TIMEOUT: Final = 0.25
TLS_TIMEOUT: Final = 1.0
POOL_WAIT: Final = 0.1
POOL_SIZE: Final = 128


def connector(url: str, tls: str) -> Callable[[], AnyClient]:
    """Return a function that connects to `url`, in one of the forms of REDIS_URL. `tls` is WXAUTH_REDIS_TLS."""
    scheme, _, rest = url.partition("://")
    options = _options(scheme, tls)
    if scheme.endswith("+sentinel"):
        return lambda: _sentinel(rest, options)
    if scheme.endswith("+cluster"):
        return lambda: _cluster(rest, options)
    return lambda: _single(url, options)


def _options(scheme: str, tls: str) -> dict[str, Any]:
    encrypted = scheme.startswith("rediss")
    timeout = TLS_TIMEOUT if encrypted else PLAIN_TIMEOUT
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
        "max_connections": POOL_SIZE,
    }
    if encrypted and "+" in scheme:
        # These addresses are not parsed by redis-py, so nothing else turns TLS on.
        options["ssl"] = True
    if encrypted:
        options["redis_connect_func"] = _drain_tickets
    if encrypted and tls != "verify":
        options |= {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    if encrypted and tls.startswith("pin:"):
        options |= {"connection_class": PinnedConnection, "fingerprint": tls.removeprefix("pin:")}
    return options


def _drain_tickets(connection: Any) -> None:
    """Drain TLS 1.3 session tickets with a PING: redis-py mistakes them for unread data."""
    connection.on_connect()
    connection.send_command("PING", check_health=False)
    # PING may be forbidden. The error reply drains the tickets too.
    with contextlib.suppress(redis.ResponseError):
        connection.read_response()


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


def _single(url: str, options: Mapping[str, Any]) -> AnyClient:
    return redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(url, timeout=POOL_WAIT, **options))


def _sentinel(rest: str, options: Mapping[str, Any]) -> AnyClient:
    authority, service, *db = rest.split("/")
    login, hosts = _login_and_hosts(authority)
    shared: dict[str, Any] = {**options, **login}
    # redis-py asks them one after another: all of them together may take as long as Redis itself.
    share = options["socket_timeout"] / len(hosts) / (2 if login else 1)
    sentinel_options = {**options, "socket_connect_timeout": share, "socket_timeout": share}
    sentinel = Sentinel(hosts, sentinel_kwargs={**sentinel_options, **login}, **shared)
    if login:
        # Often only the data nodes have a password, and a sentinel without one refuses a client that sends one.
        sentinel.sentinels += Sentinel(hosts, sentinel_kwargs=sentinel_options).sentinels
    client: redis.Redis = sentinel.master_for(service, db=int(db[0]) if db else 0)
    return client


def _cluster(rest: str, options: Mapping[str, Any]) -> AnyClient:
    login, hosts = _login_and_hosts(rest.rstrip("/"))
    shared: dict[str, Any] = {**options, **login}
    return RedisCluster(startup_nodes=[ClusterNode(*host) for host in hosts], **shared)


def _login_and_hosts(authority: str) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """Parse `user:password@host:port,host:port`."""
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    login = {"username": unquote(user), "password": unquote(password)}
    matches = [re.fullmatch(r"(.+?)(?::(\d+))?", host) for host in hosts.split(",")]
    return (
        {name: text for name, text in login.items() if text},
        [(match[1], int(match[2] or 6379)) for match in matches if match],
    )
