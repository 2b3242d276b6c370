"""The cache in front of the store: sessions that this worker resolved within the last minute.

An entry is used only while the revocation channel is alive. A logout elsewhere is seen within milliseconds. If the
network is cut, no entry is used once the last heartbeat is MAX_HEARTBEAT_AGE old.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import StoreUnavailable, TokenInvalid
from ..metrics import CHECKS
from .revocations import RevocationListener
from .store import SessionStore, WxSession

#: Seconds.
MAX_HEARTBEAT_AGE: Final = 2.0
#: Ask Redis again after so many seconds, in case it was emptied by hand.
MAX_ENTRY_AGE: Final = 60.0
#: Keep the ids of ended sessions longer than any entry, so that an entry from before the end is never used.
ENDED_MEMORY: Final = MAX_ENTRY_AGE + 5
MAX_ENDED: Final = 100_000


@dataclass(slots=True)
class _Entry:
    session: WxSession
    touch_due_at: float
    read_at: float


class SessionCache:
    """Resolves tokens like the store, mostly without a command to Redis. One for each worker; safe between threads.

    `size` is the number of entries; 0 turns the cache off, and so does `listener=None`.
    """

    def __init__(self, store: SessionStore, listener: RevocationListener | None, size: int) -> None:
        self._store = store
        self._listener = listener if size else None
        self._size = size
        # Looking up labels takes longer than counting.
        self._cache_checks, self._redis_checks = CHECKS.labels("ok", "cache"), CHECKS.labels("ok", "redis")
        store.on_ended = self.note_ended
        self.reset()

    def reset(self) -> None:
        """Forget everything, as at the start. In a forked process the lock may be held, and the thread is gone."""
        self._lock = threading.Lock()
        self._hits = 0
        self.clear()
        if self._listener is not None:
            self._listener.reset()

    def resolve(self, text: str, *, touch: bool = True) -> WxSession:
        """Return the session of a token. Raises TokenInvalid and StoreUnavailable, like SessionStore.resolve."""
        with self._lock:
            entry = self._entries.get(text)
            if entry is not None and self._is_usable(entry, touch):
                self._hits += 1
                self._entries.move_to_end(text)
                return entry.session
        return self._load(text, touch)

    def note_ended(self, ids: Iterable[str] | None) -> None:
        """Use the entries of these sessions no more. None: it is not known which have ended, so drop all entries.

        The entries stay: a read that is under way may still add one.
        """
        if ids is None or len(self._ended) > MAX_ENDED:
            self.clear()
        now = time.monotonic()
        with self._lock:
            self._ended |= dict.fromkeys(ids or (), now)
            while self._ended and next(iter(self._ended.values())) < now - ENDED_MEMORY:
                del self._ended[next(iter(self._ended))]

    def on_revoked(self, ids: Iterable[str]) -> None:
        """Note what the channel reports. It calls this at each heartbeat, so the hits are counted then too."""
        self.note_ended(ids)
        with self._lock:
            hits, self._hits = self._hits, 0
        # A counter that several processes share costs more than a cache hit: count many at once.
        self._cache_checks.inc(hits)

    def clear(self) -> None:
        """Drop all entries: the end of a session may have been missed."""
        with self._lock:
            # A read that is under way adds to the old entries, so its result is dropped too.
            #: By token, the one that was used last at the end.
            self._entries: OrderedDict[str, _Entry] = OrderedDict()
            #: The ids of ended sessions, each with its time, oldest first.
            self._ended: dict[str, float] = {}

    def _is_usable(self, entry: _Entry, touch: bool) -> bool:
        now = time.monotonic()
        if self._listener is None or self._listener.last_heartbeat < now - MAX_HEARTBEAT_AGE:
            return False
        if entry.read_at < now - MAX_ENTRY_AGE or entry.session.id in self._ended:
            return False
        clock = self._store.now()
        return clock < entry.session.expires_at and not (touch and clock >= entry.touch_due_at)

    def _load(self, text: str, touch: bool) -> WxSession:
        read_at = time.monotonic()
        entries = self._listen()
        try:
            session, touch_due_at = self._store.load(text, touch=touch)
        except (StoreUnavailable, TokenInvalid) as error:
            CHECKS.labels(error.code, "redis").inc()
            with self._lock:
                self._entries.pop(text, None)
            raise
        self._redis_checks.inc()
        if entries is not None:
            with self._lock:
                entries[text] = _Entry(session, touch_due_at, read_at)
                entries.move_to_end(text)
                if len(entries) > self._size:
                    entries.popitem(last=False)
        return session

    def _listen(self) -> OrderedDict[str, _Entry] | None:
        """Return where to add a session that is read from now on. None while the channel is not alive."""
        if self._listener is None:
            return None
        self._listener.start(self)
        # Take the entries first: if the channel is interrupted later, `clear` replaces them.
        entries = self._entries
        return entries if self._listener.last_heartbeat > time.monotonic() - MAX_HEARTBEAT_AGE else None
