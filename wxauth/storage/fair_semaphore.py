"""A semaphore that goes to the thread that has waited longest."""

from __future__ import annotations

import threading
from collections import deque


class FairSemaphore:
    """A counter of what is `free`, used like `threading.Semaphore`, where a new thread may overtake others."""

    def __init__(self, free: int = 0) -> None:
        self._lock = threading.Lock()
        self._free = free
        #: A lock for each thread that waits. To release it wakes the thread.
        self.waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout: float | None) -> bool:
        """Return whether the semaphore was free within `timeout` seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Lock()
            turn.acquire()
            self.waiting.append(turn)
        return turn.acquire(timeout=-1 if timeout is None else timeout) or not self._leave(turn)

    def release(self) -> None:
        """Give it to the thread that has waited longest, or keep it free."""
        with self._lock:
            if self.waiting:
                self.waiting.popleft().release()
            else:
                self._free += 1

    def _leave(self, turn: threading.Lock) -> bool:
        """Stop waiting. Return False if the turn has come in the last moment."""
        with self._lock:
            is_waiting = turn in self.waiting
            if is_waiting:
                self.waiting.remove(turn)
        return is_waiting
