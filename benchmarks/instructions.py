"""How many instructions a hit takes, and in which functions of C: valgrind's callgrind counts them.

Unlike a time, a count hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final, cast

from benchmarks.places import BIN, ROOT, SERVER_CORE, pinned
from benchmarks.running import PinnedRedis
from benchmarks.seeding import log_in_ours
from benchmarks.table import OURS

COUNTED: Final = ("verify", "decorator", "flask")
TIMES: Final = 500
MOST_FUNCTIONS: Final = 12
NAMELESS: Final = "(those without a name)"
#: Of callgrind_annotate: `12,345 (1.2%)  file:function [object]`; a recursive function has a number behind it.
LINE: Final = re.compile(r" *(?P<count>[\d,]+) \([^)]*\) +[^:]*:(?P<function>[^ ]+?)('\d+)? \[")
TOTAL: Final = re.compile(r" *(?P<count>[\d,]+) \(100\.0%\) +PROGRAM TOTALS")


def measure() -> dict[str, dict[str, Any]]:
    """For each of COUNTED, instructions a call: `all`, and of the `functions` with most; empty without valgrind."""
    if not shutil.which("callgrind_annotate"):
        return {}
    with PinnedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        (token,) = log_in_ours(redis, 1)
        environ = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PROMETHEUS_MULTIPROC_DIR": folder,
            "REDIS_URL": redis.url,
            **OURS,
        }
        with _Valgrind(token, Path(folder), environ) as counting:
            return {name: counting.count(name) for name in COUNTED}


class _Valgrind:
    """`benchmarks.counted` under callgrind, which counts only while it is asked to."""

    def __init__(self, token: str, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder / 'calls'}"]
        command = [*pinned(SERVER_CORE), "valgrind", *options, sys.executable, "-m", "benchmarks.counted", token]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=environ, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self._orders, self._reports = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)

    def __enter__(self) -> _Valgrind:
        self._wait_for("ready")
        self._control("--instr=on")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def count(self, name: str) -> dict[str, Any]:
        self._ask(name)  # once in vain: whatever is done only once, is done
        self._control("--zero")
        self._ask(name)
        self._control("--dump")
        newest = max(self._folder.glob("calls.*"), key=lambda path: int(path.suffix[1:]))
        command = ["callgrind_annotate", "--threshold=100", "--auto=no", str(newest)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        return by_function(printed.splitlines(), TIMES)

    def _ask(self, name: str) -> None:
        self._orders.write(f"{name} {TIMES}\n")
        self._orders.flush()
        self._wait_for("done")

    def _wait_for(self, word: str) -> None:
        for line in self._reports:
            if line.strip() == word:
                return
        raise RuntimeError(f"the calls under callgrind ended without: {word}")

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self._process.pid)]
        subprocess.run(command, capture_output=True, check=True, timeout=120)


def by_function(lines: Iterable[str], times: int) -> dict[str, Any]:
    """What callgrind_annotate printed, for one of `times` calls."""
    total, functions = 0, Counter[str]()
    for line in lines:
        if found := TOTAL.match(line):
            total = _number(found)
        elif found := LINE.match(line):
            # An interpreter without symbols says where a function lies, which nobody can look up.
            functions[re.sub("^0x.*", NAMELESS, found["function"])] += _number(found)
    most = {name: round(count / times) for name, count in functions.most_common(MOST_FUNCTIONS)}
    return {"all": round(total / times), "functions": most}


def _number(found: re.Match[str]) -> int:
    return int(found["count"].replace(",", ""))
