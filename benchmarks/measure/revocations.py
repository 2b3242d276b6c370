"""The revocation channel: the processor time of each revoked session, for a worker that listens and for Redis."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final, cast

import redis

from benchmarks.contenders.table import VERIFY
from benchmarks.harness.load import warm_up
from benchmarks.harness.procs import processor_seconds, tree
from benchmarks.harness.seeding import log_in
from benchmarks.harness.servers import ContenderServer, PinnedRedis
from tests.support.servers import wait_until

#: Revocations per second.
RATE: Final = 4000
#: Subscribers besides the worker in the second part. They never read what they receive.
EXTRA_SUBSCRIBERS: Final = 16
#: Seconds to wait for messages that are under way.
REST: Final = 1.0


def measure(count: int, progress: Callable[[str], None]) -> dict[str, float]:
    """Return microseconds per revocation.

    `worker` is the time of a worker that receives it, `publish` the time of Redis to publish it, and `deliver` the
    time of Redis for each subscriber.
    """
    progress(f"revocation channel: {count:,} revocations")
    worker, one = _measure(count, 0)
    _, many = _measure(count, EXTRA_SUBSCRIBERS)
    deliver = (many - one) / EXTRA_SUBSCRIBERS
    return {"count": count, "rate": RATE, "worker": worker, "publish": one - deliver, "deliver": deliver}


def _measure(count: int, extra: int) -> tuple[float, float]:
    """Return microseconds per revocation of the worker and of Redis, without what both use when idle."""
    with (
        PinnedRedis() as server,
        ContenderServer(VERIFY, server) as running,
        server.client() as client,
        contextlib.ExitStack() as subscribers,
    ):
        warm_up(running, log_in(running, 1), 1)
        channel = _channel(client)
        for _ in range(extra):
            subscribers.enter_context(client.pubsub()).subscribe(channel)
        wait_until(lambda: client.pubsub_numsub(channel)[0][1] == 1 + extra, "all are subscribed")
        worker, redis_ = _busy_minus_idle(client, channel, count, [tree(running.process.pid), [server.process.pid]])
    return worker * 1e6 / count, redis_ * 1e6 / count


def _channel(client: redis.Redis) -> bytes:
    """Return the only channel with a subscriber: the one that the worker listens to."""
    wait_until(lambda: bool(client.pubsub_channels()), "the worker is subscribed")
    (channel,) = client.pubsub_channels()
    return cast(bytes, channel)


def _busy_minus_idle(client: redis.Redis, channel: bytes, count: int, groups: list[list[int]]) -> list[float]:
    """Return for each group of processes the seconds that `count` revocations add to its idle time."""
    before = [processor_seconds(pids) for pids in groups]
    time.sleep(count / RATE + REST)
    idle = [processor_seconds(pids) for pids in groups]
    _publish(client, channel, count)
    time.sleep(REST)
    busy = [processor_seconds(pids) for pids in groups]
    return [(last - middle) - (middle - first) for first, middle, last in zip(before, idle, busy, strict=True)]


def _publish(client: redis.Redis, channel: bytes, count: int) -> None:
    """Publish one session id at a time at RATE, as logouts do."""
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(start + number / RATE - time.monotonic(), 0))
        client.publish(channel, secrets.token_urlsafe(16))
