"""The door to `fakeredis`: a Redis of this process alone, which can be unplugged, watched and looked into.

It notes each round trip, and what there is in Redis after it. Of a session it sees what anybody would who has stolen
Redis: names, sizes, sealed bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import fakeredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..storage.client import Command
from ..storage.reasons import unavailable
from .trace import SHOWN_BYTES, Note, Trace, begun, ended, shown

#: Seconds that an unplugged Redis stays away.
AWAY: Final = 8.0
MOST_KEYS: Final = 24


class _Server(fakeredis.FakeServer):
    """Comes back by itself: `connected` is a matter of time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.back_at = float("-inf")
        super().__init__(version=(7,))

    @property
    def connected(self) -> bool:
        return self._clock() >= self.back_at

    @connected.setter
    def connected(self, value: bool) -> None:
        self.back_at = float("-inf") if value else self._clock() + AWAY


class FakeRedis:
    """`client` is for the service, and everything that it asks is noted in `trace`."""

    def __init__(self, trace: Trace, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = _Server(clock)
        self._clock = clock
        self._observer = self._client(fakeredis.FakeRedisConnection)
        self.client = self._client(_WatchedConnection, trace=trace, holds=self.holds)

    def unplug(self) -> None:
        """From now on nobody reaches it, for AWAY seconds. What it holds stays."""
        self._server.connected = False

    def plug_in(self) -> None:
        self._server.connected = True

    @property
    def back_in(self) -> float:
        """Seconds until it can be reached; 0 while it can."""
        return round(max(self._server.back_at - self._clock(), 0), 1)

    def holds(self) -> Note | None:
        """How many keys there are, and what is to be seen of MOST_KEYS of them; None while it can't be reached."""
        try:
            _, names = self._observer.execute_command("SCAN", 0, "COUNT", MOST_KEYS)
            keys = [found for name in sorted(names) if (found := self._described(name))]
            return {"total": self._observer.dbsize(), "keys": keys}
        except redis.ConnectionError:
            return None

    def expire(self, name: str, field: str) -> None:
        """Set the idle end of a session to the past. Raises StoreUnavailable while Redis is unplugged."""
        if not self._server.connected:
            raise unavailable("unreachable")
        value = self._observer.execute_command("HGET", name, field)
        if value is not None:
            self._observer.hset(name, field, bytes(8) + value[8:])

    def _client(self, kind: type[redis.Connection], **options: Any) -> redis.Redis:
        # As the service connects: it does without redis-py's own new tries, which would take seconds.
        retry = Retry(NoBackoff(), 0)
        pool = redis.ConnectionPool(connection_class=kind, server=self._server, protocol=2, retry=retry, **options)
        return fakeredis.FakeRedis(connection_pool=pool)

    def _described(self, name: bytes) -> Note | None:
        """None for a key that has gone since it was listed."""
        ask = self._observer.execute_command
        kind, milliseconds = ask("TYPE", name).decode(), ask("PTTL", name)
        if kind == "hash":
            fields = {field.decode(): _bytes(value) for field, value in ask("HGETALL", name).items()}
            found: Note = {"fields": fields, "bytes": sum(field["bytes"] for field in fields.values())}
        elif kind == "string":
            found = _bytes(ask("GET", name) or b"")
        else:
            return None
        return {"key": name.decode(), "type": kind, "ttl": milliseconds / 1000, **found}


def _bytes(value: bytes) -> Note:
    return {"bytes": len(value), "hex": value[:SHOWN_BYTES].hex()}


class _WatchedConnection(fakeredis.FakeRedisConnection):
    """Notes each round trip: what was asked in it, what came back, and what Redis holds then."""

    def __init__(self, *args: Any, trace: Trace, holds: Callable[[], Note | None], **kwargs: Any) -> None:
        self._trace = trace
        self._holds = holds
        self._note: Note = {}
        super().__init__(*args, **kwargs)

    def _connect(self) -> Any:
        self._note = begun("redis") | {"commands": [], "replies": []}
        try:
            return super()._connect()
        except redis.ConnectionError:
            self._finish("no connection")
            raise

    def pack_commands(self, commands: Sequence[Command]) -> list[bytes]:
        packed: list[bytes] = super().pack_commands(commands)
        self._note = begun("redis") | {
            "commands": shown(commands),
            "replies": [],
            "bytes": sum(len(piece) for piece in packed),
        }
        return packed

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            reply = super().read_response(*args, **kwargs)
        except redis.ConnectionError:
            self._finish("the connection broke")
            raise
        except redis.ResponseError as error:
            self._add(f"({error})")
            raise
        self._add(shown(reply))
        return reply

    def _add(self, reply: object) -> None:
        self._note["replies"].append(reply)
        if len(self._note["replies"]) == len(self._note["commands"]):
            self._finish()

    def _finish(self, error: str | None = None) -> None:
        ended(self._note)
        self._trace.keep(self._note | {"holds": self._holds()} | ({"error": error} if error else {}))
