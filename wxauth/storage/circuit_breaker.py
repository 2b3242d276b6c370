"""A circuit breaker: after some failures in a row calls fail at once, and a probe is let through now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ..metrics import BREAKER_OPEN

MAX_FAILURES: Final = 5
#: Seconds.
PROBE_INTERVAL: Final = 0.5


class CircuitBreaker:
    """Ask `admits` before a call, and report its outcome. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_probe = 0.0
        self._failed_at = self._succeeded_at = float("-inf")
        #: The reason of the newest failure.
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self._failures >= MAX_FAILURES

    def has_only_failed_since(self, start: float) -> bool:
        """Whether a call has failed since `start`, a time of the clock, and none has succeeded."""
        return self._failed_at > start > self._succeeded_at

    def admits(self) -> bool:
        """Return whether to try: always while closed, once in PROBE_INTERVAL while open."""
        if not self.is_open:
            return True
        with self._lock:
            now = self._clock()
            if now < self._next_probe:
                return False
            self._next_probe = now + PROBE_INTERVAL
            return True

    def succeeded(self) -> None:
        """Report a success."""
        self._succeeded_at = self._clock()
        if self._failures:
            with self._lock:
                self._failures = 0
                BREAKER_OPEN.set(0)

    def failed(self, reason: str = "") -> None:
        """Report a failure."""
        self._failed_at = self._clock()
        with self._lock:
            self.reason = reason
            self._failures += 1
            if self.is_open:
                # A probe that fails sets it again, in case the breaker of another node has closed.
                BREAKER_OPEN.set(1)
            if self._failures == MAX_FAILURES:
                self._next_probe = self._clock() + PROBE_INTERVAL
