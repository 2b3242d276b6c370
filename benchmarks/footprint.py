"""What a logged-in user takes: bytes in Redis, and memory in a worker that has its session at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import redis

from benchmarks.load import visit
from benchmarks.procs import resident_bytes, tree
from benchmarks.running import ContenderServer, PinnedRedis
from benchmarks.seeding import log_in
from benchmarks.table import BY_NAME, VERIFY, Contender
from benchmarks.throughput import SESSIONS, VISITS
from wxauth.settings import Settings

USERS: Final = 1000
WHO_KEEPS_SESSIONS: Final = ("verify", "flask-session", "express-session", "koa-ioredis", "nginx-lua")


def bytes_in_redis(progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """For each user, by contender: MEMORY USAGE of all its keys, and what all of Redis grew by."""
    found = {}
    for name in WHO_KEEPS_SESSIONS:
        progress(f"bytes in Redis: {BY_NAME[name].title}")
        found[name] = _bytes(BY_NAME[name])
    return found


def _bytes(contender: Contender) -> dict[str, float]:
    with PinnedRedis() as server, ContenderServer(contender, server) as running, server.client() as client:
        before = _used(client)
        log_in(running, USERS)
        keys = cast(list[bytes], client.keys())
        sizes = [cast(int, client.memory_usage(key, samples=0)) for key in keys]
        grown = _used(client) - before
    return {"keys": len(keys) / USERS, "usage": sum(sizes) / USERS, "grown": grown / USERS}


def _used(client: redis.Redis) -> int:
    # used_memory_dataset leaves out the buffers of connections, which come and go.
    return int(client.info("memory")["used_memory_dataset"])


def worker_memory(progress: Callable[[str], None]) -> dict[str, int]:
    """A worker's bytes before any session, and with a full cache."""
    progress(f"memory of a worker, {Settings.cache_size} sessions at hand")
    with PinnedRedis() as server, ContenderServer(VERIFY, server) as running:
        headers = log_in(running, Settings.cache_size)
        visit(running, headers[:1], VISITS * SESSIONS)
        warm = _worker(running)
        visit(running, headers, VISITS * len(headers))
        full = _worker(running)
    return {"sessions": Settings.cache_size, "warm": warm, "full": full, "processes": len(tree(running.process.pid))}


def _worker(running: ContenderServer) -> int:
    """The largest process of the tree: Granian has one beside it that only watches."""
    return max(resident_bytes(pid) for pid in tree(running.process.pid))
