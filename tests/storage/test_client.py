"""RedisClient: an absent key is None, an unreachable Redis is StoreUnavailable."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis
from prometheus_client import REGISTRY

from tests.faults.support.clusters import ClusterSet
from tests.faults.support.relay import Relay
from tests.faults.support.topologies import SERVICE, Node, SentinelNode
from tests.support.servers import PACKAGED, RedisServer, free_port
from wxauth.errors import StoreUnavailable
from wxauth.metrics import BREAKER_OPEN
from wxauth.storage.circuit_breaker import MAX_FAILURES, PROBE_INTERVAL, CircuitBreaker
from wxauth.storage.client import RedisClient, Script, bytes_or_none
from wxauth.storage.connections import connector

SCRIPT = Script("return redis.call('SET', KEYS[1], ARGV[1], 'EX', 10)")

OPERATIONS: dict[str, Callable[[RedisClient], object]] = {
    "health": lambda client: client.health(),
    "read": lambda client: client.read("k"),
    "operation": lambda client: client.ask("k", "HGET", "k", "f", parse=bytes_or_none),
    "run": lambda client: client.run(SCRIPT, "k", "v", parse=bool),
    "delete": lambda client: client.delete("k"),
    "set": lambda client: client.set("k", 1),
    "count": lambda client: client.count("k", 1),
}


def test_read_of_an_absent_key_returns_none(redis_client: RedisClient) -> None:
    assert redis_client.read("wxa:absent") is None


def test_read_returns_the_value(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    raw_redis.set("wxa:k", b"v", px=5000)
    assert redis_client.read("wxa:k") == b"v"


def test_count_returns_the_sum_and_keeps_the_end_of_the_first_use(
    redis_client: RedisClient, raw_redis: redis.Redis
) -> None:
    assert [redis_client.count("wxa:k", seconds) for seconds in (10, 500)] == [1, 2]
    assert 0 < raw_redis.ttl("wxa:k") <= 10


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operation_without_a_server_raises_store_unavailable(operation: Callable[[RedisClient], object]) -> None:
    client = RedisClient(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable, match="unreachable"):
        operation(client)


def breaker_of(client: RedisClient, key: str) -> CircuitBreaker:
    return client._breaker(client._connected(), key)


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operation_on_a_silent_server_times_out(operation: Callable[[RedisClient], object], silent: str) -> None:
    with pytest.raises(StoreUnavailable, match="timeout"):
        operation(RedisClient(connector(silent, "verify")))


def test_answers_since_a_time_are_missing_only_after_a_failure(silent: str) -> None:
    client, start = RedisClient(connector(silent, "verify")), time.monotonic()
    client.check_answers_since(start)
    with pytest.raises(StoreUnavailable):
        client.read("k")
    with pytest.raises(StoreUnavailable, match="timeout"):
        client.check_answers_since(start)
    client.check_answers_since(time.monotonic())


def test_answer_of_one_node_is_enough(redis_client: RedisClient) -> None:
    start = time.monotonic()
    redis_client.read("wxa:k")
    redis_client._breakers["another node"] = failing = CircuitBreaker()
    failing.failed("timeout")
    redis_client.check_answers_since(start)


def test_failed_call_is_timed_once() -> None:
    client = RedisClient(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    before = REGISTRY.get_sample_value("wxauth_redis_seconds_count") or 0
    with pytest.raises(StoreUnavailable):
        client.read("wxa:k")
    assert REGISTRY.get_sample_value("wxauth_redis_seconds_count") == before + 1


def test_store_unavailable_holds_no_password() -> None:
    client = RedisClient(connector(f"redis://user:planted-password@127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable) as caught:
        client.health()
    assert caught.value.__context__ is None
    assert "planted" not in repr(caught.value)


@pytest.mark.parametrize("login", [":wrong@", ""], ids=["wrong", "none"])
@pytest.mark.parametrize("form", ["redis://{}/0", "redis+cluster://{}"])
def test_wrong_password_gives_noauth(form: str, login: str) -> None:
    with RedisServer("--requirepass", "right") as server:
        client = RedisClient(connector(form.format(f"{login}127.0.0.1:{server.port}"), "verify"))
        with pytest.raises(StoreUnavailable, match="noauth"):
            client.health()


@pytest.mark.parametrize("login", [":wrong@", ""], ids=["wrong", "none"])
def test_wrong_password_of_sentinels_gives_noauth(login: str) -> None:
    with Node(password="right") as primary, SentinelNode(primary, 1, "right") as sentinel:
        client = RedisClient(connector(f"redis+sentinel://{login}{sentinel.place}/{SERVICE}/0", "verify"))
        with pytest.raises(StoreUnavailable, match="noauth"):
            client.health()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_health_looks_at_each_node_of_a_cluster(cluster_set: ClusterSet, place: int) -> None:
    client = RedisClient(connector(cluster_set.url, "verify"))
    assert client.health() == "ok"
    with cluster_set.primaries()[place].option("maxmemory-policy", "allkeys-lru"):
        assert client.health() == "evicting"


def test_probe_of_the_breaker_is_retried_after_a_lost_connection() -> None:
    with RedisServer() as server:
        client = RedisClient(connector(server.url, "verify"))
        breaker = breaker_of(client, "k")
        while not breaker.is_open:
            breaker.failed("timeout")
        time.sleep(PROBE_INTERVAL)
        tries = iter([redis.ConnectionError(), None])

        def parse(reply: bool) -> bool:
            failure = next(tries)
            if failure:
                raise failure
            return reply

        assert client.ask("k", "PING", parse=parse)
        assert not breaker.is_open


def test_answer_closes_the_breaker_even_if_it_is_rejected() -> None:
    with RedisServer() as server:
        client = RedisClient(connector(server.url, "verify"), wait_replicas=1)
        breaker = breaker_of(client, "k")
        while not breaker.is_open:
            breaker.failed("timeout")
        time.sleep(PROBE_INTERVAL)
        with pytest.raises(StoreUnavailable, match="not_replicated"):
            client.ensure_replicas("k")
        assert not breaker.is_open


def test_cluster_is_found_by_any_of_its_nodes(cluster_set: ClusterSet) -> None:
    """The first address is silent, the second does not listen."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{free_port()}"
        url = (
            cluster_set.url.replace("@", f"@{dead},")
            if "@" in cluster_set.url
            else cluster_set.url.replace("://", f"://{dead},")
        )
        assert RedisClient(connector(url, "verify")).health() == "ok"


