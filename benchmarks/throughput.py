"""The contenders in turns, round after round: short ones, because a machine's own pace changes within a minute.

All of them run side by side, and only the one whose turn it is has anything to do. Every few rounds all are started
anew, each over a Redis of its own, so that no process' luck lasts.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.load import WrongAnswer, drive, examine, visit
from benchmarks.procs import processor_seconds, tree
from benchmarks.running import ContenderServer, PinnedRedis
from benchmarks.seeding import log_in
from benchmarks.table import CONTENDERS, Contender

SESSIONS: Final = 1000
#: A server is warm once each user has been there so often.
VISITS: Final = 3
ROUNDS_A_LIFE: Final = 5
#: Seconds of load before a turn is measured: while others had theirs, this server grew cold.
WARM_UP: Final = 1

Alive = tuple[ContenderServer, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one contender. Latencies in milliseconds, processor time in microseconds a request."""

    a_second: float
    processor: float
    redis: float
    p50: float
    p99: float
    started_in: float
    failed: int


def rounds(count: int, seed: int, chosen: Sequence[Contender] = CONTENDERS) -> Iterator[list[Contender]]:
    """Whose turn it is: each contender once a round, in another order each time."""
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    for _ in range(count):
        yield generator.sample(chosen, len(chosen))


def start(contender: Contender, stack: contextlib.ExitStack) -> Alive:
    """A server that knows SESSIONS users and turns others away, and what these users send."""
    redis = stack.enter_context(PinnedRedis())
    server = stack.enter_context(ContenderServer(contender, redis))
    headers = log_in(server, SESSIONS)
    examine(server, headers)
    visit(server, headers, VISITS * SESSIONS)
    return server, headers


def measured(server: ContenderServer, headers: Sequence[str], seconds: int) -> Turn:
    """`seconds` of load on a server that is warm."""
    own, asked = tree(server.process.pid), [server.redis.process.pid]
    before = processor_seconds(own), processor_seconds(asked)
    load = drive(server, headers, seconds)
    if not load.requests:
        raise WrongAnswer(f"{server.contender.name} answered nobody in {seconds} s")
    processor = (processor_seconds(own) - before[0]) * 1e6 / load.requests
    redis = (processor_seconds(asked) - before[1]) * 1e6 / load.requests
    return Turn(load.a_second, processor, redis, load.p50, load.p99, server.started_in, load.failed)


def measure(
    count: int, seconds: int, seed: int, chosen: Sequence[Contender], progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """All turns, by contender."""
    found: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in chosen}
    order = list(rounds(count, seed, chosen))
    for first in range(0, count, ROUNDS_A_LIFE):
        with contextlib.ExitStack() as stack:
            alive = {contender.name: start(contender, stack) for contender in chosen}
            for contender in itertools.chain(*order[first : first + ROUNDS_A_LIFE]):
                progress(contender.title)
                server, headers = alive[contender.name]
                drive(server, headers, WARM_UP)
                found[contender.name].append(asdict(measured(server, headers, seconds)))
    return found
