"""What the tests share: a clock that can be moved, a store over a fake and over a real Redis, a phone."""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from redis.cluster import RedisCluster
from werkzeug.test import TestResponse

from tests.faults.support.clusters import ClusterSet
from tests.faults.support.topologies import SentinelSet
from tests.support.acl import grant, restricted_url
from tests.support.servers import PACKAGED, RedisServer, wait_until
from wxauth.clock import Clock
from wxauth.keys import KeyRing
from wxauth.logs import JSONFormatter
from wxauth.models import Identity, Secret, User
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.store import SessionPolicy, SessionStore
from wxauth.settings import Settings
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector
from wxauth.web.app import create_app
from wxauth.web.services import wechat_client
from wxauth.wechat.transport import Transport

APPID = "wx0123456789abcdef"
APP_SECRET = "app-secret-that-nobody-may-see"
RING_KEY = "ring-key-that-nobody-may-see-0001"
ALICE = User(APPID, "oALICE-0123456789_abcdefghij")
SESSION_KEY = "tiihtNczf5v6AKRyjwEUhQ=="
#: Seconds. A machine that has just started many servers may exceed the default, WXAUTH_REDIS_TIMEOUT.
BUSY_TIMEOUT = 2.0


class Phone:
    """A user's phone: it logs in, keeps the token, and sends it along."""

    def __init__(self, client: FlaskClient, wechat: FakeWeChat, user: str = "alice") -> None:
        self.client = client
        self.wechat = wechat
        self.user = user
        self.token = ""

    def try_to_log_in(self, outcome: str | None = None, **more: Any) -> TestResponse:
        code = self.wechat.wx_login(self.user, outcome)
        return self.client.post("/login", json={"code": code, **more}, headers=self.headers)

    def log_in(self, **more: Any) -> Phone:
        response = self.try_to_log_in(**more)
        assert response.status_code == 200, response.text
        self.token = response.get_json()["token"]
        return self

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def get(self, path: str) -> TestResponse:
        return self.client.get(path, headers=self.headers)

    def post(self, path: str, body: Any = None) -> TestResponse:
        return self.client.post(path, json=body, headers=self.headers)

    def delete(self, path: str) -> TestResponse:
        return self.client.delete(path, headers=self.headers)


def worker(settings: Settings, store: SessionStore | None, wechat: FakeWeChat, **more: Any) -> FlaskClient:
    """Return a client of a new application, with `more` settings."""
    changed = dataclasses.replace(settings, **more)
    client = wechat_client(changed, Transport(changed.wechat_url, wechat))
    return create_app(changed, wechat=client, store=store).test_client()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_set() -> Iterator[SentinelSet]:
    with SentinelSet() as servers:
        yield servers


@pytest.fixture(scope="session")
def cluster_set() -> Iterator[ClusterSet]:
    with ClusterSet() as servers:
        yield servers


@pytest.fixture(scope="session")
def old_redis_server() -> Iterator[RedisServer]:
    with RedisServer(server="redis-server-6.2") as server:
        yield server


@pytest.fixture(scope="session")
def new_redis_server() -> Iterator[RedisServer]:
    with RedisServer(server="redis-server-8.2") as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    with RedisServer(server="valkey-server") as server:
        yield server


@pytest.fixture(scope="session")
def valkey_sentinel_set() -> Iterator[SentinelSet]:
    with SentinelSet(server="valkey-server") as servers:
        yield servers


@pytest.fixture(scope="session")
def valkey_cluster_set() -> Iterator[ClusterSet]:
    with ClusterSet(server="valkey-server") as servers:
        yield servers


PACKAGED_KINDS = {
    "redis-server-6.2": "old_redis_server",
    "redis-server-8.2": "new_redis_server",
    "valkey-server": "valkey_server",
}
#: Each kind of Redis by the fixture that starts it; what has no fixture is a fake.
KINDS = {
    "fakeredis": "",
    "redis-server": "redis_server",
    "sentinel": "sentinel_set",
    "cluster": "cluster_set",
    **{kind: fixture for kind, fixture in PACKAGED_KINDS.items() if kind in PACKAGED},
    "valkey-sentinel": "valkey_sentinel_set",
    "valkey-cluster": "valkey_cluster_set",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever stands on a Redis runs with the fake and with a real one; a module may name its own `kinds`."""
    if "raw_redis" in metafunc.fixturenames:
        kinds = getattr(metafunc.module, "kinds", ("fakeredis", "redis-server"))
        metafunc.parametrize("raw_redis", kinds, indirect=True)


@pytest.fixture
def raw_redis(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """An empty Redis of the kind that is asked for; a cluster's client has the same commands.

    This client may do everything. That of the store is a user with the documented rights.
    """
    fixture = KINDS[request.param]
    if not fixture:
        yield fakeredis.FakeRedis(protocol=2)
        return
    client: Any = connector(request.getfixturevalue(fixture).url, "verify", timeout=BUSY_TIMEOUT)()
    if isinstance(client, RedisCluster):
        # redis-py would ask one node alone.
        client.keys = functools.partial(client.keys, target_nodes=RedisCluster.PRIMARIES)  # type: ignore[method-assign]
    wait_until(lambda: is_emptied(client), "an empty Redis")
    yield client
    client.close()
    if not isinstance(client, RedisCluster):
        # redis-py leaves a pool that it was given as it is.
        client.connection_pool.disconnect()


def is_emptied(client: Any) -> bool:
    try:
        client.flushall()
    except redis.RedisError:
        return False
    return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start_of_a_window(clock: Clock) -> None:
    """Begin with new windows of the limits, so that none ends within a test."""
    clock.advance(300 - clock() % 300)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([Secret(RING_KEY)])


@pytest.fixture
def policy() -> SessionPolicy:
    return SessionPolicy(idle_ttl=604800, max_ttl=2592000, max_sessions=3)


@pytest.fixture
def redis_client(request: pytest.FixtureRequest, raw_redis: redis.Redis) -> RedisClient:
    fixture = KINDS[request.node.callspec.params["raw_redis"]]
    if not fixture:
        return RedisClient(lambda: raw_redis)
    server: Any = request.getfixturevalue(fixture)
    for node in getattr(server, "nodes", [server]):
        with node.client() as admin:
            grant(admin)
    return RedisClient(connector(restricted_url(server.url), "verify", timeout=BUSY_TIMEOUT))


@pytest.fixture
def store(redis_client: RedisClient, ring: KeyRing, policy: SessionPolicy, clock: Clock) -> SessionStore:
    return SessionStore(redis_client, ring, policy, clock)


@pytest.fixture
def codes(redis_client: RedisClient, store: SessionStore, ring: KeyRing) -> DeviceCodes:
    return DeviceCodes(redis_client, ring, store)


@pytest.fixture
def alice() -> Identity:
    return Identity(ALICE, Secret(SESSION_KEY), "uALICE-0123456789_abcdefghij")


@pytest.fixture
def settings() -> Settings:
    """Without the cache: it listens in a thread of its own, which outlives a test."""
    return Settings({APPID: Secret(APP_SECRET)}, (Secret(RING_KEY),), Secret("redis://127.0.0.1:1/0"), cache_size=0)


@pytest.fixture
def wechat(settings: Settings) -> FakeWeChat:
    return FakeWeChat(settings.apps)


@pytest.fixture
def app(settings: Settings, wechat: FakeWeChat, store: SessionStore) -> Flask:
    """The service over the fake WeChat and a store; whoever asks for it runs with both kinds of Redis."""
    return worker(settings, store, wechat).application


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """What is logged, in the form that the service gives it."""
    caplog.set_level(logging.INFO)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)
