"""The limits: whose requests are counted together, where, and what is answered past them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.clients import basic, problem, settings_with_clients
from tests.conftest import APPID
from tests.servers import RedisServer, free_port, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector
from wxauth.web.app import create_app
from wxauth.web.extension import session_store, wechat_client
from wxauth.web.rate_limits import Counters
from wxauth.wechat.transport import Transport

Worker = Callable[..., FlaskClient]


@pytest.fixture
def worker(raw_redis: redis.Redis) -> Worker:
    """Makes a worker: each has its own application, all have one Redis."""

    def make(**more: Any) -> FlaskClient:
        settings = dataclasses.replace(settings_with_clients(), **{"login_rate": "2/minute", **more})
        wechat = wechat_client(settings, Transport(settings.wechat_url, FakeWeChat(settings.apps)))
        store = session_store(settings, RedisClient(lambda: raw_redis))
        return create_app(settings, wechat=wechat, store=store).test_client()

    return make


@pytest.fixture(scope="module")
def dark() -> FlaskClient:
    """A worker behind a proxy, with nobody where Redis should be."""
    settings = settings_with_clients(free_port())
    return create_app(dataclasses.replace(settings, trusted_proxies=1, login_rate="1000000/minute")).test_client()


def log_in(client: FlaskClient, address: str = "192.0.2.1", forwarded: str | None = None) -> TestResponse:
    return client.post(
        "/login",
        json={"code": "the code is a mock one", "appid": APPID},
        headers={"X-Forwarded-For": forwarded} if forwarded is not None else {},
        environ_overrides={"REMOTE_ADDR": address},
    )


def statuses(client: FlaskClient, *addresses: str) -> list[int]:
    return [log_in(client, address).status_code for address in addresses]


def behind_a_proxy(client: FlaskClient, *forwarded: str) -> list[int]:
    return [log_in(client, "127.0.0.1", text).status_code for text in forwarded]


def test_past_the_limit_an_address_has_to_wait(worker: Worker) -> None:
    """429, and how long; the headers are those of the IETF's draft."""
    client = worker()
    assert statuses(client, "192.0.2.1", "192.0.2.1") == [200, 200]
    response = log_in(client)
    assert problem(response) == (429, "rate_limited")
    assert response.get_json()["action"] == "retry"
    seconds = int(response.headers["Retry-After"])
    assert 1 <= seconds <= 62
    assert response.headers["RateLimit"] == f'"address";r=0;t={seconds}'
    assert response.headers["RateLimit-Policy"] == '"address";q=2;w=60'
    assert response.headers["Cache-Control"] == "no-store"


def test_the_log_names_no_address(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at DEBUG, and not even that of whoever is refused."""
    caplog.set_level(logging.DEBUG)
    assert statuses(worker(), *["192.0.2.1"] * 3) == [200, 200, 429]
    assert "rate_limited" in {getattr(record, "problem", None) for record in caplog.records}
    assert "192.0.2" not in caplog.text


def test_without_redis_the_log_names_no_address(caplog: pytest.LogCaptureFixture) -> None:
    """Nor where the limit is kept in memory."""
    caplog.set_level(logging.DEBUG)
    settings = dataclasses.replace(settings_with_clients(free_port()), login_rate="1/minute")
    assert statuses(create_app(settings).test_client(), *["192.0.2.1"] * 2) == [503, 429]
    assert "192.0.2" not in caplog.text


def test_within_the_limit_nothing_is_said_of_it(worker: Worker) -> None:
    """The headers come with 429 alone."""
    names = {name.lower() for name in log_in(worker()).headers.keys()}  # noqa: SIM118 - these are no dictionary
    assert not {name for name in names if "ratelimit" in name or name == "retry-after"}


def test_each_address_has_a_limit_of_its_own(worker: Worker) -> None:
    """One that is past its own hinders no other."""
    client = worker()
    assert statuses(client, *["192.0.2.1"] * 3, "192.0.2.2") == [200, 200, 429, 200]


def test_a_refused_login_counts_too(worker: Worker) -> None:
    """Whoever guesses is who the limit is for."""
    client = worker()
    for _ in range(2):
        assert client.post("/login", json={"code": "guess", "appid": APPID}).status_code == 400
    assert client.post("/login", json={"code": "guess", "appid": APPID}).status_code == 429


def test_ipv6_is_counted_by_the_64(worker: Worker) -> None:
    """One caller has so many addresses; the next /64 is somebody else."""
    client = worker()
    addresses = ["2001:db8::1", "2001:db8:0:0:ffff::2", "2001:DB8::3", "2001:db8:0:1::1"]
    assert statuses(client, *addresses) == [200, 200, 429, 200]


def test_ipv4_within_ipv6_is_ipv4(worker: Worker) -> None:
    """Else all of IPv4 would be one caller; and the two spellings are the same address."""
    client = worker()
    assert statuses(client, "::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2") == [
        200,
        200,
        429,
        200,
    ]


def test_without_a_trusted_proxy_nobody_is_believed(worker: Worker) -> None:
    """X-Forwarded-For is anybody's to write."""
    assert behind_a_proxy(worker(), "192.0.2.1", "192.0.2.2", "192.0.2.3") == [200, 200, 429]


def test_behind_one_proxy_its_word_counts_and_no_other(worker: Worker) -> None:
    """The last entry is the proxy's own; what stands before it is the caller's."""
    client = worker(trusted_proxies=1)
    assert behind_a_proxy(client, "192.0.2.1", "9.9.9.9, 192.0.2.1", "8.8.8.8,192.0.2.1") == [200, 200, 429]
    assert behind_a_proxy(client, "192.0.2.2") == [200]


def test_behind_two_proxies_the_one_before_the_last_counts(worker: Worker) -> None:
    """The last entry is then the outer proxy's address."""
    client = worker(trusted_proxies=2)
    texts = ["9.9.9.9, 192.0.2.1, 10.0.0.1", "8.8.8.8, 192.0.2.1, 10.0.0.2", "192.0.2.1, 10.0.0.1"]
    assert behind_a_proxy(client, *texts, "192.0.2.2, 10.0.0.1") == [200, 200, 429, 200]


@pytest.mark.parametrize("form", ["192.0.2.1:{}", "[2001:db8::1]:{}"])
def test_the_port_that_some_proxies_add_is_no_part_of_the_address(worker: Worker, form: str) -> None:
    """It is another for each connection."""
    assert behind_a_proxy(worker(trusted_proxies=1), *(form.format(port) for port in (1, 2, 3))) == [200, 200, 429]


@hypothesis_settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=255)) | st.from_regex(r"\A[0-9a-f:.%\[\]]{1,40}\Z"))
def test_no_form_of_address_is_a_500(dark: FlaskClient, text: str) -> None:
    """A proxy may write what it likes, `unknown` and `_hidden` among it."""
    assert log_in(dark, "127.0.0.1", text).status_code == 503


