"""The checks of `doctor` that concern Redis: encryption, writing, version, eviction policy, latency and clock."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from ..errors import StoreUnavailable
from ..settings import LOOPBACK, Settings
from ..storage.client import FORBIDDEN, PROBE, RedisClient
from ..storage.reasons import DANGERS, HINTS, dangers
from .check_result import FAILURE, OK, SKIPPED, WARNING, CheckResult

#: Round trips of the latency check.
PINGS: Final = 5
#: A higher median is a warning.
SLOW_MILLISECONDS: Final = 20
#: A larger difference between the two clocks is a warning, in seconds.
MAX_CLOCK_SKEW: Final = 5

Check = Callable[[RedisClient], Iterator[CheckResult]]


def check_redis(settings: Settings, redis: RedisClient) -> Iterator[CheckResult]:
    """Check the encryption first, which needs no connection. Without a connection the rest is one failure."""
    yield _tls(settings)
    try:
        health = redis.health()
    except StoreUnavailable as error:
        yield CheckResult("redis", FAILURE, f"can't store sessions: {error.hint or error.reason}", value=error.reason)
        return
    yield _health(health)
    for name, check in (("redis.version", _info), ("redis.latency", _latency), ("clock", _clock)):
        yield from _guarded(name, check, redis)


def _health(health: str) -> CheckResult:
    if health in ("ok", *DANGERS):
        return CheckResult("redis", OK, "can store sessions")
    hint = HINTS.get(health, health)
    return CheckResult("redis", FAILURE, f"a part of the cluster can't store sessions: {hint}", value=health)


def _guarded(name: str, check: Check, redis: RedisClient) -> Iterator[CheckResult]:
    """Run `check`. Some hosting providers forbid INFO, but the store can't work without TIME."""
    try:
        yield from check(redis)
    except StoreUnavailable as error:
        status = SKIPPED if check is _info and error.reason in FORBIDDEN else FAILURE
        yield CheckResult(name, status, f"Redis did not answer: {error.hint or error.reason}", value=error.reason)


def _tls(settings: Settings) -> CheckResult:
    url = urlsplit(settings.redis_url.reveal())
    mode = settings.redis_tls.partition(":")[0]
    if url.scheme.startswith("rediss") and mode == "insecure":
        fix = "the certificate is not verified: set WXAUTH_REDIS_TLS to pin:<its SHA-256> or to verify"
        return CheckResult("redis.tls", WARNING, fix, value=mode)
    if url.scheme.startswith("rediss"):
        return CheckResult(
            "redis.tls", OK, f"on, certificate {'pinned' if mode == 'pin' else 'verified'}", value=mode
        )
    if _on_loopback(url.netloc):
        return CheckResult("redis.tls", OK, "off, and not needed on loopback", value="off")
    fix = "off: the password can be read on the network; use rediss:// or a private network"
    return CheckResult("redis.tls", WARNING, fix, value="off")


def _on_loopback(netloc: str) -> bool:
    """Whether every `host:port` of the list is on this machine."""
    hosts = netloc.rpartition("@")[2].split(",")
    return all(re.sub(r":\d+$", "", host).strip("[]") in LOOPBACK for host in hosts)


def _info(redis: RedisClient) -> Iterator[CheckResult]:
    nodes = [redis.info(probe) for probe in redis.probes()]
    found = {danger for facts in nodes for danger in dangers(facts)}
    versions = ", ".join(sorted({facts["redis_version"] for facts in nodes}))
    policies = ", ".join(sorted({facts.get("maxmemory_policy", "unknown") for facts in nodes}))
    yield _judged("redis.version", versions, FAILURE if "too_old" in found else OK, HINTS["too_old"])
    yield _judged("redis.policy", policies, WARNING if "evicting" in found else OK, HINTS["evicting"])


def _judged(check: str, value: str, status: str, hint: str) -> CheckResult:
    return CheckResult(check, status, value if status == OK else f"{value}: {hint}", value=value)


def _latency(redis: RedisClient) -> Iterator[CheckResult]:
    times = [_milliseconds(lambda: redis.read(PROBE)) for _ in range(PINGS)]
    median = round(statistics.median(times), 2)
    text = f"median {median} ms, maximum {max(times):.2f} ms of {PINGS} round trips"
    if median > SLOW_MILLISECONDS:
        yield CheckResult("redis.latency", WARNING, f"{text}: move Redis into the same region", value=median)
    else:
        yield CheckResult("redis.latency", OK, text, value=median)


def _milliseconds(call: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    call()
    return (time.perf_counter() - started_at) * 1000


def _clock(redis: RedisClient) -> Iterator[CheckResult]:
    before = time.time()
    redis_time = redis.clock()
    ahead = round((before + time.time()) / 2 - redis_time, 3) + 0.0  # + 0.0 turns -0.0 into 0.0
    if abs(ahead) > MAX_CLOCK_SKEW:
        text = f"{ahead} s ahead of Redis: synchronize both clocks by NTP, because sessions expire by them"
        yield CheckResult("clock", WARNING, text, value=ahead)
    else:
        yield CheckResult("clock", OK, f"{abs(ahead):.3f} s difference to Redis", value=ahead)
