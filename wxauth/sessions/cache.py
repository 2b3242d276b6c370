"""The cache in front of the store: sessions that this worker resolved within the last minute.

An entry is used only while the revocation channel is alive. A logout elsewhere is seen within milliseconds, and
across a cut network when the last heartbeat is MAX_HEARTBEAT_AGE old.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from ..errors import StoreUnavailable, TokenInvalid
from ..metrics import CHECKS
from .revocations import RevocationListener
from .store import SessionStore, WxSession

#: Seconds.
MAX_HEARTBEAT_AGE: Final = 2.0
#: Ask Redis again after so many seconds, in case it was emptied by hand.
MAX_ENTRY_AGE: Final = 60.0
#: The end of a session may have been forgotten again during a read that took longer than this.
MAX_READ_TIME: Final = 1.0
ENDED_MEMORY: Final = 5.0


@dataclass(slots=True)
class _Entry:
    session: WxSession
    touch_due_at: float
    read_at: float


class _Entries(LRUCache[str, _Entry]):
    """Entries by token, and the token of each session id."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.texts: dict[str, str] = {}

    def add(self, text: str, entry: _Entry) -> None:
        self[text] = entry
        self.texts[entry.session.id] = text

    def drop(self, text: str) -> None:
        entry = self.pop(text, None)
        if entry is not None:
            self.texts.pop(entry.session.id, None)

    def popitem(self) -> tuple[str, _Entry]:
        """Evict the least recently used entry. LRUCache calls this."""
        text, entry = super().popitem()
        self.texts.pop(entry.session.id, None)
        return text, entry


class SessionCache:
    """Resolves tokens like the store, mostly without a command to Redis. One for each worker; safe between threads.

    `size` is the number of entries; 0 turns the cache off, and so does `listener=None`.
    """

    def __init__(
        self,
        store: SessionStore,
        listener: RevocationListener | None,
        size: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._listener = listener if size else None
        self._size = size
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._hits = 0
        self.clear()
        store.on_ended = self.evict
        reset = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (found := reset()) and found())

    def resolve(self, text: str, *, touch: bool = True) -> WxSession:
        """Return the session of a token. Raises TokenInvalid and StoreUnavailable, like SessionStore.resolve."""
        with self._lock:
            entry = self._entries.get(text)
            if entry is not None and self._is_usable(entry, touch):
                self._hits += 1
                return entry.session
        return self._load(text, touch)

    def verify_signature(self, text: str) -> None:
        """Raise TokenInvalid unless one of our keys has signed `text`."""
        self._store.verify_signature(text)

    def evict(self, ids: Iterable[str] | None) -> None:
        """Drop sessions that have ended, here or on another worker. None: it is not known which, so drop all."""
        if ids is None:
            self.clear()
        now = self._monotonic()
        with self._lock:
            for id in ids or ():
                self._ended[id] = now
                self._ended.move_to_end(id)
                self._entries.drop(self._entries.texts.get(id, ""))
            while self._ended and next(iter(self._ended.values())) < now - ENDED_MEMORY:
                self._ended.popitem(last=False)

    def on_revoked(self, ids: Iterable[str]) -> None:
        """Evict what the channel reports. It calls this at each heartbeat, so the hits are counted then too."""
        self.evict(ids)
        with self._lock:
            hits, self._hits = self._hits, 0
        # A counter that several processes share costs more than a cache hit: count many at once.
        CHECKS.labels("ok", "cache").inc(hits)

    def clear(self) -> None:
        """Drop all entries: the end of a session may have been missed."""
        with self._lock:
            self._entries = _Entries(self._size)
            self._ended: OrderedDict[str, float] = OrderedDict()

    def _is_usable(self, entry: _Entry, touch: bool) -> bool:
        now = self._monotonic()
        if self._listener is None or self._listener.last_heartbeat < now - MAX_HEARTBEAT_AGE:
            return False
        if entry.read_at < now - MAX_ENTRY_AGE:
            return False
        time = self._store.now()
        return time < entry.session.expires_at and not (touch and time >= entry.touch_due_at)

    def _load(self, text: str, touch: bool) -> WxSession:
        read_at = self._monotonic()
        generation = self._listen()
        try:
            session, touch_due_at = self._store.load(text, touch=touch)
        except StoreUnavailable:
            CHECKS.labels("store_unavailable", "redis").inc()
            raise
        except TokenInvalid:
            CHECKS.labels("token_invalid", "redis").inc()
            with self._lock:
                self._entries.drop(text)
            raise
        CHECKS.labels("ok", "redis").inc()
        if generation is not None:
            self._add(text, _Entry(session, touch_due_at, read_at), generation)
        return session

    def _listen(self) -> int | None:
        """Return the generation of the listener, or None while it is not alive."""
        if self._listener is None:
            return None
        self._listener.start(self)
        # Read the generation first: if the listener stops in between, the entry is of an old generation.
        generation = self._listener.generation
        alive = self._listener.last_heartbeat > self._monotonic() - MAX_HEARTBEAT_AGE
        return generation if alive else None

    def _add(self, text: str, entry: _Entry, generation: int) -> None:
        with self._lock:
            slow = self._monotonic() - entry.read_at > MAX_READ_TIME
            if slow or entry.session.id in self._ended or self._listener is None:
                return
            if self._listener.generation == generation:
                self._entries.add(text, entry)

    def _after_fork(self) -> None:
        """In the child: the parent's locks may be held, and its connections and thread are not ours."""
        self._lock = threading.Lock()
        self._hits = 0
        self.clear()
        self._store.redis.reset()
        if self._listener is not None:
            self._listener.reset()
