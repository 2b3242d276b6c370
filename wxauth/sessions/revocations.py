"""The revocation channel: one subscription to each node that publishes ends of sessions.

A PONG on a subscription proves that everything published on that node before the PING has arrived. In a cluster only
the node that published can prove it, so there is one subscription for each primary.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..errors import StoreUnavailable
from ..storage.client import REVOCATIONS, RedisClient
from ..storage.reasons import FAILURES, HINTS, reason

#: Seconds.
PING_INTERVAL: Final = 0.5
MAX_SILENCE: Final = 2.0
RETRY_PAUSE: Final = 0.2
#: Messages that are read at once.
MAX_BATCH: Final = 1000

log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """What the listener reports to."""

    def on_revoked(self, ids: list[str]) -> None:
        """These sessions have ended. Called several times a second, mostly with an empty list."""

    def clear(self) -> None:
        """The end of a session may have been missed."""


class RevocationListener:
    """Listens in a background thread after `start`, while the subscriber exists. Times are `time.monotonic()` values.

    Everything published before `last_heartbeat` has been delivered.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._logged = ""
        self.last_heartbeat = float("-inf")

    def start(self, subscriber: Subscriber) -> None:
        """Start the thread, once in each process. It keeps no reference to the subscriber, and ends with it."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._subscriber = weakref.ref(subscriber)
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def reset(self) -> None:
        """Forget the thread: after a fork it exists only in the parent."""
        self._lock = threading.Lock()
        self._thread = None
        self.last_heartbeat = float("-inf")

    def _run(self) -> None:
        wanted = True
        while wanted:
            try:
                self._subscribe_and_listen()
            except (*FAILURES, StoreUnavailable) as error:
                self._log_once(error.reason if isinstance(error, StoreUnavailable) else reason(error))
            except Exception:
                log.exception("revocations_failed")
            finally:
                self.last_heartbeat = float("-inf")
                wanted = self._tell(lambda subscriber: subscriber.clear())
            time.sleep(RETRY_PAUSE)

    def _tell(self, call: Callable[[Subscriber], None]) -> bool:
        """Return False if the subscriber is gone."""
        subscriber = self._subscriber()
        if subscriber is not None:
            call(subscriber)
        return subscriber is not None

    def _log_once(self, word: str) -> None:
        """Log each reason once: the listener retries several times a second."""
        if word != self._logged:
            log.warning("revocations_interrupted", extra={"reason": word, "hint": HINTS.get(word)})
        self._logged = word

    def _subscribe_and_listen(self) -> None:
        with contextlib.ExitStack() as stack:
            self._redis.refresh()
            # If the nodes change after this line, `_listen` sees other names and returns.
            pools = self._redis.pools()
            self._listen({name: stack.enter_context(_Subscription(pool)) for name, pool in pools})

    def _listen(self, subscriptions: dict[str, _Subscription]) -> None:
        """Return when a node is silent, when the nodes have changed, or when the subscriber is gone."""
        self._logged = ""
        with selectors.DefaultSelector() as selector:
            for subscription in subscriptions.values():
                selector.register(subscription, selectors.EVENT_READ)
            more = False
            while subscriptions.keys() == dict(self._redis.pools()).keys():
                # The selector does not see what redis-py has read from the socket already.
                selector.select(0 if more else PING_INTERVAL / 2)
                batches = [subscription.receive() for subscription in subscriptions.values()]
                ids = [id for batch in batches for id in batch]
                if not self._tell(lambda subscriber, ids=ids: subscriber.on_revoked(ids)):  # type: ignore[misc]
                    return
                more = any(len(batch) >= MAX_BATCH for batch in batches)
                for subscription in subscriptions.values():
                    subscription.ping_if_due()
                self.last_heartbeat = min(subscription.last_heartbeat for subscription in subscriptions.values())
                if self.last_heartbeat < time.monotonic() - MAX_SILENCE:
                    return


class _Subscription:
    """One connection that has subscribed."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._pings: deque[float] = deque()

    def __enter__(self) -> _Subscription:
        self._connection = self._pool.get_connection()
        try:
            self._connection.send_command("SUBSCRIBE", REVOCATIONS)
            self._connection.read_response()
        except BaseException:
            self.__exit__()
            raise
        self.last_heartbeat = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()
        self._pool.release(self._connection)

    def fileno(self) -> int:
        return int(self._connection._get_socket().fileno())

    def ping_if_due(self) -> None:
        now = time.monotonic()
        if not self._pings and now > self.last_heartbeat + PING_INTERVAL:
            self._connection.send_command("PING")
            self._pings.append(now)

    def receive(self) -> list[str]:
        """Return the ids that have arrived."""
        ids: list[str] = []
        while len(ids) < MAX_BATCH and self._connection.can_read(0):
            kind, *rest = self._connection.read_response()
            if kind == b"message":
                ids += rest[-1].decode(errors="replace").split()
            elif kind == b"pong":
                self.last_heartbeat = self._pings.popleft()
        return ids
