"""Redis behind sentinels: the primary dies under load, and whoever was logged in or out stays so."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import requests

from tests.conftest import ALICE, RING_KEY, SESSION_KEY
from tests.faults.conftest import Progress, Run, cache_on_and_off
from tests.faults.support.driver import Load, milliseconds
from tests.faults.support.history import Call
from tests.faults.support.relay import Relay
from tests.faults.support.rig import (
    ObservedService,
    assert_workers_unchanged,
    assert_clean,
    assert_no_secrets,
    assert_limit,
    calls_begun,
    bounds_of,
    single_caller,
    first_success,
    slowest,
)
from tests.faults.support.topologies import SERVICE, Node, SentinelSet
from tests.servers import wait_until
from tests.service import WeChatServer
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret
from wxauth.sessions.cache import SessionCache
from wxauth.sessions.revocations import RevocationListener
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

PASSWORD = "password-of-redis-and-its-sentinels"
#: A primary that has lost all replicas takes no writes: nothing can be acknowledged that is then forgotten.
CAREFUL = ("--min-replicas-to-write", "1")


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


def first_login(calls: list[Call], since: float) -> float:
    """Seconds from `since` to the first write that was acknowledged."""
    ends = [call.end for call in calls if call.start >= since and call.passed and call.operation == "login"]
    return round(min(ends, default=float("inf")) - since, 3)


@cache_on_and_off
def test_the_primary_is_killed(run: Run, progress: Progress, wechat: WeChatServer, cache: str) -> None:
    """kill -9, again and again: soon after each promotion all goes on, and no logout is forgotten."""
    fault, times = f"sentinel: killed with -9, {cache} kept", run.of(1, 20)
    back: list[float] = []
    writing: list[float] = []
    dark_spans: list[tuple[float, float]] = []
    with (
        SentinelSet(*CAREFUL, password=PASSWORD) as redis,
        ObservedService(redis.url, wechat, WXAUTH_WAIT_REPLICAS="1", WXAUTH_CACHE_SIZE=cache) as service,
    ):
        load = Load(service.url, wechat, seed=run.seed, rate=300)
        load.log_in_all()
        service.settle()
        with load:
            for number in range(times):
                time.sleep(0.5)
                killed = redis.primary
                killed.kill()
                start = time.monotonic()
                promoted_at = redis.await_promotion()
                redis.rejoin(killed)
                redis.settle()
                time.sleep(1)
                back.append(first_success(load.calls, promoted_at))
                writing.append(first_login(load.calls, promoted_at))
                dark_spans.append((start, promoted_at))
                progress(f"{fault}: {number + 1} of {times}, {len(load.calls)} calls, back after {back[-1]} s")
        load.check_all()
        dark = [call for span in dark_spans for call in calls_begun(load.calls, *span)]
        assert_limit(run, fault, "first check that passes after promotion", max(back), 3, "s")
        assert_limit(run, fault, "first login after promotion", max(writing), 3, "s")
        assert_limit(run, fault, "slowest call in the dark", slowest(dark), 600)
        run.figure(fault, "p99 of the calls in the dark (ms)", milliseconds(dark, 99), "")
        assert_clean(run, fault, service, load.calls, bounds_of(cache))


@contextmanager
def lagging() -> Iterator[tuple[SentinelSet, list[Relay]]]:
    """A set whose replicas hear of the primary through relays."""
    with SentinelSet(password=PASSWORD) as redis, Relay(redis.primary.port) as one, Relay(redis.primary.port) as two:
        for node, relay in zip(redis.replicas, (one, two), strict=True):
            node.ask("REPLICAOF", "127.0.0.1", relay.port)
        wait_until(lambda: all(node.follows() for node in redis.replicas), "replicas in step")
        yield redis, [one, two]


def logout_that_no_replica_has(run: Run, fault: str, wechat: WeChatServer, wait: int) -> list[Call]:
    """What one caller hears of a logout while the replicas are cut off, and once one of them has taken over."""
    with (
        lagging() as (redis, relays),
        ObservedService(redis.url, wechat, WXAUTH_WAIT_REPLICAS=str(wait)) as service,
        single_caller(service, wechat, run.seed) as (caller, alice, calls),
    ):
        caller.log_in(alice)
        time.sleep(0.3)
        for relay in relays:
            relay.stalled = True
        caller.ask("logout", alice, alice.tokens[0])
        redis.primary.kill()
        for relay in relays:
            relay.cut()
            relay.stalled = False
        redis.await_promotion()
        wait_until(lambda: caller.ask("check", alice, alice.tokens[0]).status != 503, "an answer")
        if wait:
            assert_clean(run, fault, service, calls, witnesses=False)
        else:
            assert_workers_unchanged(run, fault, service)
            assert_no_secrets(run, fault, service, calls)
    return calls


@pytest.mark.parametrize("wait", [0, 1])
def test_a_logout_that_no_replica_has(run: Run, wechat: WeChatServer, wait: int) -> None:
    """With WXAUTH_WAIT_REPLICAS=1 it is not confirmed; without, it is, and is forgotten with the primary."""
    fault, times = f"sentinel: replicas cut off, wait {wait}", run.of(1, 5)
    confirmed = forgotten = 0
    for _ in range(times):
        calls = logout_that_no_replica_has(run, fault, wechat, wait)
        _, logout, *checks = calls
        confirmed += logout.passed
        forgotten += logout.passed and checks[-1].passed
    run.figure(fault, "logouts confirmed", f"{confirmed} of {times}", 0 if wait else times)
    if not wait:
        run.figure(fault, "logged-out tokens alive again", f"{forgotten} of {confirmed}", "observed")
    assert confirmed == (0 if wait else times)


def test_a_primary_that_hangs_is_left(run: Run, wechat: WeChatServer) -> None:
    """One that was stalled, replaced and goes on gets no more questions, though its connections still stand."""
    fault = "sentinel: primary stopped (SIGSTOP)"
    with SentinelSet(*CAREFUL) as redis, ObservedService(redis.url, wechat, WXAUTH_WAIT_REPLICAS="1") as service:
        load = Load(service.url, wechat, seed=run.seed, rate=300)
        load.log_in_all()
        with load:
            time.sleep(0.5)
            stalled = redis.primary
            stalled.stall()
            start = time.monotonic()
            promoted_at = redis.await_promotion()
            time.sleep(2)
            stalled.go_on()
            time.sleep(1)
        load.check_all()
        assert_limit(run, fault, "first check that passes after promotion", first_success(load.calls, promoted_at), 3, "s")
        calls = [call for call in load.calls if call.start >= start]
        assert_limit(run, fault, "slowest call", slowest(calls), 600)
        assert_clean(run, fault, service, load.calls)


@pytest.mark.parametrize("size", [100, 0], ids=["cache on", "cache off"])
def test_a_planned_failover(run: Run, size: int) -> None:
    """The old primary goes on answering for a while; a logout at the new one holds all the same."""
    with SentinelSet() as redis:
        old, warm = redis.primary, worker(redis.url, size)
        token = warm.store.create(Identity(ALICE, Secret(SESSION_KEY)))[0].reveal()
        wait_until(lambda: bool(warm.resolve(token)) and len(warm.cache._kept) == bool(size), "a warm worker")
        redis.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
        wait_until(lambda: not any(names(node, old) for node in redis.sentinels), "another primary")
        wait_until(lambda: logged_out(worker(redis.url, 0).store, token, old), "a logout at the new primary")
        start = time.monotonic()
        wait_until(lambda: not passes(warm, token), "a refusal")
        held = round(time.monotonic() - start, 2)
    assert_limit(run, f"sentinel: planned failover, {size} kept", "a revoked token passes for", held, 3, "s")
    assert held < 6


def names(sentinel: Node, primary: Node) -> bool:
    """Whether the sentinel takes that one for the primary."""
    _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
    return int(port) == primary.port


@dataclass(frozen=True)
class Worker:
    store: SessionStore
    cache: SessionCache

    def resolve(self, token: str) -> WxSession:
        return self.cache.resolve(token)


def worker(url: str, size: int) -> Worker:
    redis = RedisClient(connector(url, "verify"))
    store = SessionStore(redis, KeyRing([Secret(RING_KEY)]), SessionPolicy(604800, 2592000, 10))
    return Worker(store, SessionCache(store, RevocationListener(redis), size))


def passes(at: Worker, token: str) -> bool:
    try:
        return bool(at.resolve(token))
    except (TokenInvalid, StoreUnavailable):
        return False


def logged_out(store: SessionStore, token: str, old: Node) -> bool:
    """Whether the logout was confirmed, and not by the old primary."""
    try:
        session = store.resolve(token, touch=False)
        ((name, _),) = store.redis.nodes.pools()
        if str(old.port) in name:
            return False
        store.revoke(session)
    except StoreUnavailable:
        return False
    return True


def test_sentinels_without_a_password(run: Run, wechat: WeChatServer) -> None:
    """Where only the data asks for one, the password of REDIS_URL does not lock us out of the sentinels."""
    with (
        SentinelSet(password=PASSWORD, open_sentinels=True) as redis,
        ObservedService(redis.url, wechat) as service,
        single_caller(service, wechat, run.seed) as (caller, alice, calls),
    ):
        assert requests.get(f"{service.url}/readyz", timeout=5).json()["redis"] == "ok"
        caller.log_in(alice)
        caller.ask("check", alice, alice.tokens[0])
        assert [call.status for call in calls] == [200, 200]


def test_sentinels_that_are_silent(run: Run) -> None:
    """They are asked one after another, twice each, and nobody is held longer by all of them than by Redis."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        door = RedisClient(connector(f"redis+sentinel://:{PASSWORD}@{hosts}/mymaster/0", "verify"))
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            door.read("k")
        held = round((time.monotonic() - start) * 1000, 1)
    assert_limit(run, "sentinels that are silent", "a thread is held for", held, 600)
    # Each of the six alone would take 250 ms.
    assert held < 6 * 250