def test_health_of_a_partly_failed_cluster_gives_its_reason(cluster_set: ClusterSet) -> None:
    """Without any node that keeps sessions it is an outage."""
    client = RedisClient(connector(cluster_set.url, "verify"))
    with ExitStack() as ill:
        for node in cluster_set.primaries():
            ill.enter_context(node.option("min-replicas-to-write", "9"))
            assert node is cluster_set.primaries()[-1] or client.health() == "too_few_replicas"
        with pytest.raises(StoreUnavailable, match="too_few_replicas"):
            client.health()


@pytest.mark.parametrize("server", ["redis-server", *PACKAGED])
def test_full_redis_reads_but_does_not_write(server: str) -> None:
    with RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction", server=server) as full:
        client = RedisClient(connector(full.url, "verify"))
        assert client.read("k") is None
        with pytest.raises(StoreUnavailable, match="oom"):
            client.run(SCRIPT, "k", "v", parse=bool)


@pytest.mark.parametrize("server", ["redis-server", *PACKAGED])
def test_replica_reads_but_does_not_write(server: str) -> None:
    with RedisServer("--replicaof", "127.0.0.1", str(free_port()), server=server) as replica:
        client = RedisClient(connector(replica.url, "verify"))
        assert client.read("k") is None
        with pytest.raises(StoreUnavailable, match="readonly"):
            client.run(SCRIPT, "k", "v", parse=bool)


def test_count_is_added_once_although_it_is_sent_twice(redis_server: RedisServer) -> None:
    """The second try only reads."""
    with Relay(redis_server.port) as relay:
        client = RedisClient(connector(relay.url, "verify"))
        assert client.count("counted", 10) == 1
        relay.odds = {"cut": 1}
        with pytest.raises(StoreUnavailable):
            client.count("counted", 10)
        relay.odds = {}
        assert client.count("counted", 10) == 3


def test_count_works_after_a_lost_connection(redis_server: RedisServer) -> None:
    with Relay(redis_server.port) as relay:
        client = RedisClient(connector(relay.url, "verify"))
        client.count("survives", 10)
        relay.cut()
        assert client.count("survives", 10) in (1, 2)


def test_count_of_a_text_raises_store_unavailable(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    raw_redis.set("wxa:taken", "words", ex=10)
    with pytest.raises(StoreUnavailable, match="error"):
        redis_client.count("wxa:taken", 10)


def test_set_gives_the_key_a_ttl(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    redis_client.set("wxa:k", 5, b"value")
    assert (raw_redis.get("wxa:k"), 0 < int(raw_redis.ttl("wxa:k")) <= 5) == (b"value", True)


def test_run_loads_an_unknown_script(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    raw_redis.script_flush()
    assert redis_client.run(SCRIPT, "wxa:k", "v", parse=bool)
    assert raw_redis.get("wxa:k") == b"v"


def test_run_is_sent_again_after_a_lost_connection(redis_server: RedisServer) -> None:
    with Relay(redis_server.port) as relay:
        client = RedisClient(connector(relay.url, "verify"))
        client.run(SCRIPT, "k", "first", parse=bool)
        relay.cut()
        client.run(SCRIPT, "k", "second", parse=bool)
        assert client.read("k") == b"second"


@pytest.mark.parametrize("command", [("GET", "wxa:text"), ("TIME",)], ids=["text", "list"])
def test_reply_of_another_type_raises_store_unavailable(redis_client: RedisClient, command: tuple[str, ...]) -> None:
    """It belongs to another command: the connection is dropped."""
    redis_client.set("wxa:text", 10, b"text")
    with pytest.raises(StoreUnavailable, match="garbled"):
        redis_client.ask("wxa:k", *command, parse=int)


def test_breaker_gauge_is_0_after_a_late_first_connection(raw_redis: redis.Redis) -> None:
    """Connecting to a cluster has a breaker of its own."""
    failures = [redis.ConnectionError()] * MAX_FAILURES

    def connect() -> redis.Redis:
        if failures:
            raise failures.pop()
        return raw_redis

    client = RedisClient(connect)
    for _ in range(MAX_FAILURES):
        with pytest.raises(StoreUnavailable):
            client.read("k")
    assert BREAKER_OPEN._value.get() == 1
    time.sleep(PROBE_INTERVAL)
    assert client.read("k") is None
    assert BREAKER_OPEN._value.get() == 0
