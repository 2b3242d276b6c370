"""Requests per second. The contenders take short turns in random order, because a machine's speed changes.

All contenders run at the same time, but only one receives requests. All are restarted for each round, because
each start of a process has a speed of its own.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.contenders.table import CONTENDERS, Contender
from benchmarks.harness.load import WrongAnswer, check_answers, drive, warm_up
from benchmarks.harness.procs import processor_seconds, tree
from benchmarks.harness.seeding import log_in
from benchmarks.harness.servers import ContenderServer, FakeWeChat, PinnedRedis

SESSIONS: Final = 1000
#: Requests of each user before the first measurement.
WARM_UP_VISITS: Final = 3
#: Seconds of load before each turn.
WARM_UP_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one contender.

    Latencies are in milliseconds, processor times in microseconds per request, `started_in` is in seconds.
    """

    per_second: float
    processor: float
    redis: float
    p50: float
    p99: float
    started_in: float
    failed: int


def measure(
    count: int, seconds: int, seed: int, contenders: Sequence[Contender], progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Return all turns by the name of the contender."""
    found: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for order in rounds(count, seed, contenders):
        with contextlib.ExitStack() as stack:
            wechat = stack.enter_context(FakeWeChat(0))
            servers = {contender.name: _start(contender, wechat, stack) for contender in contenders}
            for contender in order:
                progress(contender.title)
                server, headers = servers[contender.name]
                drive(server, headers, WARM_UP_SECONDS)
                found[contender.name].append(asdict(measure_turn(server, headers, seconds)))
    return found


def rounds(count: int, seed: int, contenders: Sequence[Contender] = CONTENDERS) -> Iterator[list[Contender]]:
    """Yield for each round the contenders in random order."""
    generator = random.Random(seed)  # noqa: S311 - not a secret
    for _ in range(count):
        yield generator.sample(contenders, len(contenders))


def measure_turn(server: ContenderServer, headers: Sequence[str], seconds: int) -> Turn:
    """Measure `seconds` of load on a warm server. Raises WrongAnswer if it answers no request."""
    groups = tree(server.process.pid), [server.redis.process.pid]
    before = [processor_seconds(pids) for pids in groups]
    load = drive(server, headers, seconds)
    used = [processor_seconds(pids) - start for pids, start in zip(groups, before, strict=True)]
    if not load.requests:
        raise WrongAnswer(f"{server.contender.name} answered no request in {seconds} s")
    processor, redis = (part * 1e6 / load.requests for part in used)
    return Turn(load.per_second, processor, redis, load.p50, load.p99, server.started_in, load.failed)


def _start(
    contender: Contender, wechat: FakeWeChat, stack: contextlib.ExitStack
) -> tuple[ContenderServer, Sequence[str]]:
    """Start a contender, log SESSIONS users in, check its answers and warm it up. Returns it and the header lines."""
    redis = stack.enter_context(PinnedRedis())
    server = stack.enter_context(ContenderServer(contender, redis, {"WXAUTH_WECHAT_URL": wechat.url}))
    headers = log_in(server, SESSIONS)
    check_answers(server, headers)
    warm_up(server, headers, WARM_UP_VISITS * SESSIONS)
    return server, headers
