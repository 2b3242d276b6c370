"""What the revocation feed costs: processor time for each end that a worker hears, and that Redis tells to one."""

from __future__ import annotations

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
from wxauth.redis_wire import FEED

#: Ends a second: about what `scale` reckons with.
RATE: Final = 1000
#: Seconds of rest for whatever is still under way.
REST: Final = 1.0


def measure(ends: int, progress: Callable[[str], None]) -> dict[str, float]:
    """Microseconds for each of `ends`."""
    progress(f"the feed: {ends:,} ends")
    with PinnedRedis() as server, ContenderServer(VERIFY, server) as running, server.client() as client:
        visit(running, log_in(running, 1), 1)
        wait_until(lambda: _listeners(client) > 0, "the worker listens")
        own, asked = tree(running.process.pid), [server.process.pid]
        before = processor_seconds(own), processor_seconds(asked)
        _publish(client, ends)
        time.sleep(REST)
        used = processor_seconds(own) - before[0], processor_seconds(asked) - before[1]
    return {"ends": ends, "worker": used[0] * 1e6 / ends, "redis": used[1] * 1e6 / ends}


def _publish(client: redis.Redis, ends: int) -> None:
    """One at a time, as logouts come: in batches a worker would be woken up once for many."""
    start = time.monotonic()
    for number in range(ends):
        time.sleep(max(start + number / RATE - time.monotonic(), 0))
        client.publish(FEED, secrets.token_urlsafe(16))


def _listeners(client: redis.Redis) -> int:
    return int(client.pubsub_numsub(FEED)[0][1])
