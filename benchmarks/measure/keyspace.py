"""The cost of a check that asks Redis, at several numbers of sessions in Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.contenders.table import BY_NAME
from benchmarks.harness.load import warm_up
from benchmarks.harness.seeding import add_copies, log_in
from benchmarks.harness.servers import ContenderServer, PinnedRedis
from benchmarks.measure.throughput import SESSIONS, WARM_UP_VISITS, measure_turn

#: At most this many sessions have a token and are requested. The others are copies of one session.
MAX_LOGINS: Final = 10_000


def measure(
    sizes: Sequence[int], rounds: int, seconds: int, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Return the turns for each number of sessions. All servers run, and take turns."""
    found: dict[str, list[dict[str, Any]]] = {str(size): [] for size in sizes}
    with contextlib.ExitStack() as stack:
        servers = [_start(stack, size, progress) for size in sizes]
        for _ in range(rounds):
            for size, (server, headers) in zip(sizes, servers, strict=True):
                progress(f"a check among {size:,} sessions")
                found[str(size)].append(asdict(measure_turn(server, headers, seconds)))
    return found


def _start(
    stack: contextlib.ExitStack, size: int, progress: Callable[[str], None]
) -> tuple[ContenderServer, list[str]]:
    """Start a server without a cache and its Redis with `size` sessions."""
    progress(f"filling Redis with {size:,} sessions")
    redis = stack.enter_context(PinnedRedis())
    add_copies(redis, max(size - MAX_LOGINS, 0))
    server = stack.enter_context(ContenderServer(BY_NAME["verify-uncached"], redis))
    headers = log_in(server, min(size, MAX_LOGINS))
    warm_up(server, headers, WARM_UP_VISITS * SESSIONS)
    return server, headers
