"""The contenders in turns: each turn has a server and a Redis of its own, so that no process' luck lasts."""

from __future__ import annotations

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


def rounds(count: int, seconds: int, seed: int, chosen: Sequence[Contender] = CONTENDERS) -> Iterator[Contender]:
    """Whose turn it is: each contender once a round, in another order each time."""
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    for _ in range(count):
        yield from generator.sample(chosen, len(chosen))


def take_turn(contender: Contender, seconds: int) -> Turn:
    with PinnedRedis() as redis, ContenderServer(contender, redis) as server:
        headers = log_in(server, SESSIONS)
        examine(server, headers)
        visit(server, headers, VISITS * SESSIONS)
        return measured(server, headers, seconds)


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
    for contender in rounds(count, seconds, seed, chosen):
        progress(contender.title)
        found[contender.name].append(asdict(take_turn(contender, seconds)))
    return found
