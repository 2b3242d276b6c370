"""One worker makes a value, the others wait for it in Redis."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

from ..errors import StoreUnavailable
from .client import RedisClient

T = TypeVar("T")

POLL_INTERVAL: Final = 0.1
#: Seconds by which a lock outlives the deadline of its owner: a DNS look-up can exceed the deadline.
LOCK_GRACE: Final = 2


def single_flight(
    redis: RedisClient, lock: str, deadline: float, read: Callable[[], T | None], make: Callable[[], T]
) -> T:
    """Return what `read` finds in Redis. If that is None, one caller in all workers calls `make`, which stores it.

    `lock` is the key of the lock, `deadline` a `time.monotonic()` value. Raises TimeoutError, StoreUnavailable, and
    what `make` raises.
    """
    while (found := read()) is None:
        # Not redis-py's Lock, which knows no breaker. Not SET NX: sent again after a lost connection, it would
        # find its own lock.
        if redis.count(lock, math.ceil(deadline - time.monotonic() + LOCK_GRACE)) == 1:
            try:
                # Another worker may have stored it before this one got the lock.
                found = read()
                return make() if found is None else found
            finally:
                _release(redis, lock)
        if time.monotonic() + POLL_INTERVAL > deadline:
            raise TimeoutError
        time.sleep(POLL_INTERVAL)
    return found


def _release(redis: RedisClient, lock: str) -> None:
    """Delete the lock. If it had expired, this may delete another worker's, and two make the value."""
    with contextlib.suppress(StoreUnavailable):
        redis.delete(lock)
