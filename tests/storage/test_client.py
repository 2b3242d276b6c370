"""The door to Redis: absent is never unreachable, and a transaction is all or nothing."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from wxauth.clock import Clock
from tests.faults.clusters import ClusterSet
from tests.faults.relay import Relay
from tests.faults.topologies import SERVICE, Node, SentinelNode
from tests.servers import RedisServer, free_port, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.storage.circuit_breaker import PROBE_INTERVAL
from wxauth.storage.client import A_MOMENT, RedisClient
from wxauth.storage.connections import connector
from wxauth.storage.wire import Command, Reader, Wire

ASKS: dict[str, Callable[[RedisClient], object]] = {
    "examine": lambda door: door.health(),
    "read": lambda door: door.read("k"),
    "ping": lambda door: door.ping(),
    "fields": lambda door: door.at("k").fields("k"),
    "fields_and_mark": lambda door: door.at("k").fields_and_mark("k", "m"),
    "present": lambda door: door.at("k").present(["k"]),
    "expire": lambda door: door.expire("k", 1),
    "claim": lambda door: door.claim("k", "me", 1),
    "delete": lambda door: door.delete("k"),
    "set": lambda door: door.set("k", 1),
    "count": lambda door: door.count("k", 1, 1),
    "transact": lambda door: door.transact(["k"], lambda _: [("DEL", "k")]),
}


def test_what_is_absent_is_none(redis_client: RedisClient) -> None:
    """Redis answered, and has no such key."""
    assert redis_client.read("absent") is None


def test_read_answers_value_and_time_left(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """Both come in one round trip, the time in seconds."""
    raw_redis.set("k", b"v", px=5000)
    found = redis_client.read("k")
    assert found is not None
    assert (found[0], 0 < found[1] <= 5) == (b"v", True)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_what_can_not_be_asked_is_no_answer(ask: Callable[[RedisClient], object]) -> None:
    """Every operation says StoreUnavailable where nobody listens."""
    door = RedisClient(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable, match="unreachable"):
        ask(door)


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_redis_that_never_answers_is_given_up(ask: Callable[[RedisClient], object], silent: str) -> None:
    """It takes the connection and stays silent; nobody waits for ever."""
    with pytest.raises(StoreUnavailable, match="timeout"):
        ask(RedisClient(connector(silent, "verify")))


def test_what_was_answered_a_moment_ago_is_a_ping() -> None:
    """A login need not ask again whether the store is there; but only a moment long."""
    with RedisServer() as server:
        door = RedisClient(connector(server.url, "verify"))
        # A machine that is busy may make a moment of nothing, but hardly three times.
        assert any(is_pinged_after_its_answer(door, server) for _ in range(3))
        time.sleep(2 * A_MOMENT)
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match="timeout"):
            door.ping()
        server.process.send_signal(signal.SIGCONT)


def is_pinged_after_its_answer(door: RedisClient, server: RedisServer) -> bool:
    door.read("k")
    server.process.send_signal(signal.SIGSTOP)
    try:
        door.ping()
    except StoreUnavailable:
        return False
    finally:
        server.process.send_signal(signal.SIGCONT)
    return True


def test_the_cause_holds_no_password() -> None:
    """Neither the error nor what led to it shows the URL."""
    door = RedisClient(connector(f"redis://user:planted-password@127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable) as caught:
        door.health()
    assert caught.value.__context__ is None
    assert "planted" not in repr(caught.value)


@pytest.mark.parametrize("login", [":wrong@", ""], ids=["wrong", "none"])
@pytest.mark.parametrize("form", ["redis://{}/0", "redis+cluster://{}"])
def test_a_wrong_password_is_named(form: str, login: str) -> None:
    """The operator reads noauth, not a riddle."""
    with RedisServer("--requirepass", "right") as server:
        door = RedisClient(connector(form.format(f"{login}127.0.0.1:{server.port}"), "verify"))
        with pytest.raises(StoreUnavailable, match="noauth"):
            door.health()


@pytest.mark.parametrize("login", [":wrong@", ""], ids=["wrong", "none"])
def test_a_wrong_password_of_sentinels_is_named(login: str) -> None:
    """They ask for it before anybody hears where the primary is."""
    with Node(password="right") as primary, SentinelNode(primary, 1, "right") as sentinel:
        door = RedisClient(connector(f"redis+sentinel://{login}{sentinel.place}/{SERVICE}/0", "verify"))
        with pytest.raises(StoreUnavailable, match="noauth"):
            door.health()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_each_node_of_a_cluster_is_looked_at(cluster_set: ClusterSet, place: int) -> None:
    """One that may throw sessions away is enough."""
    door = RedisClient(connector(cluster_set.url, "verify"))
    assert door.health() == "ok"
    with cluster_set.primaries()[place].option("maxmemory-policy", "allkeys-lru"):
        assert door.health() == "evicting"


def test_whoever_is_refused_by_a_breaker_has_the_node_looked_for(cluster_set: ClusterSet) -> None:
    """A replica may have taken its place, which the next probe would learn half a second later."""
    door = RedisClient(connector(cluster_set.url, "verify"))
    _, breaker = door.nodes.place("k")
    while not breaker.is_open:
        breaker.failed("timeout")
    manager = door.nodes._connected().nodes_manager  # type: ignore[union-attr]
    looked = manager._epoch
    with pytest.raises(StoreUnavailable, match="timeout"):
        door.read("k")
    wait_until(lambda: manager._epoch > looked, "it has looked around")


def test_a_probe_may_be_tried_again_like_any_other() -> None:
    """It may meet a connection that has been lost, and the breaker lets no second one through for a while."""
    with RedisServer() as server:
        door = RedisClient(connector(server.url, "verify"))
        _, breaker = door.nodes.place("k")
        while not breaker.is_open:
            breaker.failed("timeout")
        time.sleep(PROBE_INTERVAL)
        tries = iter([redis.ConnectionError(), None])

        def conversation(wire: Wire) -> list[object]:
            failure = next(tries)
            if failure:
                raise failure
            return wire.ask(("PING",))

        assert door._talk("k", conversation) == [b"PONG"]
        assert not breaker.is_open


def test_an_answer_closes_the_breaker_whatever_is_made_of_it() -> None:
    """A login that is refused, or that no replica confirms, has been answered all the same."""
    with RedisServer() as server:
        door = RedisClient(connector(server.url, "verify"), wait_replicas=1)
        _, breaker = door.nodes.place("k")
        while not breaker.is_open:
            breaker.failed("timeout")
        time.sleep(PROBE_INTERVAL)
        with pytest.raises(StoreUnavailable, match="not_replicated"):
            door.ensure_replicas("k")
        assert not breaker.is_open


def test_nodes_of_a_cluster_that_are_silent() -> None:
    """Nobody is held longer by all of them than by two."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        hosts = ",".join(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        door = RedisClient(connector(f"redis+cluster://{hosts}", "verify"))
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timeout"):
            door.read("k")
        # Each of the six alone would take 250 ms.
        assert time.monotonic() - start < 5 * 0.25


