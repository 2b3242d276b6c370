"""The revocation feed: a subscription to each node of Redis that may end sessions, and when they were last heard.

Part of the door to `redis`. Every worker asks its own subscriptions PING: a PONG proves that whatever was published
on that node before has arrived, and the traffic grows with the number of workers, not with its square.
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
from ..storage.client import RedisClient
from ..storage.reasons import FAILURES, HINTS, reason
from ..storage.wire import REVOCATIONS

PING_INTERVAL: Final = 0.5
SILENCE: Final = 2.0
RETRY_PAUSE: Final = 0.2
MOST_AT_ONCE: Final = 1000

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Whoever keeps sessions at hand."""

    def on_revoked(self, ids: list[str]) -> None:
        """These sessions are over. Called several times a second, mostly with none."""

    def clear(self) -> None:
        """The end of some session may have been missed."""


class RevocationListener:
    """Listens in the background from `start` on, as long as there is a listener. Times are `time.monotonic()` values.

    Everything published before `last_heartbeat` has been delivered. `run` counts how often listening had to
    begin anew, when something may have been missed.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.last_heartbeat = float("-inf")
        self.run = 0
        self._said = ""

    def start(self, listener: Listener) -> None:
        """Once in each process. The listener isn't kept alive: with it the feed ends."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._listener = weakref.ref(listener)
                self._thread = threading.Thread(target=self._listen, daemon=True)
                self._thread.start()

    def forget_parent(self) -> None:
        """In a forked process: the thread that listened is the parent's."""
        self._lock = threading.Lock()
        self._thread = None
        self.last_heartbeat = float("-inf")

    def _listen(self) -> None:
        somebody_listens = True
        while somebody_listens:
            try:
                self._subscribe_and_follow()
            except (*FAILURES, StoreUnavailable) as error:
                self._say(error.reason if isinstance(error, StoreUnavailable) else reason(error))
            except Exception:
                log.exception("feed_broken")
            finally:
                self.last_heartbeat = float("-inf")
                self.run += 1
                somebody_listens = self._tell(lambda listener: listener.clear())
            time.sleep(RETRY_PAUSE)

    def _hand_on(self, ids: list[str]) -> bool:
        return self._tell(lambda listener: listener.on_revoked(ids))

    def _tell(self, what: Callable[[Listener], None]) -> bool:
        """False if nobody listens any more."""
        listener = self._listener()
        if listener is not None:
            what(listener)
        return listener is not None

    def _say(self, word: str) -> None:
        """Once for each trouble: it is begun anew several times a second."""
        if word != self._said:
            log.warning("feed_interrupted", extra={"reason": word, "hint": HINTS.get(word)})
        self._said = word

    def _subscribe_and_follow(self) -> None:
        with contextlib.ExitStack() as subscriptions:
            self._redis.nodes.look_around()
            # If one has found another master meanwhile, the names are no longer these, and it is begun anew.
            pools = self._redis.nodes.pools()
            self._follow({name: subscriptions.enter_context(_Subscription(pool)) for name, pool in pools})

    def _follow(self, subscriptions: dict[str, _Subscription]) -> None:
        """Until one of them falls silent, the nodes are no longer these, or nobody listens."""
        self._said = ""
        with selectors.DefaultSelector() as selector:
            for subscription in subscriptions.values():
                selector.register(subscription, selectors.EVENT_READ)
            more = False
            while subscriptions.keys() == dict(self._redis.nodes.pools()).keys():
                # What has been read from the socket already, the selector does not see.
                selector.select(0 if more else PING_INTERVAL / 2)
                told = [subscription.receive() for subscription in subscriptions.values()]
                if not self._hand_on([id for ids in told for id in ids]):
                    return
                more = any(len(ids) >= MOST_AT_ONCE for ids in told)
                for subscription in subscriptions.values():
                    subscription.ping_if_due()
                self.last_heartbeat = min(subscription.last_heartbeat for subscription in subscriptions.values())
                if self.last_heartbeat < time.monotonic() - SILENCE:
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
        """The ids that have arrived."""
        ids: list[str] = []
        while len(ids) < MOST_AT_ONCE and self._connection.can_read(0):
            kind, *rest = self._connection.read_response()
            if kind == b"message":
                ids += rest[-1].decode(errors="replace").split()
            elif kind == b"pong":
                self.last_heartbeat = self._pings.popleft()
        return ids
