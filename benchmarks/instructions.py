"""How many instructions a hit takes, and in which functions of C: valgrind's callgrind counts them.

Unlike a time, a count hardly depends on what else the machine does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

from benchmarks.layers import environment
from benchmarks.places import ROOT, SERVER_CORE, pinned
from benchmarks.running import PinnedRedis
from benchmarks.seeding import log_in_ours

COUNTED: Final = ("verify", "decorator", "flask")
#: Whose functions are shown.
SHOWN: Final = "decorator"
TIMES: Final = 500
MOST_FUNCTIONS: Final = 12
NAMELESS: Final = "(those without a name)"
#: By how much of the total callgrind_annotate's functions may miss it: it leaves some out, and rounds.
MOST_MISSED: Final = 0.01
#: Seconds after which whatever is still counted is given up.
PATIENCE: Final = 300
#: Of callgrind_annotate: `12,345 (1.2%)  file:function [object]`; a recursive function has a number behind it.
LINE: Final = re.compile(r" *(?P<count>[\d,]+) \([^)]*\) +[^:]*:(?P<function>.+?)('\d+)? \[")
TOTAL: Final = re.compile(r" *(?P<count>[\d,]+) \(100\.0%\) +PROGRAM TOTALS")


def measure() -> dict[str, dict[str, Any]]:
    """For each of COUNTED, instructions a call: `all`, and of some `functions`; empty without valgrind."""
    if not shutil.which("valgrind"):
        return {}
    with PinnedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        (token,) = log_in_ours(redis, 1)
        with _Valgrind(token, Path(folder), environment(redis, folder)) as counting:
            counts = {name: counting.count(name) for name in COUNTED}
    most = [function for function, _ in counts[SHOWN].most_common(MOST_FUNCTIONS)]
    return {
        name: {"all": count.total(), "functions": {function: count[function] for function in most}}
        for name, count in counts.items()
    }


class _Valgrind:
    """`benchmarks.counted` under callgrind, which counts only while it is asked to."""

    def __init__(self, token: str, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        options = ["-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder / 'calls'}"]
        self._command = [
            *pinned(SERVER_CORE),
            "valgrind",
            *options,
            sys.executable,
            "-m",
            "benchmarks.counted",
            token,
        ]

    def __enter__(self) -> _Valgrind:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, env=self._environ, cwd=ROOT, stdin=pipe, stdout=pipe, text=True
        )
        self._orders, self._reports = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self._watchdog = threading.Timer(PATIENCE, self._process.kill)
        self._watchdog.start()
        try:
            self._wait_for("ready")
            self._control("--instr=on")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()

    def count(self, name: str) -> Counter[str]:
        """Instructions of one call, by function."""
        self._call(name)  # once in vain: whatever is done only once, is done
        self._dump()
        self._call(name)
        return by_function(self._dump(), TIMES)

    def _call(self, name: str) -> None:
        self._orders.write(f"{name} {TIMES}\n")
        self._orders.flush()
        self._wait_for("done")

    def _wait_for(self, word: str) -> None:
        for line in self._reports:
            if line.strip() == word:
                return
        raise RuntimeError(f"the calls under callgrind ended without: {word}")

    def _dump(self) -> list[str]:
        """What was counted since the dump before, as callgrind_annotate prints it."""
        before = set(self._folder.glob("calls.*"))
        self._control("--dump")
        # The control says that all is well whatever happens.
        (dump,) = set(self._folder.glob("calls.*")) - before
        return self._run("callgrind_annotate", "--threshold=100", "--auto=no", str(dump)).splitlines()

    def _control(self, option: str) -> None:
        self._run("callgrind_control", option, str(self._process.pid))

    def _run(self, *command: str) -> str:
        # In the same environment: the pipe between the two is named after parts of it.
        done = subprocess.run(command, env=self._environ, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        return done.stdout


def by_function(lines: Iterable[str], times: int) -> Counter[str]:
    """What callgrind_annotate printed, for one of `times` calls; ValueError if that does not add up."""
    total, functions = 0, Counter[str]()
    for line in lines:
        if found := TOTAL.match(line):
            total = _number(found)
        elif found := LINE.match(line):
            # An interpreter without symbols says where a function lies, which nobody can look up.
            functions[re.sub("^0x.*", NAMELESS, found["function"])] += _number(found)
    if not total or abs(functions.total() - total) > total * MOST_MISSED:
        raise ValueError(f"callgrind counted {total:,}, and {functions.total():,} in functions")
    return Counter({name: round(count / times) for name, count in functions.items()})


def _number(found: re.Match[str]) -> int:
    return int(found["count"].replace(",", ""))
