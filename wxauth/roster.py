"""One user's sessions under one ring key, as a value: read it, and say which commands would change it.

Whoever reads a roster under WATCH and carries the commands out in one MULTI has changed it as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from .records import KEYS_FIELD, Entry, SessionKeys, Shelf
from .redis_client import Command


class Reader(Protocol):
    """What may be asked of Redis, at large or in the midst of a transaction."""

    def fields(self, key: str) -> dict[bytes, bytes]: ...

    def alive(self, keys: list[str]) -> set[str]: ...


@dataclass(frozen=True, slots=True)
class Roster:
    """`entries` are the live sessions, oldest first; `ids` also holds those that died of idleness."""

    shelf: Shelf
    ids: frozenset[str]
    entries: tuple[Entry, ...]
    session_keys: SessionKeys | None

    @classmethod
    def read(cls, shelf: Shelf, reader: Reader) -> Roster:
        fields = reader.fields(shelf.hash)
        listed = shelf.entries(fields)
        alive = reader.alive([shelf.record(entry.id) for entry in listed])
        entries = tuple(entry for entry in listed if shelf.record(entry.id) in alive)
        return cls(shelf, frozenset(shelf.ids(fields)), entries, shelf.session_keys(fields))

    @property
    def last_serial(self) -> int:
        return self.entries[-1].serial if self.entries else 0

    def admit(self, entry: Entry, session_keys: SessionKeys, room: int, now: int) -> Iterator[Command]:
        """Enter a new session, and end the oldest so that no more than `room` are left."""
        staying = [*self.entries, entry][-room:]
        yield from self._drop(self.ids - {stays.id for stays in staying})
        ends_at = max(stays.ends_at for stays in staying)
        sealed_keys = self.shelf.seal_session_keys(session_keys, ends_at)
        yield ("HSET", self.shelf.hash, entry.id, self.shelf.seal_entry(entry), KEYS_FIELD, sealed_keys)
        yield ("EXPIRE", self.shelf.hash, ends_at - now)

    def dismiss(self, ids: AbstractSet[str]) -> Iterator[Command]:
        """End the sessions `ids`; with the last of them the user's session_keys go too."""
        yield from self._drop(ids)
        if ids and self.ids <= ids:
            yield ("DEL", self.shelf.hash)

    def _drop(self, ids: AbstractSet[str]) -> Iterator[Command]:
        if ids:
            yield ("DEL", *map(self.shelf.record, ids))
            yield ("HDEL", self.shelf.hash, *(id.encode("latin-1") for id in ids))