def test_a_cluster_is_found_by_any_of_its_nodes(cluster_set: ClusterSet) -> None:
    """Though the first that is named is silent, and the second not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{free_port()}"
        url = (
            cluster_set.url.replace("@", f"@{dead},")
            if "@" in cluster_set.url
            else cluster_set.url.replace("://", f"://{dead},")
        )
        assert RedisClient(connector(url, "verify")).health() == "ok"


def test_a_cluster_that_is_well_in_part_can_be_asked(cluster_set: ClusterSet) -> None:
    """The word is what ails the rest; once none of them takes a session, it is an outage."""
    door = RedisClient(connector(cluster_set.url, "verify"))
    with ExitStack() as ill:
        for node in cluster_set.primaries():
            ill.enter_context(node.option("min-replicas-to-write", "9"))
            assert node is cluster_set.primaries()[-1] or door.health() == "too_few_replicas"
        with pytest.raises(StoreUnavailable, match="too_few_replicas"):
            door.health()


def test_a_full_redis_reads_but_does_not_write() -> None:
    """OOM is the store's matter for a write; a read goes on."""
    with RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        door = RedisClient(connector(server.url, "verify"))
        assert door.read("k") is None
        with pytest.raises(StoreUnavailable, match="oom"):
            door.transact(["k"], lambda _: [("SET", "k", "v", "EX", 1)])


