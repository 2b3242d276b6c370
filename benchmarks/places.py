"""Where things lie, and which core does what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
BIN: Final = Path(sys.executable).parent

#: A contender has this core for itself.
SERVER_CORE: Final = 0
#: wrk, Redis, the fake WeChat and this harness share the other: whoever asks Redis is spared its processor time.
LOAD_CORE: Final = 1


def pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core)]
