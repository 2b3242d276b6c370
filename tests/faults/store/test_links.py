"""Connections end: Redis closes them, an operator kills them, callers hang up."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from functools import partial

import pytest

from tests.faults.conftest import Progress, Run
from tests.faults.support.driver import CHECKS, Load
from tests.faults.support.rig import (
    UNCACHED,
    Loaded,
    ObservedService,
    assert_clean,
    cached_and_uncached,
    events,
    running,
)
from tests.support.servers import RedisServer
from tests.support.service import Service, WeChatServer
from wxauth.settings import Settings

#: With a limit this low, many logins end another session.
MAX_SESSIONS = 2
KILL_PAUSE = 0.7
#: Those of two workers, each with its revocation channel, and that of the test.
MAX_CONNECTIONS = 2 * (Settings.redis_connections + 1) + 1


def test_idle_connections_closed_by_redis_cause_no_error(run: Run, wechat: WeChatServer) -> None:
    """Redis with `timeout 1` closes each connection that was idle for a second."""
    no_cache = {"WXAUTH_CACHE_SIZE": "0"}
    with RedisServer("--timeout", "1") as redis, ObservedService(redis.url, wechat, **no_cache) as service:
        load = Load(service.url, wechat, seed=run.seed, threads=4, users=4)
        load.log_in_all()
        for _ in range(run.of(1, 10)):
            load.check_all()
            time.sleep(2.2)
        load.check_all()
        run.figure("idle connections closed", "errors", sum(not call.passed for call in load.calls), 0)
        assert all(call.passed for call in load.calls)
        assert_clean(run, "idle connections closed", service, load.calls, UNCACHED)


@pytest.mark.timed
def test_connections_killed_under_load_cause_no_error(run: Run, wechat: WeChatServer) -> None:
    """Send CLIENT KILL TYPE normal repeatedly: the service reconnects, with the session cache and without."""
    fault, killed = "client kill", 0
    load = partial(Load, seed=run.seed, threads=4, users=40)
    with (
        RedisServer() as redis,
        cached_and_uncached(redis.url, wechat, load, MAX_SESSIONS) as pairs,
        redis.client() as admin,
    ):
        with running(pairs):
            for _ in range(run.of(3, 100)):
                # An operation may be repeated once, within 600 ms: give both attempts no chance to meet two kills.
                time.sleep(KILL_PAUSE)
                killed += int(admin.client_kill_filter(_type="normal", skipme=True))
                # The connections of the revocation channel are of another type.
                admin.client_kill_filter(_type="pubsub")
        assert killed > 0
        for each in pairs:
            assert_no_errors(run, f"{fault}, {each.cache}", each, killed)
            each.assert_clean(run, fault)


def assert_no_errors(run: Run, fault: str, it: Loaded, killed: int) -> None:
    errors = [call for call in it.load.calls if call.unknown]
    run.figure(fault, f"errors, {killed} killed in {len(it.load.calls)} calls", len(errors), 0)
    reasons = Counter(event["reason"] for event in events(it.service) if event["event"] == "store_unavailable")
    run.figure(fault, "their reasons", dict(reasons), "none")
    assert errors == []


def test_callers_that_hang_up_end_no_session(run: Run, progress: Progress, wechat: WeChatServer) -> None:
    """Callers close the connection within a request or before its answer; the pool of connections stays whole."""
    times = run.of(300, 10000)
    with RedisServer() as redis, ObservedService(redis.url, wechat) as service, redis.client() as admin:
        load = Load(service.url, wechat, seed=run.seed, threads=4, mix=CHECKS)
        load.log_in_all(times=2)
        service.settle()
        tokens = [call.token_id or "" for call in load.calls]
        with load:
            for number in range(times):
                hang_up(service, random.Random(f"{run.seed} {number}"), tokens)  # noqa: S311 - repeatable
                progress(f"callers that hang up: {number + 1} of {times}")
        load.check_all()
        ended = sum(call.status == 401 for call in load.calls)
        run.figure("callers that hang up", f"sessions deleted, {times} times", ended, 0)
        run.figure("callers that hang up", "connections to redis", len(admin.client_list()), MAX_CONNECTIONS)
        assert ended == 0
        assert len(admin.client_list()) <= MAX_CONNECTIONS
        assert_clean(run, "callers that hang up", service, load.calls)


def hang_up(service: Service, chance: random.Random, tokens: list[str]) -> None:
    """Send a whole check, or a part of a check or logout, and close the connection."""
    method = chance.choice(["GET", "DELETE"])
    head = f"{method} /session HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {chance.choice(tokens)}\r\n\r\n".encode()
    length = chance.randrange(len(head)) if method == "DELETE" or chance.random() < 0.3 else len(head)
    with socket.create_connection(("127.0.0.1", service.port), 5) as caller:
        caller.sendall(head[:length])
        time.sleep(chance.random() * 0.003)
