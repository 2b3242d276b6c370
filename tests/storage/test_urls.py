"""The forms of REDIS_URL, each to a real server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.faults.support.clusters import ClusterSet
from tests.faults.support.topologies import SentinelSet
from tests.support.servers import RedisServer
from wxauth.errors import StoreUnavailable
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """It listens at a socket too, and has a user with a password."""
    with RedisServer("--unixsocket", "{folder}/redis.sock") as running, running.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">p@ss/word?", "~*", "+@all")
        yield running


def read(url: str, key: str = "k") -> bytes | None:
    return RedisClient(connector(url, "verify")).read(key)


@pytest.mark.parametrize(
    ("login", "database"),
    [("", ""), ("", "?db=0"), ("", "?db=2"), ("app:p%40ss%2Fword%3F@", ""), ("app:p%40ss%2Fword%3F@", "?db=2")],
)
def test_socket_is_reached(server: RedisServer, login: str, database: str) -> None:
    number = database.removeprefix("?db=") or "0"
    with server.client() as admin:
        admin.select(int(number))
        admin.set("k", number, ex=10)
    assert read(f"unix://{login}{server.folder}/redis.sock{database}") == number.encode()


def test_socket_with_a_percent_sign_in_its_path_is_reached() -> None:
    with RedisServer("--unixsocket", "{folder}/50% & more") as server:
        assert RedisClient(connector(f"unix://{server.folder}/50%25%20&%20more", "verify")).health() == "ok"


def test_wrong_password_at_a_socket_gives_noauth(server: RedisServer) -> None:
    with pytest.raises(StoreUnavailable, match="noauth"):
        read(f"unix://app:wrong@{server.folder}/redis.sock")


@pytest.mark.parametrize("path", ["/absent.sock", "/" + "a" * 200, "/log"])
def test_path_without_a_server_gives_unreachable(server: RedisServer, path: str) -> None:
    """A socket's path has at most 107 bytes."""
    with pytest.raises(StoreUnavailable, match="unreachable") as caught:
        read(f"unix://{server.folder}{path}")
    assert str(server.folder) not in repr(caught.value)


def test_valkey_is_a_name_for_redis(server: RedisServer) -> None:
    with server.client() as admin:
        admin.set("k", "v", ex=10)
    assert read(server.url.replace("redis://", "valkey://")) == b"v"


def test_valkey_sentinel_is_a_name_for_redis_sentinel(sentinel_set: SentinelSet) -> None:
    assert RedisClient(connector(sentinel_set.url.replace("redis+", "valkey+"), "verify")).health() == "ok"


def test_valkey_cluster_is_a_name_for_redis_cluster(cluster_set: ClusterSet) -> None:
    assert RedisClient(connector(cluster_set.url.replace("redis+", "valkey+"), "verify")).health() == "ok"


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_timeout_is_that_of_the_setting(scheme: str) -> None:
    """Without it, 0.25 s, or 1 s over TLS. A TLS server that is silent takes the time to connect."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timeout"):
            RedisClient(connector(url, "verify", timeout=0.6)).read("k")
    assert time.monotonic() - started >= 0.6


@pytest.mark.parametrize(
    ("scheme", "timeout", "expected"),
    [
        ("redis", None, 0.25),
        ("valkey", None, 0.25),
        ("rediss", None, 1.0),
        ("valkeys", None, 1.0),
        ("redis", 3.0, 3.0),
        ("valkeys", 0.1, 0.1),
    ],
)
def test_pool_connects_and_reads_within_the_timeout(scheme: str, timeout: float | None, expected: float) -> None:
    ((_, pool),) = RedisClient(connector(f"{scheme}://127.0.0.1", "verify", timeout=timeout)).pools()
    options = pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (expected, expected)
