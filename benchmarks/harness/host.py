"""Paths, and which core runs which process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

BENCHMARKS: Final = Path(__file__).parents[1]
ROOT: Final = BENCHMARKS.parent
BIN: Final = Path(sys.executable).parent

#: Runs the contender that is measured.
SERVER_CORE: Final = 0
#: Runs wrk, Redis, the fake WeChat and this program.
LOAD_CORE: Final = 1


def pinned(core: int) -> list[str]:
    """Return the prefix of a command that binds it to `core`."""
    return ["taskset", "-c", str(core)]