def test_a_plan_is_made_anew_when_what_it_read_has_changed(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """The commands that are carried out are those of the last plan."""
    seen: list[dict[bytes, bytes]] = []

    def plan(reader: Reader) -> list[Command]:
        seen.append(reader.fields("h"))
        if len(seen) == 1:
            raw_redis.hset("h", "field", "changed")
        return [("SET", "plans", len(seen))]

    redis_client.transact(["h"], plan)
    assert seen == [{}, {b"field": b"changed"}]
    assert raw_redis.get("plans") == b"2"


def test_a_plan_that_raises_changes_nothing(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """What it raises comes out as it is, and the connection is fit for the next."""

    def plan(reader: Reader) -> list[Command]:
        raise KeyError("refused")

    with pytest.raises(KeyError):
        redis_client.transact(["h"], plan)
    redis_client.transact(["k"], lambda _: [("SET", "k", "v")])
    assert raw_redis.get("k") == b"v"


def test_contention_without_end_is_given_up(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """A plan whose ground never holds still ends in StoreUnavailable, not in a loop."""

    def plan(reader: Reader) -> list[Command]:
        reader.present(["h"])
        raw_redis.incr("h")
        return [("DEL", "other")]

    with pytest.raises(StoreUnavailable, match="contention"):
        redis_client.transact(["h"], plan)


def test_expire_brings_nothing_back(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """False says that there was nothing to prolong."""
    assert redis_client.expire("absent", 10) is False
    assert not raw_redis.exists("absent")


def test_a_count_is_not_sent_twice(redis_server: RedisServer) -> None:
    """It may have been counted before the connection was lost."""
    with Relay(redis_server.port) as relay:
        door = RedisClient(connector(relay.url, "verify"))
        assert door.count("counted", 10, 1) == 1
        relay.odds = {"cut": 1}
        with pytest.raises(StoreUnavailable):
            door.count("counted", 10, 1)
        relay.odds = {}
        assert door.count("counted", 10, 1) == 3


def test_a_counter_that_is_none_is_no_answer(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """What lies there is somebody else's, and that is said; it is no crash."""
    raw_redis.set("taken", "words", ex=10)
    with pytest.raises(StoreUnavailable):
        redis_client.count("taken", 10, 1)


def test_a_claim_is_one_owners_until_its_end(redis_client: RedisClient, clock: Clock) -> None:
    """Nobody else gets it meanwhile; then whoever comes first."""
    assert [redis_client.claim("k", owner, 5) for owner in ("me", "you", "me")] == [True, False, True]
    clock.advance(6)
    assert [redis_client.claim("k", owner, 5) for owner in ("you", "me")] == [True, False]


def test_a_claim_is_not_prolonged_by_saying_it_again(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """It was said again because the answer was lost, if anything."""
    redis_client.claim("k", "me", 5)
    redis_client.claim("k", "me", 500)
    assert 0 < int(raw_redis.pttl("k")) <= 5000


def test_a_value_is_set_with_its_end(redis_client: RedisClient, raw_redis: redis.Redis) -> None:
    """There is no other way to set one."""
    redis_client.set("k", 5, b"value")
    assert (raw_redis.get("k"), 0 < int(raw_redis.ttl("k")) <= 5) == (b"value", True)
