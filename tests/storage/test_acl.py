"""The rights of the Redis user: enough for everything that the service does, and not more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from flask.testing import FlaskClient

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.faults.support.clusters import ClusterSet
from tests.faults.support.topologies import SERVICE, Node, SentinelNode
from tests.support.acl import grant, restricted_url
from tests.support.servers import PACKAGED, RedisServer, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.keys import KeyRing
from wxauth.models import Secret
from wxauth.sessions.revocations import RevocationListener
from wxauth.sessions.store import SessionPolicy, SessionStore
from wxauth.settings import Settings
from wxauth.storage.acl import CLUSTER_COMMANDS, COMMANDS, MORE_COMMANDS, PROBE_SCRIPT, SENTINEL_RIGHTS
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector
from wxauth.storage.reasons import HINTS
from wxauth.web.app import create_app

#: Commands that would harm the data, the server or its other users. Each stands for itself or for its category.
REFUSED = [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "RANDOMKEY",
    "SWAPDB 0 1",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION FLUSH",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "ACL LIST",
    "ACL WHOAMI",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "SAVE",
    "BGREWRITEAOF",
    "MODULE LIST",
    "LATENCY RESET",
    "SLOWLOG GET",
    "MIGRATE 127.0.0.1 1 wxa:k 0 1",
    "RESTORE wxa:k 0 x",
    "DUMP wxa:k",
    "RENAME wxa:k wxa:l",
    "SORT wxa:k",
    "PSUBSCRIBE wxa:*",
    "PUBSUB CHANNELS",
    "CLUSTER RESET",
    "CLUSTER FORGET x",
    "CLUSTER FAILOVER",
    "CLUSTER ADDSLOTS 1",
]
#: What Redis says in a script. An old Redis has no FUNCTION.
NO_RIGHT = "no permissions|The user executing the script can't|ACL failure in script|No permissions|unknown command"
#: Allowed commands, with another application's keys and channels.
OTHERS = [
    "GET other",
    "SET other 1",
    "DEL other wxa:k",
    "HGETALL other",
    "SET wxb:k 1",
    "PUBLISH other x",
    "PUBLISH wxa:other x",
    "SUBSCRIBE other",
    "SUBSCRIBE wxa:revoked other",
    "EVAL return(1) 1 other",
]


@pytest.fixture(scope="module", params=["redis-server", *PACKAGED])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(server=request.param) as running:
        yield running


@pytest.fixture
def user(server: RedisServer) -> redis.Redis:
    with server.client() as admin:
        grant(admin)
    return redis.Redis.from_url(restricted_url(server.url), protocol=2, driver_info=None)


def health(url: str, wait_replicas: int = 0) -> str:
    """What /readyz and doctor see, with a client that has just started."""
    try:
        return RedisClient(connector(restricted_url(url), "verify"), wait_replicas).health()
    except StoreUnavailable as error:
        return error.reason


@pytest.mark.parametrize("command", [*REFUSED, *OTHERS])
def test_user_with_the_documented_rights_is_refused(user: redis.Redis, command: str) -> None:
    with pytest.raises(redis.ResponseError, match=NO_RIGHT):
        user.execute_command(*command.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("call", ["'FLUSHALL'", "'KEYS', '*'", "'GET', 'other'"])
def test_script_of_the_user_is_refused(user: redis.Redis, call: str) -> None:
    with pytest.raises(redis.ResponseError, match=NO_RIGHT):
        user.eval(f"return redis.call({call})", 0)


@pytest.mark.parametrize("names", ["resetkeys", "resetkeys ~wxa:l:*", "resetchannels", "resetchannels &other"])
def test_missing_key_or_channel_gives_noperm(server: RedisServer, names: str) -> None:
    with server.client() as admin:
        grant(admin, *names.split())
    assert health(server.url) == "noperm"


@pytest.mark.parametrize("command", CLUSTER_COMMANDS.split())
def test_missing_right_in_a_cluster_gives_noperm(cluster_set: ClusterSet, command: str) -> None:
    for node in cluster_set.nodes:
        grant(node.client(), without=command)
    assert health(cluster_set.url) == "noperm"


def test_right_that_one_node_of_a_cluster_lacks_gives_noperm(cluster_set: ClusterSet) -> None:
    for node in cluster_set.nodes:
        grant(node.client())
    assert health(cluster_set.url) == "ok"
    grant(cluster_set.primaries()[-1].client(), without="publish")
    assert health(cluster_set.url) == "noperm"


def test_missing_select_matters_for_another_database_only(server: RedisServer) -> None:
    with server.client() as admin:
        grant(admin, without="select")
    assert [health(server.url), health(server.url.replace("/0", "/1"))] == ["ok", "noperm"]


def test_missing_wait_matters_with_wait_replicas_only(server: RedisServer) -> None:
    with server.client() as admin:
        grant(admin, without="wait")
    assert [health(server.url), health(server.url, wait_replicas=1)] == ["ok", "noperm"]


def test_missing_info_leaves_health_ok(server: RedisServer) -> None:
    """Some hosts forbid INFO. Doctor then skips the version, the policy and the persistence."""
    with server.client() as admin:
        grant(admin, without="info")
    assert health(server.url) == "ok"


def test_missing_scan_matters_for_prune_only(server: RedisServer, ring: KeyRing, policy: SessionPolicy) -> None:
    with server.client() as admin:
        grant(admin, without="scan")
    assert health(server.url) == "ok"
    store = SessionStore(RedisClient(connector(restricted_url(server.url), "verify")), ring, policy)
    with pytest.raises(StoreUnavailable, match="noperm"):
        list(store.orphans())


def test_every_right_is_tested_here() -> None:
    """A new command needs a line in the probe, or a test that shows when it matters."""
    assert MORE_COMMANDS.split() == ["info", "scan", "select", "wait"]
    sent = {"eval", "evalsha", "ping", "subscribe"}
    tried = {line.split("'")[1].lower() for line in PROBE_SCRIPT.splitlines() if line.startswith("redis.call")}
    assert sent | tried == set(COMMANDS.split())


@pytest.fixture
def client(server: RedisServer) -> FlaskClient:
    """The service, as the restricted user."""
    url = Secret(restricted_url(server.url))
    settings = Settings({APPID: Secret(APP_SECRET)}, (Secret(RING_KEY),), url, cache_size=0)
    return create_app(settings).test_client()


def test_readyz_is_ok_with_the_documented_rights(server: RedisServer, client: FlaskClient) -> None:
    with server.client() as admin:
        grant(admin)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["redis"]) == (200, "ok")


@pytest.mark.parametrize("command", COMMANDS.split())
def test_missing_right_makes_readyz_503_and_the_log_has_the_hint(
    server: RedisServer, client: FlaskClient, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    with server.client() as admin:
        grant(admin, without=command)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["redis"]) == (503, "noperm")
    hints = [vars(record)["hint"] for record in caplog.records if record.message == "redis_not_ready"]
    assert hints == [HINTS["noperm"]]


def test_right_that_is_taken_away_makes_a_running_service_unready(server: RedisServer, client: FlaskClient) -> None:
    with server.client() as admin:
        grant(admin)
        assert client.get("/readyz").status_code == 200
        grant(admin, without="hget")
    assert client.get("/readyz").status_code == 503


class Ears:
    """A subscriber that counts nothing."""

    def on_revoked(self, ids: list[str]) -> None: ...

    def clear(self) -> None: ...


def hears(url: str) -> bool:
    """Whether the revocation channel is alive within 15 s."""
    listener, ears = RevocationListener(RedisClient(connector(restricted_url(url), "verify"))), Ears()
    listener.start(ears)
    wait_until(lambda: listener.last_heartbeat > float("-inf"), "a heartbeat")
    return True


def test_revocation_channel_is_alive_with_the_documented_rights(server: RedisServer) -> None:
    with server.client() as admin:
        grant(admin)
    assert hears(server.url)


def test_revocation_channel_of_a_cluster_is_alive_with_the_documented_rights(cluster_set: ClusterSet) -> None:
    for node in cluster_set.nodes:
        grant(node.client())
    assert hears(cluster_set.url)


def test_probe_leaves_no_key_without_a_ttl(server: RedisServer) -> None:
    """Whatever it may do: it stops at the first command that is refused."""
    with server.client() as admin:
        admin.flushall()
        for command in COMMANDS.split():
            grant(admin, without=command)
            health(server.url)
            assert [key for key in admin.scan_iter() if admin.ttl(key) < 0] == []
        grant(admin)
        health(server.url)
        assert admin.keys() == []


def test_probe_needs_no_free_connection_and_leaves_no_subscription(server: RedisServer) -> None:
    with server.client() as admin:
        grant(admin)
        client = RedisClient(connector(restricted_url(server.url), "verify", 1))
        for _ in range(3):
            assert client.health() == "ok"
            assert client.read("wxa:k") is None
        assert admin.pubsub_numsub("wxa:revoked") == [(b"wxa:revoked", 0)]


def test_sentinel_user_needs_one_right() -> None:
    """The sentinels have users of their own."""
    with Node() as primary, SentinelNode(primary, 1, "") as sentinel:
        grant(primary.client())
        url = f"redis+sentinel://{sentinel.place}/{SERVICE}/0"
        sentinel.ask("ACL", "SETUSER", "restricted", "reset", "on", ">pw", *SENTINEL_RIGHTS.split())
        assert health(url) == "ok"
        sentinel.ask("ACL", "SETUSER", "restricted", "reset", "on", ">pw", "+ping")
        assert health(url) == "noperm"
