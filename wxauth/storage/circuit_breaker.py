"""A breaker: after some failures in a row it refuses at once, and lets one probe through now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

FAILURES: Final = 5
PROBE_INTERVAL: Final = 0.5


class CircuitBreaker:
    """Says whether a call is worth trying; whoever tries tells it how that went. Times are seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_probe = 0.0
        #: What the newest failure said.
        self.reason = ""

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES

    def admits(self) -> bool:
        """Whether to try: always while it is closed; while it is open, once in PROBE_INTERVAL."""
        if not self.is_open:
            return True
        with self._lock:
            now = self._clock()
            if now < self._next_probe:
                return False
            self._next_probe = now + PROBE_INTERVAL
            return True

    def succeeded(self) -> bool:
        """Whether this has just closed it."""
        if not self._failures:
            return False
        with self._lock:
            was_open, self._failures = self.is_open, 0
        return was_open

    def failed(self, reason: str = "") -> None:
        with self._lock:
            self.reason = reason
            self._failures += 1
            if self._failures == FAILURES:
                self._next_probe = self._clock() + PROBE_INTERVAL
