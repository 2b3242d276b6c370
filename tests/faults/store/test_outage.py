"""Redis is killed, absent, stopped or slow under load: each answer is a 503 in time, and no session is lost."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import requests

from tests.faults.conftest import Progress, Run, cache_on_and_off
from tests.faults.support.driver import MIX, Load, is_forged, milliseconds
from tests.faults.support.history import Call
from tests.faults.support.relay import Relay
from tests.faults.support.rig import (
    UNCACHED,
    Loaded,
    ObservedService,
    assert_clean,
    assert_limit,
    assert_no_secrets,
    assert_workers_unchanged,
    bounds_of,
    cached_and_uncached,
    calls_begun,
    calls_within,
    first_success,
    running,
    slowest,
    statuses,
)
from tests.support.servers import RedisServer, wait_until
from tests.support.service import Service, WeChatServer

pytestmark = pytest.mark.timed

#: Milliseconds in which each worker notices that the revocation channel is lost. Its cache answers until then.
CHANNEL_LOST_WITHIN = {"cache on": 100, "cache off": 0}
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
CALLS_A_SECOND = 400


def readiness(service: Service) -> tuple[int, str]:
    answer = requests.get(f"{service.url}/readyz", timeout=5)
    word: str = json.loads(answer.text)["redis"]
    return answer.status_code, word


def test_sessions_survive_kill_9_and_restart_of_redis(run: Run, progress: Progress, wechat: WeChatServer) -> None:
    """Kill Redis and start it again, repeatedly. Each kill hits a service with the session cache and one without."""
    fault, times, dark = "redis killed with -9", run.of(2, 20), run.of(1, 10)
    outages: list[Outage] = []
    load = partial(Load, seed=run.seed, users=12, rate=CALLS_A_SECOND)
    with RedisServer(*DURABLE) as redis, cached_and_uncached(redis.url, wechat, load) as pairs:
        with running(pairs):
            for number in range(times):
                time.sleep(0.5)
                outages.append(restart(redis, dark))
                time.sleep(1.2)
                progress(f"{fault}: {number + 1} of {times}, {sum(len(each.load.calls) for each in pairs)} calls")
        for each in pairs:
            judge_outages(run, fault, each, outages)


@dataclass(frozen=True)
class Outage:
    """When Redis was killed, was started again, and answered again: seconds of the monotonic clock."""

    killed: float
    started: float
    back: float


def restart(redis: RedisServer, dark: float) -> Outage:
    """Kill Redis and start it again after `dark` seconds."""
    redis.process.kill()
    redis.process.wait()
    killed = time.monotonic()
    time.sleep(dark)
    started = time.monotonic()
    redis.start()
    wait_until(redis.answers, "redis-server")
    return Outage(killed, started, time.monotonic())


def judge_outages(run: Run, fault: str, it: Loaded, outages: Sequence[Outage]) -> None:
    title, calls = f"{fault}, {it.cache}", it.load.calls
    refused = [call for out in outages for call in calls_begun(calls, out.killed, out.started) if call.status == 503]
    late = [after for out in outages for after in answers_other_than_503(calls, out)]
    run.figure(title, f"other than 503, beside {len(refused)} in the dark", len(late), "0 without a cache")
    assert_limit(run, title, "the last of them, after the kill", max(late, default=0), CHANNEL_LOST_WITHIN[it.cache])
    assert_limit(run, title, "p99 of the 503", milliseconds(refused, 99), 50)
    back = max(first_success(calls, outage.back) for outage in outages)
    assert_limit(run, title, "first 200 once Redis is back", back, 1, "s")
    it.assert_clean(run, fault)
    assert [after for after in late if after > 1000 * it.bounds.stale] == []


def answers_other_than_503(calls: Sequence[Call], outage: Outage) -> list[float]:
    """Return how many ms after the kill each began. A forged token needs no Redis, so its 401 does not count."""
    dark = calls_within(calls, outage.killed, outage.started)
    return [round(1000 * (it.start - outage.killed), 1) for it in dark if it.status != 503 and not is_forged(it)]


def test_service_started_before_redis_is_ready_within_a_second_of_redis(run: Run, wechat: WeChatServer) -> None:
    """Until then `/healthz` is 200 and `/readyz` is 503."""
    fault = "started before redis"
    redis = RedisServer()
    with ObservedService(redis.url, wechat) as service:
        assert requests.get(f"{service.url}/healthz", timeout=5).status_code == 200
        assert readiness(service) == (503, "unreachable")
        with redis:
            start = time.monotonic()
            wait_until(lambda: readiness(service) == (200, "ok"), "ready")
            assert_limit(run, fault, "ready once Redis is there", round(time.monotonic() - start, 2), 1, "s")
            assert readiness(service) == (200, "ok")
        assert_workers_unchanged(run, fault, service)
        assert_no_secrets(run, fault, service, [])


@cache_on_and_off
def test_stopped_redis_holds_no_thread_and_mixes_up_no_replies(run: Run, wechat: WeChatServer, cache: str) -> None:
    """SIGSTOP, then SIGCONT: no call takes longer than 600 ms, and no late reply reaches another request."""
    fault, seconds = f"redis stopped (SIGSTOP), cache {cache}", run.of(1, 10)
    with RedisServer() as redis, ObservedService(redis.url, wechat, WXAUTH_CACHE_SIZE=cache) as service:
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
        assert_limit(run, fault, "slowest call", slowest(stopped), 600)
        refused = [call for call in stopped if call.status == 503]
        assert_limit(run, fault, "median of the 503", milliseconds(refused, 50), 50)
        assert_limit(run, fault, "first 200 after SIGCONT", first_success(load.calls, end), 1, "s")
        assert_clean(run, fault, service, load.calls, bounds_of(cache))


@pytest.mark.parametrize("latency", [100, 300])
def test_slow_redis_is_awaited_within_the_budget_and_refused_beyond_it(
    run: Run, wechat: WeChatServer, latency: int
) -> None:
    """The budget is 250 ms: a latency of 100 ms succeeds, 300 ms is a 503. No call takes longer than 600 ms."""
    fault, seconds = f"latency of {latency} ms", run.of(3, 10)
    with (
        RedisServer() as redis,
        Relay(redis.port) as relay,
        ObservedService(relay.url, wechat, WXAUTH_CACHE_SIZE="0") as service,
    ):
        # Slow calls are few. Log out often enough that one of them is a logout.
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
        slow = calls_begun(load.calls, start, end)
        for operation in sorted({call.operation for call in slow}):
            of_this_kind = [call for call in slow if call.operation == operation]
            assert_limit(run, fault, f"slowest {operation}", slowest(of_this_kind), 600)
        run.figure(fault, "statuses", sorted(map(str, statuses(slow))), "")
        assert_clean(run, fault, service, load.calls, UNCACHED)
        slow = calls_within(slow, start, end)
        assert {"check", "login", "logout"} <= {call.operation for call in slow if call.passed} or latency > 250
        assert not any(call.passed for call in slow) or latency < 250
