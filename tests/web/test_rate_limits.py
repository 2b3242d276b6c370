"""The limits: which requests are counted together, where, and what is answered beyond them."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.conftest import APPID
from tests.support.clients import basic, problem, settings_with_clients
from tests.support.servers import RedisServer, free_port, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector
from wxauth.web.app import create_app
from wxauth.web.rate_limits import RateLimits
from wxauth.web.services import session_store, wechat_client
from wxauth.wechat.transport import Transport

Worker = Callable[..., FlaskClient]


@pytest.fixture
def worker(raw_redis: redis.Redis) -> Worker:
    """Return a function that makes workers: each has its own application, all share one Redis."""

    def make(**more: Any) -> FlaskClient:
        settings = dataclasses.replace(settings_with_clients(), **{"login_rate": "2/minute", **more})
        wechat = wechat_client(settings, Transport(settings.wechat_url, FakeWeChat(settings.apps)))
        store = session_store(settings, RedisClient(lambda: raw_redis))
        return create_app(settings, wechat=wechat, store=store).test_client()

    return make


@pytest.fixture(scope="module")
def without_redis() -> FlaskClient:
    """A worker behind a proxy. Its Redis is down."""
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


def test_login_beyond_the_limit_returns_429_with_the_wait(worker: Worker) -> None:
    """The headers are those of the IETF draft."""
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


def test_log_contains_no_address(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at DEBUG, and not even the refused address."""
    caplog.set_level(logging.DEBUG)
    assert statuses(worker(), *["192.0.2.1"] * 3) == [200, 200, 429]
    assert "rate_limited" in {getattr(record, "problem", None) for record in caplog.records}
    assert [record for record in caplog.records if "192.0.2" in f"{vars(record)}"] == []


def test_log_contains_no_address_while_redis_is_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = dataclasses.replace(settings_with_clients(free_port()), login_rate="1/minute")
    assert statuses(create_app(settings).test_client(), *["192.0.2.1"] * 2) == [503, 429]
    assert "192.0.2" not in caplog.text


def test_login_within_the_limit_has_no_limit_headers(worker: Worker) -> None:
    names = {name.lower() for name in log_in(worker()).headers.keys()}  # noqa: SIM118 - these are no dictionary
    assert not {name for name in names if "ratelimit" in name or name == "retry-after"}


def test_each_address_has_its_own_limit(worker: Worker) -> None:
    client = worker()
    assert statuses(client, *["192.0.2.1"] * 3, "192.0.2.2") == [200, 200, 429, 200]


def test_refused_login_counts_too(worker: Worker) -> None:
    """The limit is there to stop guesses."""
    client = worker()
    for _ in range(2):
        assert client.post("/login", json={"code": "guess", "appid": APPID}).status_code == 400
    assert client.post("/login", json={"code": "guess", "appid": APPID}).status_code == 429


def test_ipv6_addresses_of_one_64_count_together(worker: Worker) -> None:
    """One caller can use all addresses of its /64."""
    client = worker()
    addresses = ["2001:db8::1", "2001:db8:0:0:ffff::2", "2001:DB8::3", "2001:db8:0:1::1"]
    assert statuses(client, *addresses) == [200, 200, 429, 200]


def test_ipv4_mapped_address_counts_as_its_ipv4_address(worker: Worker) -> None:
    """All IPv4-mapped addresses are in one /64."""
    client = worker()
    assert statuses(client, "::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2") == [
        200,
        200,
        429,
        200,
    ]


def test_x_forwarded_for_is_ignored_without_trusted_proxies(worker: Worker) -> None:
    """Any caller can write that header."""
    assert behind_a_proxy(worker(), "192.0.2.1", "192.0.2.2", "192.0.2.3") == [200, 200, 429]


def test_last_forwarded_address_counts_behind_one_proxy(worker: Worker) -> None:
    """The proxy wrote the last entry, the caller can write those before it."""
    client = worker(trusted_proxies=1)
    assert behind_a_proxy(client, "192.0.2.1", "9.9.9.9, 192.0.2.1", "8.8.8.8,192.0.2.1") == [200, 200, 429]
    assert behind_a_proxy(client, "192.0.2.2") == [200]


def test_second_last_forwarded_address_counts_behind_two_proxies(worker: Worker) -> None:
    """The last entry is the outer proxy's address."""
    client = worker(trusted_proxies=2)
    texts = ["9.9.9.9, 192.0.2.1, 10.0.0.1", "8.8.8.8, 192.0.2.1, 10.0.0.2", "192.0.2.1, 10.0.0.1"]
    assert behind_a_proxy(client, *texts, "192.0.2.2, 10.0.0.1") == [200, 200, 429, 200]


@pytest.mark.parametrize("form", ["192.0.2.1:{}", "[2001:db8::1]:{}"])
def test_port_is_not_part_of_the_forwarded_address(worker: Worker, form: str) -> None:
    """Every connection has another port."""
    assert behind_a_proxy(worker(trusted_proxies=1), *(form.format(port) for port in (1, 2, 3))) == [200, 200, 429]


@hypothesis_settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=255)) | st.from_regex(r"\A[0-9a-f:.%\[\]]{1,40}\Z"))
def test_no_form_of_address_is_a_500(without_redis: FlaskClient, text: str) -> None:
    """RFC 7239 lets proxies write `unknown` and `_hidden` too."""
    assert log_in(without_redis, "127.0.0.1", text).status_code == 503


