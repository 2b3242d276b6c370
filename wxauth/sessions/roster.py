"""One user's sessions under one ring key, as a value: read it, and say which commands would change it.

Whoever reads a roster under WATCH and carries the commands out in one MULTI has changed it as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ..models import SessionKeys
from ..storage.wire import REVOCATIONS, Command, Reader
from .records import NEWEST, PREVIOUS, Entry, Shelf


@dataclass(frozen=True, slots=True)
class Roster:
    """`entries` are the live sessions, oldest first; of the `listed` ids, the `dead` died of idleness.

    A session whose record is there and whose entry does not open is alive, but can't be shown.
    """

    shelf: Shelf
    listed: frozenset[str]
    dead: frozenset[str]
    entries: tuple[Entry, ...]
    session_keys: SessionKeys | None
    banned: bool

    @classmethod
    def read(cls, shelf: Shelf, reader: Reader, unasked: int = 0) -> Roster:
        """If no more than `unasked` sessions are listed they are all taken for alive, which saves a round trip."""
        fields, banned = reader.fields_and_mark(shelf.hash, shelf.ban)
        records = {id: shelf.record(id) for id in shelf.ids(fields)}
        present = reader.present([*records.values()]) if len(records) > unasked else set(records.values())
        dead = frozenset(id for id, record in records.items() if record not in present)
        entries = tuple(entry for entry in shelf.entries(fields) if entry.id not in dead)
        return cls(shelf, frozenset(records), dead, entries, shelf.session_keys(fields), banned)

    @property
    def alive(self) -> frozenset[str]:
        return self.listed - self.dead

    @property
    def last_serial(self) -> int:
        return self.entries[-1].serial if self.entries else 0

    def surplus(self, cap: int, joining: str, replaced: AbstractSet[str]) -> set[str]:
        """The oldest sessions, which have to end so that there are no more than `cap` with the one that joins."""
        others = [known.id for known in self.entries if known.id not in {joining, *replaced}]
        return set(others[: max(len(others) + 1 - cap, 0)])

    def admit(self, entry: Entry, session_keys: SessionKeys, now: int, ended: AbstractSet[str]) -> Iterator[Command]:
        """Enter a session, end those that are `ended`, and clear away the dead."""
        yield from self._drop(self.dead | ended)
        staying = [entry, *(known for known in self.entries if known.id not in ended)]
        ends_at = max(stays.ends_at for stays in staying)
        sealed_keys = self.shelf.seal_session_keys(session_keys, ends_at).items()
        yield ("HSET", self.shelf.hash, entry.id, self.shelf.seal_entry(entry), *itertools.chain(*sealed_keys))
        yield ("EXPIRE", self.shelf.hash, ends_at - now)

    def rekeyed(self, session_keys: SessionKeys) -> Iterator[Command]:
        """Keep none of the session_keys before, and these in their place while the user is logged in."""
        # The entries keep the hash, and with it its end, while the former are out.
        yield ("HDEL", self.shelf.hash, NEWEST.encode(), PREVIOUS.encode())
        if self.entries:
            sealed = self.shelf.seal_session_keys(session_keys, max(entry.ends_at for entry in self.entries))
            yield ("HSET", self.shelf.hash, *itertools.chain(*sealed.items()))

    def dismiss(self, doomed: AbstractSet[str]) -> Iterator[Command]:
        """End the sessions `doomed`; with the last live one the user's session_keys go too."""
        yield from self._drop(self.dead | doomed)
        if doomed and self.listed <= self.dead | doomed:
            yield ("DEL", self.shelf.hash)

    def _drop(self, ids: AbstractSet[str]) -> Iterator[Command]:
        """Take the sessions `ids` out of Redis and out of the list."""
        if ids:
            yield ("DEL", *map(self.shelf.record, ids))
            yield ("HDEL", self.shelf.hash, *(id.encode("latin-1") for id in ids))
            yield ("PUBLISH", REVOCATIONS, " ".join(ids))
