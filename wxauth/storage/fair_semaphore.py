"""A semaphore that goes to the thread that has waited longest."""

from __future__ import annotations

import threading
from collections import deque


class FairSemaphore:
    """Like `threading.Semaphore`, but first come, first served: no new thread overtakes those that wait."""

    def __init__(self, free: int = 0) -> None:
        self._lock = threading.Lock()
        self._free = free
        #: A lock for each thread that waits. Releasing it wakes the thread.
        self.waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout: float | None) -> bool:
        """Take it. Return False if that is not possible within `timeout` seconds; None waits without a limit."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if timeout == 0:
                return False
            wakeup = threading.Lock()
            wakeup.acquire()
            self.waiting.append(wakeup)
        try:
            return wakeup.acquire(timeout=-1 if timeout is None else timeout) or self._was_given(wakeup)
        except BaseException:
            # gevent.Timeout and signals can interrupt the wait.
            if self._was_given(wakeup):
                self.release()
            raise

    def release(self) -> None:
        """Give it to the thread that has waited longest, or keep it free."""
        with self._lock:
            if self.waiting:
                self.waiting.popleft().release()
            else:
                self._free += 1

    def _was_given(self, wakeup: threading.Lock) -> bool:
        """Stop waiting. Return True if the semaphore was given to this thread at the last moment."""
        with self._lock:
            if wakeup not in self.waiting:
                return True
            self.waiting.remove(wakeup)
        return False
