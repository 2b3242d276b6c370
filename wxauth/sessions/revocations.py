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
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from ..errors import StoreUnavailable
from ..storage.acl import REVOCATIONS
from ..storage.client import RedisClient
from ..storage.reasons import FAILURES, HINTS, reason, unavailable

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
        """Log each reason once until the channel is alive again: the listener retries several times a second."""
        if word != self._logged or self.last_heartbeat > float("-inf"):
            log.warning("revocations_interrupted", extra={"reason": word, "hint": HINTS.get(word)})
        self._logged = word

    def _subscribe_and_listen(self) -> None:
        """Return when the nodes have changed or the subscriber is gone. Raises StoreUnavailable if one is silent."""
        self._redis.refresh()
        started_at = time.monotonic()
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            channels = {name: stack.enter_context(_subscribed(pool)) for name, pool in self._redis.pools()}
            for channel in channels.values():
                selector.register(channel, selectors.EVENT_READ)
            ids: list[str] = []
            while channels.keys() == dict(self._redis.pools()).keys():
                # The selector does not see what redis-py has read from the socket already.
                selector.select(0 if len(ids) >= MAX_BATCH else PING_INTERVAL / 2)
                ids = [id for channel in channels.values() for id in channel.receive()]
                if not self._tell(lambda subscriber, ids=ids: subscriber.on_revoked(ids)):  # type: ignore[misc]
                    return
                self.last_heartbeat = min(channel.last_heartbeat for channel in channels.values())
                if max(self.last_heartbeat, started_at) < time.monotonic() - MAX_SILENCE:
                    raise unavailable("timeout")


@contextlib.contextmanager
def _subscribed(pool: Any) -> Iterator[_Channel]:
    # Not one of the pool, which has few for all threads.
    connection = pool.connection_class(**pool.connection_kwargs)
    try:
        connection.connect()
        yield _Channel(connection)
    finally:
        connection.disconnect()


class _Channel:
    """The subscription to one node, with its heartbeat.

    It holds a plain connection: redis-py's PubSub connects again by itself, and does not say that it missed messages.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.last_heartbeat = float("-inf")
        self._asked_at: float | None = None
        self._ask("SUBSCRIBE", REVOCATIONS)

    def fileno(self) -> int:
        return int(self._connection._get_socket().fileno())

    def receive(self) -> list[str]:
        """Return the ids that have arrived, and send the next PING if it is due."""
        ids: list[str] = []
        while len(ids) < MAX_BATCH and self._connection.can_read(0):
            kind, *rest = self._connection.read_response()
            if kind == b"message":
                ids += rest[-1].decode(errors="replace").split()
            elif self._asked_at:
                # The answer to SUBSCRIBE or PING: what was published before it was sent has arrived.
                self.last_heartbeat, self._asked_at = self._asked_at, None
        if self._asked_at is None and time.monotonic() > self.last_heartbeat + PING_INTERVAL:
            self._ask("PING")
        return ids

    def _ask(self, *command: str) -> None:
        self._asked_at = time.monotonic()
        self._connection.send_command(*command)
