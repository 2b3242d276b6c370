"""doctor's look at Redis: can it keep a session, is it encrypted, which one is it, how far away, how late is it."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from ..errors import StoreUnavailable
from ..settings import LOOPBACK, Settings
from ..storage.client import FORBIDDEN, RedisClient
from ..storage.nodes import PROBE
from ..storage.reasons import DANGERS, HINTS, dangers
from .check_result import FAILURE, OK, SKIPPED, WARNING, CheckResult

PINGS: Final = 5
SLOW_MILLISECONDS: Final = 20
#: Seconds by which the clocks may differ.
CLOCK_SKEW: Final = 5


def check_redis(settings: Settings, redis: RedisClient) -> Iterator[CheckResult]:
    yield _redis_tls(settings)
    try:
        word = redis.health()
    except StoreUnavailable as error:
        yield CheckResult(
            "redis", FAILURE, f"no session can be kept: {error.hint or error.reason}", value=error.reason
        )
        return
    if word in ("ok", *DANGERS):
        yield CheckResult("redis", OK, "a session can be kept")
    else:
        found = f"a part of the cluster keeps no session: {HINTS.get(word, word)}"
        yield CheckResult("redis", FAILURE, found, value=word)
    for check, ask in (("redis.version", _facts), ("redis.latency", _latency), ("clock", _clock)):
        yield from _told(check, ask, redis)


def _told(
    check: str, ask: Callable[[RedisClient], Iterator[CheckResult]], redis: RedisClient
) -> Iterator[CheckResult]:
    """What `ask` finds; some hosts forbid the question, and what it is about is then the host's matter."""
    try:
        yield from ask(redis)
    except StoreUnavailable as error:
        status = SKIPPED if error.reason in FORBIDDEN else FAILURE
        yield CheckResult(check, status, f"Redis does not tell: {error.hint or error.reason}", value=error.reason)


def _redis_tls(settings: Settings) -> CheckResult:
    url = urlsplit(settings.redis_url.reveal())
    if url.scheme.startswith("rediss"):
        if settings.redis_tls == "insecure":
            hint = "the certificate is not looked at: set WXAUTH_REDIS_TLS to pin:<its sha256>, or to verify"
            return CheckResult("redis.tls", WARNING, hint, value="insecure")
        mode = settings.redis_tls.partition(":")[0]
        return CheckResult("redis.tls", OK, f"in use, {'certificate pinned' if mode == 'pin' else mode}", value=mode)
    if _on_loopback(url.netloc):
        return CheckResult("redis.tls", OK, "not in use, and not needed on loopback", value="off")
    hint = "not in use: anybody on the way reads the password; use rediss://, or a network of your own"
    return CheckResult("redis.tls", WARNING, hint, value="off")


def _on_loopback(netloc: str) -> bool:
    """Whether all of one or several `host:port` are this machine."""
    hosts = netloc.rpartition("@")[2].split(",")
    return all(re.sub(r":\d+$", "", host).strip("[]") in LOOPBACK for host in hosts)


def _facts(redis: RedisClient) -> Iterator[CheckResult]:
    nodes = [redis.facts(probe) for probe in redis.nodes.probes()]
    found = {danger for facts in nodes for danger in dangers(facts)}
    versions = ", ".join(sorted({facts["redis_version"] for facts in nodes}))
    policies = ", ".join(sorted({facts.get("maxmemory_policy", "unknown") for facts in nodes}))
    yield _judged("redis.version", versions, FAILURE if "too_old" in found else OK, HINTS["too_old"])
    yield _judged("redis.policy", policies, WARNING if "evicting" in found else OK, HINTS["evicting"])


def _judged(check: str, value: str, status: str, hint: str) -> CheckResult:
    return CheckResult(check, status, value if status == OK else f"{value}: {hint}", value=value)


def _latency(redis: RedisClient) -> Iterator[CheckResult]:
    took = [_milliseconds(lambda: redis.read(PROBE)) for _ in range(PINGS)]
    middle = round(statistics.median(took), 2)
    found = f"{middle} ms, at most {max(took):.2f} ms, of {PINGS} round trips"
    if middle > SLOW_MILLISECONDS:
        yield CheckResult("redis.latency", WARNING, f"{found}: bring Redis into the same region", value=middle)
    else:
        yield CheckResult("redis.latency", OK, found, value=middle)


def _milliseconds(ask: Callable[[], object]) -> float:
    begun = time.perf_counter()
    ask()
    return (time.perf_counter() - begun) * 1000


def _clock(redis: RedisClient) -> Iterator[CheckResult]:
    before = time.time()
    there = redis.clock()
    ahead = round((before + time.time()) / 2 - there, 3) + 0.0  # no -0.0
    if abs(ahead) > CLOCK_SKEW:
        found = (
            f"{ahead} s ahead of Redis' clock: one of them is wrong, and so are the ends of sessions; set both by NTP"
        )
        yield CheckResult("clock", WARNING, found, value=ahead)
    else:
        yield CheckResult("clock", OK, f"{abs(ahead):.3f} s away from Redis' clock", value=ahead)