def test_an_address_nobody_can_read_is_counted_as_it_stands(worker: Worker) -> None:
    """And sends nobody's counting to memory: two workers still share it."""
    one, two = worker(trusted_proxies=1), worker(trusted_proxies=1)
    assert behind_a_proxy(one, "unknown", "unknown") + behind_a_proxy(two, "unknown") == [200, 200, 429]


def test_two_workers_count_together(worker: Worker) -> None:
    """In Redis, so that more workers are not more attempts."""
    one, two = worker(), worker()
    assert statuses(one, "192.0.2.1") + statuses(two, *["192.0.2.1"] * 2) + statuses(one, "192.0.2.1") == [
        200,
        200,
        429,
        429,
    ]


def test_redis_sees_no_address(worker: Worker, raw_redis: redis.Redis) -> None:
    """Neither in a name nor in a value, and every counter has an end."""
    statuses(worker(), "192.0.2.1", "2001:db8::1")
    keys: Any = raw_redis.keys("wxa:l:*")
    assert len(keys) == 2
    for key in keys:
        assert not [part for part in (b"192", b"2001", b"db8") if part in key]
        assert raw_redis.get(key) == b"1"
        assert 0 < int(raw_redis.ttl(key)) <= 60


def test_the_names_of_counters_need_our_key(worker: Worker, raw_redis: redis.Redis) -> None:
    """A plain hash of an address is found by trying them all."""
    settings = settings_with_clients()
    other = (type(settings.secret_keys[0])("another-ring-key-of-32-characters"),)
    for keys in (settings.secret_keys, other):
        statuses(worker(secret_keys=keys), "192.0.2.1")
    counters: Any = raw_redis.keys("wxa:l:*")
    assert len(counters) == 2


def test_without_redis_the_limit_is_kept_in_memory() -> None:
    """And nobody gets a 500: past the limit it is 429, within it the 503 that an outage is."""
    settings = dataclasses.replace(settings_with_clients(free_port()), login_rate="2/minute")
    assert statuses(create_app(settings).test_client(), *["192.0.2.1"] * 3) == [503, 503, 429]


class Asked(RedisClient):
    """Notes how often it was read."""

    reads = 0

    def read(self, key: str) -> tuple[bytes, float] | None:
        self.reads += 1
        return super().read(key)


def test_whoever_has_waited_for_a_count_waits_for_nothing_else() -> None:
    """Flask-Limiter asks at once whether the store is back, in the same request."""
    door = Asked(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    counters = Counters(None, door, b"key")
    with pytest.raises(StoreUnavailable):
        counters.incr("somebody", 60)
    assert (counters.check(), door.reads) == (False, 0)


def test_once_redis_is_back_it_counts_again() -> None:
    """Another worker then sees what this one has let through."""
    with RedisServer() as server:
        settings = dataclasses.replace(settings_with_clients(server.port), login_rate="100/minute")
        one = create_app(settings).test_client()
        server.stop()
        assert statuses(one, "192.0.2.1") == [503]
        server.start()
        wait_until(server.answers, "Redis")
        with server.client() as client:
            wait_until(lambda: log_in(one).status_code > 0 and bool(client.keys("wxa:l:*")), "a count in Redis")


def test_backends_are_limited_by_address_too(worker: Worker) -> None:
    """Route by route, before their credential is looked at: it is who guesses that is limited."""
    client = worker(client_rate="2/minute")
    headers = {"Authorization": basic(secret="guess")}
    assert [client.post("/introspect", headers=headers).status_code for _ in range(3)] == [401, 401, 429]
    response = client.post("/introspect", data={"token": "a"}, headers={"Authorization": basic()})
    assert problem(response) == (429, "rate_limited")
    assert client.get(f"/users/{APPID}/o/sessions", headers={"Authorization": basic()}).status_code == 200


def test_checks_are_not_limited(worker: Worker) -> None:
    """Behind the operator's proxy they all come from one address."""
    client = worker(login_rate="1/hour", client_rate="1/hour")
    assert {client.get(path).status_code for path in ["/verify", "/session", "/healthz"] * 5} == {401, 200}


def test_no_log_says_who_is_past_the_limit(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """Neither ours nor the library's, at any level that the service can be set to."""
    caplog.set_level("DEBUG")
    assert statuses(worker(), *["192.0.2.1"] * 3) == [200, 200, 429]
    assert [record for record in caplog.records if "192.0.2.1" in f"{vars(record)}"] == []
