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
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .errors import StoreUnavailable
from .redis_causes import CURES, FAILURES, cause
from .redis_client import RedisClient
from .redis_wire import FEED

PING_INTERVAL: Final = 0.5
SILENCE: Final = 2.0
RETRY_PAUSE: Final = 0.2
MOST_AT_ONCE: Final = 1000

log = logging.getLogger(__name__)

Listener = Callable[[list[str]], None]


class Feed:
    """Listens in the background from `start` on; it ends with the process. Times are `time.monotonic()` values.

    Whatever was published anywhere before `heard_at` has been handed on. `run` counts how often listening had to
    begin anew, when something may have been missed.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.heard_at = float("-inf")
        self.run = 0
        self._said = ""

    def start(self, heard: Listener, interrupted: Callable[[], None]) -> None:
        """Once in each process. `heard` gets ids of ended sessions; `interrupted` hears that some may be missing."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._listen, args=(heard, interrupted), daemon=True)
                self._thread.start()

    def forget_parent(self) -> None:
        """In a forked process: the thread that listened is the parent's."""
        self._lock = threading.Lock()
        self._thread = None
        self.heard_at = float("-inf")

    def _listen(self, heard: Listener, interrupted: Callable[[], None]) -> None:
        while True:
            try:
                self._subscribe_and_follow(heard)
            except (*FAILURES, StoreUnavailable) as error:
                self._say(error.cause if isinstance(error, StoreUnavailable) else cause(error))
            except Exception:
                log.exception("feed_broken")
            finally:
                self.heard_at = float("-inf")
                self.run += 1
                interrupted()
            time.sleep(RETRY_PAUSE)

    def _say(self, word: str) -> None:
        """Once for each trouble: it is begun anew several times a second."""
        if word != self._said:
            log.warning("feed_interrupted", extra={"cause": word, "cure": CURES.get(word)})
        self._said = word

    def _subscribe_and_follow(self, heard: Listener) -> None:
        with contextlib.ExitStack() as subscriptions:
            self._redis.nodes.look_around()
            entered = [subscriptions.enter_context(_Subscription(pool)) for _, pool in self._redis.nodes.pools()]
            # Asked again, because only now Sentinel's pool knows which master it is connected to.
            names = [name for name, _ in self._redis.nodes.pools()]
            self._follow(dict(zip(names, entered, strict=False)), heard)

    def _follow(self, subscriptions: dict[str, _Subscription], heard: Listener) -> None:
        """Until one of them falls silent, or the nodes are no longer these."""
        self._said = ""
        with selectors.DefaultSelector() as selector:
            for subscription in subscriptions.values():
                selector.register(subscription, selectors.EVENT_READ)
            more = False
            while subscriptions.keys() == dict(self._redis.nodes.pools()).keys():
                # What has been read from the socket already, the selector does not see.
                selector.select(0 if more else PING_INTERVAL / 2)
                told = [subscription.receive() for subscription in subscriptions.values()]
                heard([id for ids in told for id in ids])
                more = any(len(ids) >= MOST_AT_ONCE for ids in told)
                for subscription in subscriptions.values():
                    subscription.ping_if_due()
                self.heard_at = min(subscription.heard_at for subscription in subscriptions.values())
                if self.heard_at < time.monotonic() - SILENCE:
                    return


class _Subscription:
    """One connection that has subscribed."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._pings: deque[float] = deque()

    def __enter__(self) -> _Subscription:
        self._connection = self._pool.get_connection()
        try:
            self._connection.send_command("SUBSCRIBE", FEED)
            self._connection.read_response()
        except BaseException:
            self.__exit__()
            raise
        self.heard_at = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()
        self._pool.release(self._connection)

    def fileno(self) -> int:
        return int(self._connection._get_socket().fileno())

    def ping_if_due(self) -> None:
        now = time.monotonic()
        if not self._pings and now > self.heard_at + PING_INTERVAL:
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
                self.heard_at = self._pings.popleft()
        return ids
