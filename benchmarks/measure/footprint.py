"""Memory: bytes in Redis for each logged-in user, and memory of a worker for each cached session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import redis

from benchmarks.contenders.table import BY_NAME, VERIFY, Contender
from benchmarks.harness.load import warm_up
from benchmarks.harness.procs import resident_bytes, tree
from benchmarks.harness.seeding import log_in
from benchmarks.harness.servers import ContenderServer, PinnedRedis
from benchmarks.measure.throughput import SESSIONS, WARM_UP_VISITS
from wxauth.settings import Settings

USERS: Final = 1000
#: The contenders that keep sessions in Redis.
WITH_SESSIONS: Final = ("verify", "flask-session", "express-session", "koa-ioredis", "nginx-lua")


def bytes_in_redis(progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Return for each contender the keys per user, their MEMORY USAGE, and the growth of the data set."""
    found = {}
    for name in WITH_SESSIONS:
        progress(f"bytes in Redis: {BY_NAME[name].title}")
        found[name] = _bytes(BY_NAME[name])
    return found


def _bytes(contender: Contender) -> dict[str, float]:
    with PinnedRedis() as server, ContenderServer(contender, server) as running, server.client() as client:
        # The first login loads scripts and makes buffers, which are not memory of a user.
        log_in(running, 1)
        client.flushall()
        before = _dataset(client)
        log_in(running, USERS)
        keys = cast(list[bytes], client.keys())
        sizes = [cast(int, client.memory_usage(key, samples=0)) for key in keys]
        growth = _dataset(client) - before
    return {"keys": len(keys) / USERS, "usage": sum(sizes) / USERS, "growth": growth / USERS}


def _dataset(client: redis.Redis) -> int:
    # used_memory_dataset does not count the buffers of connections.
    return int(client.info("memory")["used_memory_dataset"])


def worker_memory(progress: Callable[[str], None]) -> dict[str, int]:
    """Return the bytes of a worker with one cached session, and with a full cache."""
    progress(f"memory of a worker with {Settings.cache_size:,} cached sessions")
    with PinnedRedis() as server, ContenderServer(VERIFY, server) as running:
        headers = log_in(running, Settings.cache_size)
        warm_up(running, headers[:1], WARM_UP_VISITS * SESSIONS)
        one = _worker_bytes(running)
        warm_up(running, headers, WARM_UP_VISITS * len(headers))
        full = _worker_bytes(running)
    return {"sessions": Settings.cache_size, "one": one, "full": full}


def _worker_bytes(running: ContenderServer) -> int:
    """Return the memory of the largest process: Granian's main process only supervises the worker."""
    return max(resident_bytes(pid) for pid in tree(running.process.pid))
