"""`python -m benchmarks`: run all measurements and write the report. Exit code 1 if a bar is missed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders.table import BY_NAME, CONTENDERS
from benchmarks.harness.host import BENCHMARKS, LOAD_CORE, ROOT
from benchmarks.measure import footprint, keyspace, machine, revocations, storm, throughput
from benchmarks.report import bars, charts, pages, scale, tables

#: Steps besides turns: revocations, memory of a worker, the storm, and each contender with sessions.
FIXED_STEPS: Final = 3 + len(footprint.WITH_SESSIONS)
SUMMARY: Final = ("per_second", "processor", "redis", "p99")


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a run. `seconds` is the length of a turn."""

    rounds: int
    seconds: int
    logins: int = 6000
    revocations: int = 20_000
    sessions: tuple[int, ...] = (1_000, 100_000, 1_000_000)

    @property
    def steps(self) -> int:
        return FIXED_STEPS + self.rounds * len(CONTENDERS) + (self.rounds + 1) * len(self.sessions)


QUICK: Final = Size(rounds=1, seconds=1, logins=600, revocations=2_000, sessions=(1_000, 20_000))


class Progress:
    """Print how far the run is: on a terminal in one line, else a line for each step."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()

    def __call__(self, step: str) -> None:
        self._done += 1
        minutes = (time.monotonic() - self._began) / 60
        line = f"[{self._done}/{self._steps}, {minutes:.1f} min] {step}"
        sys.stderr.write(f"\r\033[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()


def measure(size: Size, seed: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return all figures. Short measurements come first, so that an error shows early."""
    return {
        "rounds": size.rounds,
        "seconds": size.seconds,
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "revocations": revocations.measure(size.revocations, progress),
        "bytes": footprint.bytes_in_redis(progress),
        "memory": footprint.worker_memory(progress),
        "storm": storm.measure(size.logins, progress),
        "turns": throughput.measure(size.rounds, size.seconds, seed, CONTENDERS, progress),
        "keyspace": keyspace.measure(size.sessions, size.rounds, size.seconds, progress),
    }


def write_report(results: bars.Results, folder: Path) -> None:
    """Fill the tables of both pages and draw the charts. The text of the pages comes from this folder."""
    for name, blocks in {"README.md": tables.blocks(results), "scale.md": scale.blocks(results)}.items():
        (folder / name).write_text(pages.fill((BENCHMARKS / name).read_text(), blocks))
    charts.draw(results, folder / "charts")


def run(size: Size, seed: int, folder: Path) -> bars.Results:
    """Measure everything and write `results.json` and the report."""
    results = measure(size, seed, Progress(size.steps))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, folder)
    return results


def print_turns(names: list[str], size: Size, seed: int) -> None:
    """Measure the requests of a few contenders and print the medians."""
    contenders = [BY_NAME[name] for name in names]
    progress = Progress(size.rounds * len(contenders))
    found = {"turns": throughput.measure(size.rounds, size.seconds, seed, contenders, progress)}
    print()
    for name in names:
        rate, processor, redis, p99 = (bars.median(found, name, figure) for figure in SUMMARY)
        print(f"{name:24}{rate:9,.0f}/s {processor:9.1f} µs {redis:7.1f} µs in Redis {p99:8.1f} ms p99")


def print_bars(results: bars.Results) -> int:
    """Print the bars that are missed, and return how many there are."""
    missed = bars.missed(results)
    print("\n".join(["", *(f"missed: {line}" for line in missed)] if missed else ["", "All bars hold."]))
    return len(missed)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=2, help="length of a turn")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order of the contenders")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="one short round into build/bench; the exit code is 0")
    kind.add_argument("--only", nargs="+", metavar="NAME", choices=BY_NAME, help="turns of these only; write nothing")
    kind.add_argument(
        "--report", action="store_true", help="write tables and charts from results.json; measure nothing"
    )
    return parser.parse_args()


def main() -> int:
    chosen = options()
    size = Size(chosen.rounds, chosen.seconds)
    # Servers are started with a core of their own.
    os.sched_setaffinity(0, {LOAD_CORE})
    if chosen.only:
        print_turns(chosen.only, size, chosen.seed)
        return 0
    if chosen.quick:
        print_bars(run(QUICK, chosen.seed, ROOT / "build" / "bench"))
        return 0
    if chosen.report:
        results = json.loads((BENCHMARKS / "results.json").read_text())
        write_report(results, BENCHMARKS)
    else:
        results = run(size, chosen.seed, BENCHMARKS)
    return 1 if print_bars(results) else 0


if __name__ == "__main__":
    sys.exit(main())
