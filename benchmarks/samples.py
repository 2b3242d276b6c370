"""Where the time goes in a running server: py-spy looks many times a second whose code holds the interpreter.

Unlike the parts that `layers` times, this is code that a request before has pushed out of the processor's caches.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.load import drive, visit
from benchmarks.places import BIN, LOAD_CORE, ROOT, pinned
from benchmarks.procs import resident_bytes, tree
from benchmarks.running import ContenderServer, PinnedRedis
from benchmarks.seeding import log_in
from benchmarks.table import BY_NAME, Contender
from benchmarks.throughput import SESSIONS, VISITS

PROFILED: Final = ("verify", "decorator", "decorator-uncached")
SECONDS: Final = 10
LOOKS_A_SECOND: Final = 200
#: py-spy reads the stack of each thread before it knows which one holds the interpreter.
THREADS: Final = {"WXAUTH_THREADS": "4"}
#: What a thread does that holds the interpreter and has no Python on its stack: Granian's own code.
OUTSIDE: Final = "outside Python"
FRAME: Final = re.compile(r"\((?P<path>[^()]*\.py)(:\d+)?\)$")


def measure(progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """For each of PROFILED, shares of the looks by package; empty where py-spy may not look."""
    found = {}
    for name in PROFILED:
        progress(f"py-spy: {BY_NAME[name].title}")
        found[name] = _profile(BY_NAME[name])
    return found


def _profile(contender: Contender) -> dict[str, float]:
    with PinnedRedis() as redis, ContenderServer(contender, redis, THREADS) as server:
        headers = log_in(server, SESSIONS)
        visit(server, headers, VISITS * SESSIONS)
        with ThreadPoolExecutor() as beside:
            load = beside.submit(drive, server, headers, SECONDS + 2)
            stacks = _stacks(max(tree(server.process.pid), key=resident_bytes), server.folder / "stacks")
            load.result()
    return shares(stacks)


def _stacks(pid: int, into: Path) -> list[str]:
    """A line for each stack: its frames from the outermost to the innermost, and how often it was seen."""
    options = ["--gil", "--nonblocking", "--full-filenames", "--format", "raw", "--rate", str(LOOKS_A_SECOND)]
    command = [str(BIN / "py-spy"), "record", *options, "--duration", str(SECONDS), "--output", str(into)]
    done = subprocess.run([*pinned(LOAD_CORE), *command, "--pid", str(pid)], capture_output=True, check=False)
    return into.read_text().splitlines() if done.returncode == 0 else []


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """By the package of the innermost frame, the largest first."""
    seen: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        seen[_package(frames.rpartition(";")[2])] += int(count)
    return {package: count / seen.total() for package, count in seen.most_common()}


def _package(frame: str) -> str:
    found = FRAME.search(frame)
    if found is None:
        return OUTSIDE
    path = Path(found["path"])
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1].removesuffix(".py")
    return path.relative_to(ROOT).parts[0] if path.is_relative_to(ROOT) else "standard library"
