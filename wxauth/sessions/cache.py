"""The cache in front of the store: sessions that this worker resolved within the last minute.

An entry is used only while the revocation channel is alive. A logout elsewhere is seen within milliseconds. If the
network is cut, no entry is used once the last heartbeat is MAX_HEARTBEAT_AGE old.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Known:
    """What is known since the channel was last interrupted. `clear` replaces it as a whole.

    So a check that holds no lock never sees an entry from before with the ended sessions from after.
    """

    #: By token, the one that was read first at the front.
    entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    #: The ids of ended sessions, each with its time, oldest first.
    ended: dict[str, float] = field(default_factory=dict)


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
        #: For those that write. A check that finds its entry takes no lock, and no other thread waits for it.
        self._lock = threading.Lock()
        #: The hits. Its `next` is one step, so no thread takes the number of another.
        self._hits = itertools.count()
        self._counted = 0
        self.clear()
        if self._listener is not None:
            self._listener.reset()

    def resolve(self, text: str, *, touch: bool = True) -> WxSession:
        """Return the session of a token. Raises TokenInvalid and StoreUnavailable, like SessionStore.resolve."""
        session = self.find(text, touch=touch)
        return self._load(text, touch) if session is None else session

    def find(self, text: str, *, touch: bool = True) -> WxSession | None:
        """Return the session of a token if the cache can answer alone, else None. It writes no log line."""
        now = time.monotonic()
        # Look at the heartbeat first: while it is missing, `clear` is called.
        if self._listener is not None and self._listener.last_heartbeat >= now - MAX_HEARTBEAT_AGE:
            known = self._known
            entry = known.entries.get(text)
            if entry is not None and self._is_usable(entry, known.ended, now, touch):
                next(self._hits)
                return entry.session
        return None

    def note_ended(self, ids: Iterable[str] | None) -> None:
        """Use the entries of these sessions no more. None: it is not known which have ended, so drop all entries.

        The entries stay: a read that is under way may still add one.
        """
        if ids is None or len(self._known.ended) > MAX_ENDED:
            self.clear()
        now = time.monotonic()
        with self._lock:
            ended = self._known.ended
            ended |= dict.fromkeys(ids or (), now)
            while ended and next(iter(ended.values())) < now - ENDED_MEMORY:
                del ended[next(iter(ended))]

    def on_revoked(self, ids: Iterable[str]) -> None:
        """Note what the channel reports. It calls this at each heartbeat, so the hits are counted then too."""
        self.note_ended(ids)
        # A counter that several processes share costs more than a cache hit: count many at once.
        hits = next(self._hits)
        self._cache_checks.inc(hits - self._counted)
        # The question took a number too.
        self._counted = hits + 1

    def clear(self) -> None:
        """Drop all entries: the end of a session may have been missed."""
        # A read that is under way adds to the old entries, so its result is dropped too.
        with self._lock:
            self._known = _Known()

    def _is_usable(self, entry: _Entry, ended: dict[str, float], now: float, touch: bool) -> bool:
        if entry.read_at < now - MAX_ENTRY_AGE or entry.session.id in ended:
            return False
        clock = self._store.now()
        return clock < entry.session.expires_at and not (touch and clock >= entry.touch_due_at)

    def _load(self, text: str, touch: bool) -> WxSession:
        read_at = time.monotonic()
        known = self._listen()
        try:
            session, touch_due_at = self._store.load(text, touch=touch)
        except (StoreUnavailable, TokenInvalid) as error:
            CHECKS.labels(error.code, "redis").inc()
            with self._lock:
                self._known.entries.pop(text, None)
            raise
        self._redis_checks.inc()
        if known is not None:
            with self._lock:
                known.entries[text] = _Entry(session, touch_due_at, read_at)
                known.entries.move_to_end(text)
                if len(known.entries) > self._size:
                    known.entries.popitem(last=False)
        return session

    def _listen(self) -> _Known | None:
        """Return where to add a session that is read from now on. None while the channel is not alive."""
        if self._listener is None:
            return None
        self._listener.start(self)
        # Take it before the heartbeat is looked at: if the channel is interrupted later, `clear` replaces it.
        known = self._known
        return known if self._listener.last_heartbeat > time.monotonic() - MAX_HEARTBEAT_AGE else None
