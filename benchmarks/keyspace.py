"""What a check costs that asks Redis, while more and more sessions lie there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.load import visit
from benchmarks.running import ContenderServer, PinnedRedis
from benchmarks.seeding import bearer, copy_ours, log_in_ours
from benchmarks.table import BY_NAME
from benchmarks.throughput import SESSIONS, VISITS, measured

#: So many sessions are real and asked about; the rest are copies of one, under names of their own.
REAL: Final = 10_000

Filled = tuple[ContenderServer, list[str]]


def measure(
    sizes: Sequence[int], count: int, seconds: int, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """The turns by number of sessions; the servers run side by side and are driven in turns."""
    found: dict[str, list[dict[str, Any]]] = {str(size): [] for size in sizes}
    with contextlib.ExitStack() as stack:
        servers = [_filled(stack, size, progress) for size in sizes]
        for _ in range(count):
            for size, (server, headers) in zip(sizes, servers, strict=True):
                progress(f"a check among {size:,} sessions")
                found[str(size)].append(asdict(measured(server, headers, seconds)))
    return found


def _filled(stack: contextlib.ExitStack, size: int, progress: Callable[[str], None]) -> Filled:
    """A server without a cache, over a Redis with `size` sessions."""
    progress(f"filling Redis with {size:,} sessions")
    redis = stack.enter_context(PinnedRedis())
    tokens = log_in_ours(redis, min(size, REAL))
    copy_ours(redis, size - len(tokens))
    server = stack.enter_context(ContenderServer(BY_NAME["verify-uncached"], redis))
    headers = bearer(tokens)
    visit(server, headers, VISITS * SESSIONS)
    return server, headers
