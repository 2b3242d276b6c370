"""The cache in front of the store: sessions that this worker resolved a moment ago, and the revocation feed.

What is kept here is believed only while every node of Redis that ends sessions is heard. The subscription to each is
asked PING, and a PONG proves that whatever was published before the PING has arrived. So a logout holds here within
milliseconds, and across a cut network once the last PONG is BELIEVED_FOR seconds old.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import StoreUnavailable, TokenInvalid
from ..metrics import CHECKS
from .revocations import RevocationListener
from .store import SessionStore, WxSession

BELIEVED_FOR: Final = 2.0
#: Redis is asked again now and then, should all else have failed, or somebody have emptied it by hand.
KEPT_FOR: Final = 60.0
#: A read that took longer than this may have been overtaken by a revocation that is forgotten already.
LONGEST_READ: Final = 1.0
REMEMBERED_FOR: Final = 5.0
#: As the problems are called; their table stands on a floor above.
RESULTS: Final[Mapping[type[Exception], str]] = {TokenInvalid: "token_invalid", StoreUnavailable: "store_unavailable"}


@dataclass(slots=True)
class _Kept:
    session: WxSession
    touch_due_at: float
    kept_at: float


class _Hits:
    """Counts hits, and tells the metric now and then: one that several processes share costs more than a whole hit.

    `note` is a counter of C, which no other thread can come between; to read it is to count once too much.
    """

    def __init__(self) -> None:
        self._metric = CHECKS.labels("ok", "cache")
        self._lock = threading.Lock()
        self._read = 0
        self._told = 0
        self.note = itertools.count().__next__

    def tell(self) -> None:
        with self._lock:
            noted = self.note() - self._read
            self._read += 1
            self._metric.inc(noted - self._told)
            self._told = noted


class SessionCache:
    """Resolves tokens as the store does, mostly without asking it. One for each worker; safe between threads.

    `size` is how many sessions are kept at hand; the least recently used goes first, and 0 keeps none. Without a
    `feed` none is kept either.
    """

    def __init__(
        self,
        store: SessionStore,
        feed: RevocationListener | None,
        size: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._feed = feed if size else None
        self._size = size
        self._monotonic = monotonic
        self._hits = _Hits()
        self._lock = threading.Lock()
        self.clear()
        store.shelves.on_ended = self.forget
        begin_anew = weakref.WeakMethod(self._begin_anew)
        os.register_at_fork(after_in_child=lambda: (begin := begin_anew()) and begin())

    def resolve(self, text: str, *, touch: bool = True) -> WxSession:
        """As SessionStore.resolve."""
        kept = self._kept.get(text)
        if kept is not None and self._may_believe(kept, touch):
            self._hits.note()
            try:  # noqa: SIM105 - suppress() would cost more than what it wraps
                self._kept.move_to_end(text)
            except KeyError:  # another thread may just have dropped it
                pass
            return kept.session
        return self._ask(text, touch)

    def verify_signature(self, text: str) -> None:
        """As SessionStore.verify_signature."""
        if text in self._kept:  # so its signature was good when it came
            return
        try:
            self._store.verify_signature(text)
        except TokenInvalid:
            CHECKS.labels("token_invalid", "front").inc()
            raise

    def forget(self, ids: Iterable[str]) -> None:
        """These sessions are over. Called for each revocation, here or anywhere."""
        now = self._monotonic()
        with self._lock:
            for id in ids:
                self._ended[id] = now
                self._ended.move_to_end(id)
                text = self._texts.pop(id, None)
                if text is not None:
                    self._kept.pop(text, None)
            while self._ended and next(iter(self._ended.values())) < now - REMEMBERED_FOR:
                self._ended.popitem(last=False)

    def on_revoked(self, ids: Iterable[str]) -> None:
        """As `forget`, from the feed; that is heard at least every PONG, so the hits are told on time too."""
        self.forget(ids)
        self._hits.tell()

    def _may_believe(self, kept: _Kept, touch: bool) -> bool:
        moment = self._monotonic()
        if (
            self._feed is None
            or self._feed.last_heartbeat < moment - BELIEVED_FOR
            or kept.kept_at < moment - KEPT_FOR
        ):
            return False
        now = self._store.now()
        return now < kept.session.expires_at and not (touch and now >= kept.touch_due_at)

    def _ask(self, text: str, touch: bool) -> WxSession:
        started_at = self._monotonic()
        listening_since = self._listen()
        try:
            session, touch_due_at = self._store.load(text, touch=touch)
        except (TokenInvalid, StoreUnavailable) as error:
            CHECKS.labels(RESULTS[type(error)], "redis").inc()
            if isinstance(error, TokenInvalid):
                self._drop(text)
            raise
        CHECKS.labels("ok", "redis").inc()
        if listening_since is not None:
            self._keep(text, _Kept(session, touch_due_at, started_at), started_at, listening_since)
        return session

    def _listen(self) -> int | None:
        """Which run of the feed is on, or None while there is none to rely on."""
        if self._feed is None:
            return None
        self._feed.start(self)
        # In this order: if the feed falls in between, the run is one that is over.
        run = self._feed.run
        return run if self._feed.last_heartbeat > self._monotonic() - BELIEVED_FOR else None

    def _keep(self, text: str, kept: _Kept, started_at: float, run: int) -> None:
        with self._lock:
            raced = self._monotonic() - started_at > LONGEST_READ or kept.session.id in self._ended
            if raced or self._feed is None or self._feed.run != run:
                return
            self._kept[text] = kept
            self._kept.move_to_end(text)
            self._texts[kept.session.id] = text
            if len(self._kept) > self._size:
                _, oldest = self._kept.popitem(last=False)
                self._texts.pop(oldest.session.id, None)

    def _drop(self, text: str) -> None:
        """Whoever needs no touch would believe it for longer."""
        with self._lock:
            kept = self._kept.pop(text, None)
            if kept is not None:
                self._texts.pop(kept.session.id, None)

    def clear(self) -> None:
        """Nothing that was kept can be believed."""
        with self._lock:
            self._kept: OrderedDict[str, _Kept] = OrderedDict()
            self._texts: dict[str, str] = {}
            self._ended: OrderedDict[str, float] = OrderedDict()

    def _begin_anew(self) -> None:
        """In a forked process: its parent's locks may be held for ever, and its parent's feed is not its own."""
        self._lock = threading.Lock()
        self._hits = _Hits()
        self.clear()
        self._store.redis.nodes.begin_anew()
        if self._feed is not None:
            self._feed.forget_parent()
