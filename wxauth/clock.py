"""The time, which tests can move."""

from __future__ import annotations

import time


class Clock:
    """Unix time in seconds. `offset` is 0 in production; scripts in Redis add it to Redis' own time."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self.offset += seconds
