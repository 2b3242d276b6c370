"""What the revocation feed costs: processor time for each end, of a worker that hears it and of Redis."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final

import redis

from benchmarks.load import visit
from benchmarks.procs import processor_seconds, tree
from benchmarks.running import ContenderServer, PinnedRedis
from benchmarks.seeding import log_in
from benchmarks.table import VERIFY
from tests.servers import wait_until
from wxauth.storage.wire import REVOCATIONS

#: Ends a second: about what `scale` reckons with, copies included. Several are read at once when they come so close.
RATE: Final = 4000
#: Listeners beside the worker; they leave it to the kernel to take what they are told.
MORE: Final = 16
#: Seconds of rest for whatever is still under way.
REST: Final = 1.0


def measure(ends: int, progress: Callable[[str], None]) -> dict[str, float]:
    """Microseconds for each of `ends`: of a `worker`, and of Redis to `publish` it and to `tell` it once."""
    progress(f"the feed: {ends:,} ends")
    worker, one = _measure(ends, 0)
    _, many = _measure(ends, MORE)
    tell = (many - one) / MORE
    return {"ends": ends, "rate": RATE, "worker": worker, "publish": one - tell, "tell": tell}


def _measure(ends: int, more: int) -> tuple[float, float]:
    """Of the worker and of Redis, less what they take anyway."""
    with (
        PinnedRedis() as server,
        ContenderServer(VERIFY, server) as running,
        server.client() as client,
        contextlib.ExitStack() as listening,
    ):
        visit(running, log_in(running, 1), 1)
        for _ in range(more):
            listening.enter_context(client.pubsub()).subscribe(REVOCATIONS)
        wait_until(lambda: _listeners(client) == 1 + more, "all listen")
        pids = tree(running.process.pid), [server.process.pid]
        idle = [processor_seconds(those) for those in pids]
        time.sleep(ends / RATE + REST)
        before = [processor_seconds(those) for those in pids]
        _publish(client, ends)
        time.sleep(REST)
        after = [processor_seconds(those) for those in pids]
    worker, told = ((end - start) - (start - rest) for rest, start, end in zip(idle, before, after, strict=True))
    return worker * 1e6 / ends, told * 1e6 / ends


def _publish(client: redis.Redis, ends: int) -> None:
    """One at a time, as logouts come."""
    start = time.monotonic()
    for number in range(ends):
        time.sleep(max(start + number / RATE - time.monotonic(), 0))
        client.publish(REVOCATIONS, secrets.token_urlsafe(16))


def _listeners(client: redis.Redis) -> int:
    return int(client.pubsub_numsub(REVOCATIONS)[0][1])