def test_unreadable_addresses_count_as_one_address(worker: Worker) -> None:
    """They are counted in Redis too: two workers share the count."""
    one, two = worker(trusted_proxies=1), worker(trusted_proxies=1)
    assert behind_a_proxy(one, "unknown", "unknown") + behind_a_proxy(two, "unknown") == [200, 200, 429]


def test_two_workers_share_the_count(worker: Worker) -> None:
    one, two = worker(), worker()
    assert statuses(one, "192.0.2.1") + statuses(two, *["192.0.2.1"] * 2) + statuses(one, "192.0.2.1") == [
        200,
        200,
        429,
        429,
    ]


def test_redis_holds_no_address_and_every_counter_expires(worker: Worker, raw_redis: redis.Redis) -> None:
    statuses(worker(), "192.0.2.1", "2001:db8::1")
    keys: Any = raw_redis.keys("wxa:l:*")
    assert len(keys) == 2
    for key in keys:
        assert not [part for part in (b"192", b"2001", b"db8") if part in key]
        assert raw_redis.get(key) == b"1"
        assert 0 < int(raw_redis.ttl(key)) <= 60


def test_names_of_counters_depend_on_the_secret_key(worker: Worker, raw_redis: redis.Redis) -> None:
    """A plain hash of an address can be reversed by brute force."""
    settings = settings_with_clients()
    other = (type(settings.secret_keys[0])("another-ring-key-of-32-characters"),)
    for keys in (settings.secret_keys, other):
        statuses(worker(secret_keys=keys), "192.0.2.1")
    counters: Any = raw_redis.keys("wxa:l:*")
    assert len(counters) == 2


def test_logins_are_counted_in_memory_while_redis_is_down() -> None:
    """Within the limit the answer is the 503 of the outage, beyond it 429."""
    settings = dataclasses.replace(settings_with_clients(free_port()), login_rate="2/minute")
    assert statuses(create_app(settings).test_client(), *["192.0.2.1"] * 3) == [503, 503, 429]


class CountingRedis(RedisClient):
    """Counts the calls of the limits."""

    calls = 0

    def count(self, key: str, seconds: int, amount: int = 1) -> int:
        self.calls += 1
        return super().count(key, seconds, amount)

    def read(self, key: str) -> bytes | None:
        self.calls += 1
        return super().read(key)


@pytest.fixture
def request_context() -> Iterator[None]:
    with Flask("shop").test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        yield


@pytest.mark.usefixtures("request_context")
def test_check_login_costs_one_call_of_redis(raw_redis: redis.Redis) -> None:
    client = CountingRedis(lambda: raw_redis)
    RateLimits(settings_with_clients(), client).check_login()
    assert client.calls == 1


@pytest.mark.usefixtures("request_context")
def test_check_login_asks_redis_once_in_an_outage() -> None:
    """The request has waited for the timeout already."""
    client = CountingRedis(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable):
        RateLimits(settings_with_clients(), client).check_login()
    assert client.calls == 1


@pytest.mark.usefixtures("request_context")
def test_check_client_passes_in_an_outage() -> None:
    """A check may be answered from the cache."""
    client = CountingRedis(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    RateLimits(settings_with_clients(), client).check_client()
    assert client.calls == 1


def test_logins_are_counted_in_redis_again_after_an_outage() -> None:
    with RedisServer() as server:
        settings = dataclasses.replace(settings_with_clients(server.port), login_rate="100/minute")
        one = create_app(settings).test_client()
        server.stop()
        assert statuses(one, "192.0.2.1") == [503]
        server.start()
        wait_until(server.answers, "Redis")
        with server.client() as client:
            wait_until(lambda: log_in(one).status_code > 0 and bool(client.keys("wxa:l:*")), "a count in Redis")


def test_backends_are_limited_by_address_for_each_route(worker: Worker) -> None:
    """The limit comes before the credential, because it is there to stop guesses."""
    client = worker(client_rate="2/minute")
    headers = {"Authorization": basic(secret="guess")}
    assert [client.post("/introspect", headers=headers).status_code for _ in range(3)] == [401, 401, 429]
    response = client.post("/introspect", data={"token": "a"}, headers={"Authorization": basic()})
    assert problem(response) == (429, "rate_limited")
    assert client.get(f"/users/{APPID}/o/sessions", headers={"Authorization": basic()}).status_code == 200


def test_checks_are_not_limited(worker: Worker) -> None:
    """All checks of the operator's proxy come from one address."""
    client = worker(login_rate="1/hour", client_rate="1/hour")
    assert {client.get(path).status_code for path in ["/verify", "/session", "/healthz"] * 5} == {401, 200}


def test_rate_limits_start_no_thread_before_redis_fails() -> None:
    """uWSGI forks after it has loaded the service. A thread that runs at the fork makes it hang at SIGTERM."""
    before = set(threading.enumerate())
    limits = RateLimits(settings_with_clients(), RedisClient(connector("redis://127.0.0.1:1/0", "verify")))
    limits.reset()
    assert set(threading.enumerate()) <= before


def test_reset_leaves_a_lock_that_was_held_behind() -> None:
    """As in a forked process, where the thread that held the lock does not exist."""
    settings = settings_with_clients(free_port())
    limits = RateLimits(settings, RedisClient(connector(settings.redis_url.reveal(), "verify")))
    held = limits._memory
    limits.reset()
    assert limits._memory is not held
