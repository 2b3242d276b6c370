"""Connections that end: Redis closes them, an operator kills them, callers hang up."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.conftest import Progress, Run, cache_on_and_off
from tests.faults.driver import CHECKS, Load
from tests.faults.history import Bounds
from tests.faults.rig import UNCACHED, Observed, assert_clean, bounds_of, events
from tests.servers import RedisServer
from tests.service import Service, WeChatServer

#: Few enough that logins end others' sessions all the time.
CAP = 2


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


def test_idle_connections_closed_by_the_server(run: Run, wechat: WeChatServer) -> None:
    """Redis with `timeout 1` closes what nobody used for a second; nobody notices."""
    every_check_asks = {"WXAUTH_CACHE_SIZE": "0"}
    with RedisServer("--timeout", "1") as redis, Observed(redis.url, wechat, **every_check_asks) as service:
        load = Load(service.url, wechat, seed=run.seed, threads=4, users=4)
        load.log_in_all()
        for _ in range(run.of(1, 10)):
            load.check_all()
            time.sleep(2.2)
        load.check_all()
        run.figure("idle connections closed", "errors", sum(not call.passed for call in load.calls), 0)
        assert all(call.passed for call in load.calls)
        assert_clean(run, "idle connections closed", service, load.calls, UNCACHED)


@cache_on_and_off
def test_connections_killed_under_load(run: Run, wechat: WeChatServer, cache: str) -> None:
    """CLIENT KILL TYPE normal, again and again: a lost connection is made anew, and nobody notices."""
    fault = f"client kill, {cache} kept"
    with (
        RedisServer() as redis,
        Observed(redis.url, wechat, WXAUTH_CACHE_SIZE=cache, WXAUTH_MAX_SESSIONS=str(CAP)) as service,
        redis.client() as admin,
    ):
        load = Load(service.url, wechat, seed=run.seed, threads=4, users=40)
        load.log_in_all()
        killed = 0
        with load:
            for _ in range(run.of(3, 100)):
                # Long enough that not both tries of one conversation fall to it.
                time.sleep(1)
                killed += int(admin.client_kill_filter(_type="normal", skipme=True))
                # The feed's connections are another kind.
                admin.client_kill_filter(_type="pubsub")
        errors = [call for call in load.calls if call.unknown]
        run.figure(fault, f"errors, {killed} killed in {len(load.calls)} calls", len(errors), 0)
        reasons = Counter(event["reason"] for event in events(service) if event["event"] == "store_unavailable")
        run.figure(fault, "their reasons", dict(reasons), "none")
        assert killed > 0
        assert errors == []
        assert_clean(run, fault, service, load.calls, Bounds(max_sessions=CAP, stale=bounds_of(cache).stale))


def test_callers_that_hang_up(run: Run, progress: Progress, wechat: WeChatServer) -> None:
    """In the middle of their request or before its answer: no session ends, and the pool stays whole."""
    times = run.of(300, 10000)
    with RedisServer() as redis, Observed(redis.url, wechat) as service, redis.client() as admin:
        load = Load(service.url, wechat, seed=run.seed, threads=4, mix=CHECKS)
        load.log_in_all(times=2)
        service.settle()
        tokens = [call.token_id or "" for call in load.calls]
        with load:
            for number in range(times):
                hang_up(service, random.Random(f"{run.seed} {number}"), tokens)  # noqa: S311 - the same again
                progress(f"callers that hang up: {number + 1} of {times}")
        load.check_all()
        ended = sum(call.status == 401 for call in load.calls)
        run.figure("callers that hang up", f"sessions deleted, {times} times", ended, 0)
        run.figure("callers that hang up", "connections to redis", len(admin.client_list()), "at most 2 x 97")
        assert ended == 0
        assert len(admin.client_list()) <= 2 * 97
        assert_clean(run, "callers that hang up", service, load.calls)


def hang_up(service: Service, chance: random.Random, tokens: list[str]) -> None:
    """A check that is cut off somewhere, perhaps after its end; or a logout that is cut off before it."""
    method = chance.choice(["GET", "DELETE"])
    head = f"{method} /session HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {chance.choice(tokens)}\r\n\r\n".encode()
    length = chance.randrange(len(head)) if method == "DELETE" or chance.random() < 0.3 else len(head)
    with socket.create_connection(("127.0.0.1", service.port), 5) as caller:
        caller.sendall(head[:length])
        time.sleep(chance.random() * 0.003)
