"""`python -m benchmarks`: the whole run. Exit code 1 if a bar is missed, which are then listed."""

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

from benchmarks import (
    bars,
    charts,
    feed,
    footprint,
    instructions,
    keyspace,
    layers,
    login,
    machine,
    report,
    samples,
    scale,
    throughput,
)
from benchmarks.places import HERE, LOAD_CORE, ROOT
from benchmarks.table import BY_NAME, CONTENDERS

#: Steps besides turns: layers, instructions, feed, worker, and one for each profile, login delay and keeper.
ASIDE: Final = 4 + len(samples.PROFILED) + len(login.DELAYS) + len(footprint.WHO_KEEPS_SESSIONS)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rounds: int
    seconds: int
    logins: int = 500
    ends: int = 20_000
    sessions: tuple[int, ...] = (1_000, 100_000, 1_000_000)

    @property
    def steps(self) -> int:
        return ASIDE + self.rounds * len(CONTENDERS) + (self.rounds + 1) * len(self.sessions)


QUICK: Final = Size(rounds=1, seconds=1, logins=50, ends=2_000, sessions=(1_000, 5_000))


class Progress:
    """One line that tells how far it is, on a terminal over and over the same."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        self._done += 1
        minutes = (time.monotonic() - self._began) / 60
        line = f"[{self._done}/{self._steps}, {minutes:.1f} min] {what}"
        end = "" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"\r\033[K{line}" if not end else f"{line}{end}")
        sys.stderr.flush()


def measure(size: Size, seed: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """All figures. What is short goes first: if something is amiss, it shows at once."""
    results: dict[str, Any] = {
        "rounds": size.rounds,
        "seconds": size.seconds,
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine.session_json(),
    }
    progress("the path of a hit, part by part")
    results["layers"] = layers.measure()
    progress("the instructions of a hit, by callgrind")
    results["instructions"] = instructions.measure()
    results["samples"] = samples.measure(progress)
    results["feed"] = feed.measure(size.ends, progress)
    results["bytes"] = footprint.bytes_in_redis(progress)
    results["memory"] = footprint.worker_memory(progress)
    results["login"] = login.measure(size.logins, progress)
    results["turns"] = throughput.measure(size.rounds, size.seconds, seed, CONTENDERS, progress)
    results["keyspace"] = keyspace.measure(size.sessions, size.rounds, size.seconds, progress)
    return results


def write(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "README.md").write_text(report.written(results))
    (folder / "scale.md").write_text(scale.written(results))
    charts.draw(results, folder / "charts")


def turns_alone(names: list[str], size: Size, seed: int) -> None:
    """A look at a few contenders; nothing is written."""
    chosen = [BY_NAME[name] for name in names]
    found = throughput.measure(size.rounds, size.seconds, seed, chosen, Progress(size.rounds * len(chosen)))
    print()
    for name in names:
        figures = (
            bars.median({"turns": found}, name, figure) for figure in ("a_second", "processor", "redis", "p99")
        )
        rate, processor, redis, p99 = figures
        print(f"{name:24}{rate:9,.0f}/s {processor:9.1f} µs {redis:7.1f} µs in Redis {p99:8.1f} ms p99")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one short round into build/bench, without a verdict")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BY_NAME, help="turns of these alone, no files")
    parser.add_argument(
        "--write", action="store_true", help="write the files anew from results.json, measure nothing"
    )
    return parser.parse_args()


def main() -> int:
    chosen = options()
    size = QUICK if chosen.quick else Size(chosen.rounds, chosen.seconds)
    folder = ROOT / "build" / "bench" if chosen.quick else HERE
    # The servers are given the other core.
    os.sched_setaffinity(0, {LOAD_CORE})
    if chosen.only:
        turns_alone(chosen.only, size, chosen.seed)
        return 0
    if chosen.write:
        results = json.loads((folder / "results.json").read_text())
    else:
        results = measure(size, chosen.seed, Progress(size.steps))
    write(results, folder)
    return verdict(results, judged=not chosen.quick)


def verdict(results: bars.Results, *, judged: bool) -> int:
    missed = bars.missed(results)
    print("\nAll bars hold." if not missed else "", *missed, sep="\nmissed: ")
    return 1 if missed and judged else 0


if __name__ == "__main__":
    sys.exit(main())
