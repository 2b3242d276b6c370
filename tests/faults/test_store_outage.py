"""Redis is killed, absent, frozen or slow, under load: everybody is asked to wait, and nobody is logged out."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest
import requests

from tests.faults.conftest import Progress, Run, cache_on_and_off
from tests.faults.driver import MIX, Load, forged, milliseconds
from tests.faults.history import Call
from tests.faults.relay import Relay
from tests.faults.rig import (
    UNCACHED,
    Observed,
    assert_back,
    assert_clean,
    assert_silent,
    bar,
    begun,
    bounds_of,
    first_success,
    slowest,
    statuses,
    within,
)
from tests.servers import RedisServer, wait_until
from tests.service import Service, WeChatServer

NOTHING_KEPT = {"WXAUTH_CACHE_SIZE": "0"}
#: Milliseconds in which every worker notices that the feed's connection is gone: until then its cache is believed.
NOTICED = {"10000": 100, "0": 0}
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


def ready(service: Service) -> tuple[int, str]:
    answer = requests.get(f"{service.url}/readyz", timeout=5)
    word: str = json.loads(answer.text)["redis"]
    return answer.status_code, word


@cache_on_and_off
def test_killed_and_started_again(run: Run, progress: Progress, wechat: WeChatServer, cache: str) -> None:
    """kill -9, a while in the dark, a restart, again and again: what was acknowledged holds, and no worker dies."""
    fault, times, dark = f"redis killed with -9, {cache} kept", run.of(2, 20), run.of(1, 10)
    lost: list[float] = []
    dark_spans: list[tuple[float, float]] = []
    with RedisServer(*DURABLE) as redis, Observed(redis.url, wechat, WXAUTH_CACHE_SIZE=cache) as service:
        load = Load(service.url, wechat, seed=run.seed, users=12, rate=400)
        load.log_in_all()
        time.sleep(0.5)
        service.settle()
        with load:
            for number in range(times):
                time.sleep(0.5)
                redis.process.kill()
                redis.process.wait()
                start = time.monotonic()
                time.sleep(dark)
                dark_spans.append((start, time.monotonic()))
                redis.start()
                wait_until(redis.answers, "redis-server")
                back = time.monotonic()
                time.sleep(1.2)
                lost.append(first_success(load.calls, back))
                progress(f"{fault}: {number + 1} of {times}, {len(load.calls)} calls, back after {lost[-1]} s")
        load.check_all()
        refused = [call for span in dark_spans for call in begun(load.calls, *span) if call.status == 503]
        late = [after for start, end in dark_spans for after in other_than_503(within(load.calls, start, end), start)]
        run.figure(fault, f"other than 503, beside {len(refused)} in the dark", len(late), "0, but for the cache")
        bar(run, fault, "the last of them, after the kill", max(late, default=0), NOTICED[cache])
        bar(run, fault, "p99 of the 503", milliseconds(refused, 99), 50)
        bar(run, fault, "first 200 once Redis is back", max(lost), 1, "s")
        assert_clean(run, fault, service, load.calls, bounds_of(cache))
        assert [after for after in late if after > 1000 * bounds_of(cache).stale] == []


def other_than_503(calls: list[Call], killed: float) -> list[float]:
    """How many ms after the kill. A forged token is refused without asking Redis, so its 401 is right."""
    return [round(1000 * (it.start - killed), 1) for it in calls if it.status != 503 and not forged(it)]


def test_started_before_redis_is_there(run: Run, wechat: WeChatServer) -> None:
    """The process is up and says that it is not ready; within a second of Redis it is."""
    fault = "started before redis"
    redis = RedisServer()
    with Observed(redis.url, wechat) as service:
        assert requests.get(f"{service.url}/healthz", timeout=5).status_code == 200
        assert ready(service) == (503, "unreachable")
        with redis:
            start = time.monotonic()
            wait_until(lambda: ready(service) == (200, "ok"), "ready")
            bar(run, fault, "ready once Redis is there", round(time.monotonic() - start, 2), 1, "s")
            assert ready(service) == (200, "ok")
        assert_back(run, fault, service)
        assert_silent(run, fault, service, [])


@cache_on_and_off
def test_frozen_and_thawed(run: Run, progress: Progress, wechat: WeChatServer, cache: str) -> None:
    """SIGSTOP, then SIGCONT: no thread is held for long, and no late answer reaches another request."""
    fault, seconds = f"redis stopped (SIGSTOP), {cache} kept", run.of(1, 10)
    with RedisServer() as redis, Observed(redis.url, wechat, WXAUTH_CACHE_SIZE=cache) as service:
        load = Load(service.url, wechat, seed=run.seed, users=12)
        load.log_in_all()
        with load:
            time.sleep(0.5)
            redis.process.send_signal(signal.SIGSTOP)
            start = time.monotonic()
            time.sleep(seconds)
            end = time.monotonic()
            redis.process.send_signal(signal.SIGCONT)
            time.sleep(1)
        load.check_all()
        stopped = [call for call in load.calls if start <= call.start <= end]
        bar(run, fault, "slowest call", slowest(stopped), 600)
        bar(run, fault, "median of the 503", milliseconds([it for it in stopped if it.status == 503], 50), 50)
        bar(run, fault, "first 200 after SIGCONT", first_success(load.calls, end), 1, "s")
        assert_clean(run, fault, service, load.calls, bounds_of(cache))


@pytest.mark.parametrize("latency", [100, 300])
def test_slow(run: Run, wechat: WeChatServer, latency: int) -> None:
    """Every answer of Redis comes late: within the budget it is waited for, past it nobody is held."""
    fault, seconds = f"latency of {latency} ms", run.of(3, 10)
    with RedisServer() as redis, Relay(redis.port) as relay, Observed(relay.url, wechat, **NOTHING_KEPT) as service:
        # Few calls are made where each takes so long, and a logout is to be among them.
        load = Load(service.url, wechat, seed=run.seed, users=12, mix={**MIX, "logout": 20})
        load.log_in_all()
        with load:
            time.sleep(0.3)
            relay.latency = latency / 1000
            start = time.monotonic()
            time.sleep(seconds)
            end = time.monotonic()
            relay.latency = 0
            time.sleep(1)
        load.check_all()
        slow = begun(load.calls, start, end)
        bar(run, fault, "slowest check", slowest([call for call in slow if call.operation == "check"]), 600)
        for operation in sorted({call.operation for call in slow} - {"check"}):
            bar(
                run,
                fault,
                f"slowest {operation}",
                slowest([call for call in slow if call.operation == operation]),
                600,
            )
        run.figure(fault, "statuses", sorted(map(str, statuses(slow))), "")
        assert_clean(run, fault, service, load.calls, UNCACHED)
        slow = within(slow, start, end)
        # Within the budget of 250 ms it is waited for, past it there is nothing to hope for.
        assert {"check", "login", "logout"} <= {call.operation for call in slow if call.passed} or latency > 250
        assert not any(call.passed for call in slow) or latency < 250
