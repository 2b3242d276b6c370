"""Redis behind sentinels: the primary fails under load, and no session and no logout is lost."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import requests

from tests.conftest import ALICE, RING_KEY, SESSION_KEY
from tests.faults.conftest import Progress, Run
from tests.faults.support.driver import Load, milliseconds
from tests.faults.support.history import Call
from tests.faults.support.relay import Relay
from tests.faults.support.rig import (
    ObservedService,
    assert_clean,
    assert_limit,
    assert_no_secrets,
    assert_workers_unchanged,
    cached_and_uncached,
    calls_begun,
    first_success,
    running,
    single_caller,
    slowest,
)
from tests.faults.support.topologies import SERVICE, Node, SentinelSet
from tests.support.servers import wait_until
from tests.support.service import WeChatServer
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret
from wxauth.sessions.cache import SessionCache
from wxauth.sessions.revocations import RevocationListener
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

PASSWORD = "password-of-redis-and-its-sentinels"
#: A primary without replicas then refuses writes, so it acknowledges nothing that is lost with it.
NO_WRITES_WITHOUT_REPLICA = ("--min-replicas-to-write", "1")
CALLS_A_SECOND = 300


@pytest.mark.timed
def test_killed_primary_loses_no_session_and_no_logout(run: Run, progress: Progress, wechat: WeChatServer) -> None:
    """Kill the primary repeatedly. Each kill hits a service with the session cache and one without."""
    fault, times = "sentinel: killed with -9", run.of(1, 20)
    failovers: list[Failover] = []
    load = partial(Load, seed=run.seed, rate=CALLS_A_SECOND)
    with (
        SentinelSet(*NO_WRITES_WITHOUT_REPLICA, password=PASSWORD) as redis,
        cached_and_uncached(redis.url, wechat, load, WXAUTH_WAIT_REPLICAS="1") as pairs,
    ):
        with running(pairs):
            for number in range(times):
                time.sleep(0.5)
                failovers.append(fail_over(redis))
                time.sleep(1)
                progress(f"{fault}: {number + 1} of {times}, {sum(len(each.load.calls) for each in pairs)} calls")
        for each in pairs:
            judge_failovers(run, f"{fault}, {each.cache}", each.load.calls, failovers)
            each.assert_clean(run, fault)


@dataclass(frozen=True)
class Failover:
    """When the primary was killed and when a replica was promoted: seconds of the monotonic clock."""

    killed: float
    promoted: float


def fail_over(redis: SentinelSet) -> Failover:
    """Kill the primary, wait for the promotion, and start the killed node again as a replica."""
    node = redis.primary
    node.kill()
    killed = time.monotonic()
    promoted = redis.await_promotion()
    redis.rejoin(node)
    redis.settle()
    return Failover(killed, promoted)


def judge_failovers(run: Run, fault: str, calls: Sequence[Call], failovers: Sequence[Failover]) -> None:
    checks = max(first_success(calls, failover.promoted) for failover in failovers)
    logins = max(first_success(calls, failover.promoted, "login") for failover in failovers)
    dark = [call for failover in failovers for call in calls_begun(calls, failover.killed, failover.promoted)]
    assert_limit(run, fault, "first check that passes after promotion", checks, 3, "s")
    assert_limit(run, fault, "first login after promotion", logins, 3, "s")
    assert_limit(run, fault, "slowest call in the dark", slowest(dark), 600)
    run.figure(fault, "p99 of the calls in the dark (ms)", milliseconds(dark, 99), "")


@contextmanager
def lagging() -> Iterator[tuple[SentinelSet, list[Relay]]]:
    """Start a set with a relay between the primary and each replica."""
    with SentinelSet(password=PASSWORD) as redis, Relay(redis.primary.port) as one, Relay(redis.primary.port) as two:
        for node, relay in zip(redis.replicas, (one, two), strict=True):
            node.ask("REPLICAOF", "127.0.0.1", relay.port)
        wait_until(lambda: all(node.follows() for node in redis.replicas), "replicas in step")
        yield redis, [one, two]


def log_out_without_replicas(run: Run, fault: str, wechat: WeChatServer, wait: int) -> list[Call]:
    """Log out while the replicas are cut off, kill the primary, check the token at the promoted replica."""
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
def test_logout_without_replicas_is_confirmed_only_if_wait_replicas_is_0(
    run: Run, wechat: WeChatServer, wait: int
) -> None:
    """With WXAUTH_WAIT_REPLICAS=0 the logout is confirmed, and may be lost with the primary."""
    fault, times = f"sentinel: replicas cut off, wait {wait}", run.of(1, 5)
    confirmed = forgotten = 0
    for _ in range(times):
        calls = log_out_without_replicas(run, fault, wechat, wait)
        _, logout, *checks = calls
        confirmed += logout.passed
        forgotten += logout.passed and checks[-1].passed
    run.figure(fault, "logouts confirmed", f"{confirmed} of {times}", 0 if wait else times)
    if not wait:
        run.figure(fault, "logged-out tokens alive again", f"{forgotten} of {confirmed}", "observed")
    assert confirmed == (0 if wait else times)


@pytest.mark.timed
def test_stopped_primary_gets_no_commands_after_its_replacement(run: Run, wechat: WeChatServer) -> None:
    """After SIGCONT the old primary answers again, and the old connections to it are still open."""
    fault = "sentinel: primary stopped (SIGSTOP)"
    with (
        SentinelSet(*NO_WRITES_WITHOUT_REPLICA) as redis,
        ObservedService(redis.url, wechat, WXAUTH_WAIT_REPLICAS="1") as service,
    ):
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
        assert_limit(
            run, fault, "first check that passes after promotion", first_success(load.calls, promoted_at), 3, "s"
        )
        calls = [call for call in load.calls if call.start >= start]
        assert_limit(run, fault, "slowest call", slowest(calls), 600)
        assert_clean(run, fault, service, load.calls)


@pytest.mark.timed
@pytest.mark.parametrize("size", [100, 0], ids=["cache on", "cache off"])
def test_logout_at_the_new_primary_holds_after_a_planned_failover(run: Run, size: int) -> None:
    """The old primary answers reads for a while after SENTINEL FAILOVER."""
    with SentinelSet() as redis:
        old, warm = redis.primary, worker(redis.url, size)
        token = warm.store.create(Identity(ALICE, Secret(SESSION_KEY)))[0].reveal()
        wait_until(lambda: bool(warm.resolve(token)) and bool(warm.cache._known.entries) == bool(size), "warm")
        redis.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
        wait_until(lambda: not any(names(node, old) for node in redis.sentinels), "another primary")
        wait_until(lambda: logged_out(worker(redis.url, 0).store, token, old), "a logout at the new primary")
        start = time.monotonic()
        wait_until(lambda: not passes(warm, token), "a refusal")
        held = round(time.monotonic() - start, 2)
    assert_limit(run, f"sentinel: planned failover, {size} kept", "a revoked token passes for", held, 3, "s")
    assert held < 6


def names(sentinel: Node, primary: Node) -> bool:
    """Return whether the sentinel names `primary` as the primary."""
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
    """Return whether the logout was confirmed, and not by the old primary."""
    try:
        session = store.resolve(token, touch=False)
        if str(store.redis.info()["tcp_port"]) == str(old.port):
            return False
        store.revoke(session)
    except StoreUnavailable:
        return False
    return True


def test_sentinels_without_password_accept_a_url_with_password(run: Run, wechat: WeChatServer) -> None:
    """REDIS_URL has the password of the data nodes; the sentinels require none."""
    with (
        SentinelSet(password=PASSWORD, open_sentinels=True) as redis,
        ObservedService(redis.url, wechat) as service,
        single_caller(service, wechat, run.seed) as (caller, alice, calls),
    ):
        assert requests.get(f"{service.url}/readyz", timeout=5).json()["redis"] == "ok"
        caller.log_in(alice)
        caller.ask("check", alice, alice.tokens[0])
        assert [call.status for call in calls] == [200, 200]


@pytest.mark.timed
def test_silent_sentinels_raise_store_unavailable_within_600_ms(run: Run) -> None:
    """Three sentinels accept connections and never answer."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        door = RedisClient(connector(f"redis+sentinel://:{PASSWORD}@{hosts}/mymaster/0", "verify"))
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            door.read("k")
        held = round((time.monotonic() - start) * 1000, 1)
    assert_limit(run, "sentinels that are silent", "a thread is held for", held, 600)
    # Two attempts at each of three sentinels with 250 ms each would take this long.
    assert held < 6 * 250
