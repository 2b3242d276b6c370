"""One user's sessions under one ring key, as a value: read it, and say which commands would change it.

Whoever reads a roster under WATCH and carries the commands out in one MULTI has changed it as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from .records import KEYS_FIELD, Entry, SessionKeys, Shelf
from .redis_wire import FEED, Command, Reader


@dataclass(frozen=True, slots=True)
class Roster:
    """`entries` are the live sessions, oldest first; `ids` also holds those that died of idleness."""

    shelf: Shelf
    ids: frozenset[str]
    entries: tuple[Entry, ...]
    session_keys: SessionKeys | None
    banned: bool

    @classmethod
    def read(cls, shelf: Shelf, reader: Reader) -> Roster:
        fields = reader.fields(shelf.hash)
        listed = shelf.entries(fields)
        present = reader.present([shelf.ban, *(shelf.record(entry.id) for entry in listed)])
        entries = tuple(entry for entry in listed if shelf.record(entry.id) in present)
        return cls(shelf, shelf.ids(fields), entries, shelf.session_keys(fields), shelf.ban in present)

    @property
    def last_serial(self) -> int:
        return self.entries[-1].serial if self.entries else 0

    def joined_by(self, entry: Entry, replaced: str | None) -> list[Entry]:
        """The live sessions with a new one at the end, and without the one that it replaces."""
        return [*(known for known in self.entries if known.id not in (entry.id, replaced)), entry]

    def admit(self, staying: list[Entry], session_keys: SessionKeys, now: int) -> Iterator[Command]:
        """Enter the last of `staying`, and end all sessions that are not among them."""
        yield from drop(self.shelf, self.ids - {stays.id for stays in staying})
        ends_at = max(stays.ends_at for stays in staying)
        sealed_keys = self.shelf.seal_session_keys(session_keys, ends_at)
        newest = staying[-1]
        yield ("HSET", self.shelf.hash, newest.id, self.shelf.seal_entry(newest), KEYS_FIELD, sealed_keys)
        yield ("EXPIRE", self.shelf.hash, ends_at - now)

    def rekeyed(self, session_keys: SessionKeys) -> Iterator[Command]:
        """Keep other session_keys for a user who is logged in."""
        if self.entries:
            sealed = self.shelf.seal_session_keys(session_keys, max(entry.ends_at for entry in self.entries))
            yield ("HSET", self.shelf.hash, KEYS_FIELD, sealed)


def dismiss(shelf: Shelf, listed: AbstractSet[str], doomed: AbstractSet[str]) -> Iterator[Command]:
    """End the sessions `doomed`; with the last that is `listed` the user's session_keys go too."""
    yield from drop(shelf, doomed)
    if doomed and listed <= doomed:
        yield ("DEL", shelf.hash)


def drop(shelf: Shelf, ids: AbstractSet[str]) -> Iterator[Command]:
    """Take the sessions `ids` out of Redis and out of the list."""
    if ids:
        yield ("DEL", *map(shelf.record, ids))
        yield ("HDEL", shelf.hash, *(id.encode("latin-1") for id in ids))
        yield ("PUBLISH", FEED, " ".join(ids))
