"""An in-memory Redis (fakeredis) for the sandbox. It can be stopped, and the trace records each round trip.

A note contains the commands, the replies and the content of Redis after them. The content is what a stolen dump would
show: key names, sizes, encrypted bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import fakeredis
import lupa  # type: ignore[import-untyped]  # noqa: F401  # fakeredis runs no script without it
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..storage.reasons import unavailable
from ..storage.round_trips import Command
from .trace import MAX_HEX_BYTES, Note, Trace, end_note, start_note, to_json

#: Seconds until a stopped Redis starts again.
OUTAGE: Final = 8.0
#: The content of a note is limited to so many keys.
MAX_KEYS: Final = 24
MAX_SCANNED: Final = 1000


class _Server(fakeredis.FakeServer):
    """Starts again by itself after `outage` seconds."""

    def __init__(self, clock: Callable[[], float], outage: float) -> None:
        self._clock = clock
        self._outage = outage
        self.starts_at = float("-inf")
        super().__init__(version=(7,))

    @property
    def connected(self) -> bool:
        return self._clock() >= self.starts_at

    @connected.setter
    def connected(self, value: bool) -> None:
        self.starts_at = float("-inf") if value else self._clock() + self._outage


class FakeRedis:
    """`client` is for the service. `trace` records each of its round trips."""

    def __init__(self, trace: Trace, clock: Callable[[], float] = time.monotonic, outage: float = OUTAGE) -> None:
        self._server = _Server(clock, outage)
        self._clock = clock
        self._observer = self._client(fakeredis.FakeRedisConnection)
        self.client = self._client(_WatchedConnection, trace=trace, content=self.content)

    def stop(self) -> None:
        """Refuse connections until `start`, or for the seconds of an outage. The data stays."""
        self._server.connected = False

    def start(self) -> None:
        self._server.connected = True

    @property
    def starts_in(self) -> float:
        """Seconds until it starts again; 0 if it runs."""
        return round(max(self._server.starts_at - self._clock(), 0), 1)

    def content(self) -> Note | None:
        """Return the number of keys, and the MAX_KEYS of them that live longest; None while it is stopped."""
        try:
            _, names = self._observer.execute_command("SCAN", 0, "COUNT", MAX_SCANNED)
            lives = {name: self._observer.pttl(name) for name in sorted(names)}
            longest = sorted(lives, key=lives.__getitem__, reverse=True)[:MAX_KEYS]
            keys = [found for name in sorted(longest) if (found := self._describe(name))]
            return {"total": self._observer.dbsize(), "keys": keys}
        except redis.ConnectionError:
            return None

    def clear(self) -> None:
        """Delete all keys. Raises StoreUnavailable while it is stopped."""
        self._check_started()
        self._observer.flushall()

    def expire(self, name: str, field: str) -> None:
        """Set the idle end of a session, a field of its user's hash, to the past.

        Raises StoreUnavailable while it is stopped.
        """
        self._edit(name, field, lambda value: bytes(8) + value[8:])

    def expire_device_code(self, name: str) -> None:
        """Set the end of a device code to the past. Raises StoreUnavailable while it is stopped."""
        self._edit(name, "ends", lambda _: b"0")

    def _edit(self, name: str, field: str, change: Callable[[bytes], bytes]) -> None:
        self._check_started()
        value = self._observer.execute_command("HGET", name, field)
        if value is not None:
            self._observer.hset(name, field, change(value))

    def _check_started(self) -> None:
        if not self._server.connected:
            raise unavailable("unreachable")

    def _client(self, kind: type[redis.Connection], **options: Any) -> redis.Redis:
        # Like the service: no retries of redis-py, which would take seconds, and no greeting of its connections.
        options |= {"protocol": 2, "retry": Retry(NoBackoff(), 0), "driver_info": None}
        pool = redis.ConnectionPool(connection_class=kind, server=self._server, **options)
        return fakeredis.FakeRedis(connection_pool=pool)

    def _describe(self, name: bytes) -> Note | None:
        """Return None if the key has expired since the scan."""
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
    return {"bytes": len(value), "hex": value[:MAX_HEX_BYTES].hex()}


class _WatchedConnection(fakeredis.FakeRedisConnection):
    """Records each round trip: commands, replies, and the content of Redis after it."""

    def __init__(self, *args: Any, trace: Trace, content: Callable[[], Note | None], **kwargs: Any) -> None:
        self._trace = trace
        self._content = content
        self._note: Note = {}
        super().__init__(*args, **kwargs)

    def _connect(self) -> Any:
        self._note = start_note("redis") | {"commands": [], "replies": []}
        try:
            return super()._connect()
        except redis.ConnectionError:
            self._finish("no connection")
            raise

    def send_command(self, *command: Any, **options: Any) -> None:
        # A command of redis-py's client. Those of the store come through pack_commands.
        self._start([command], self._command_packer.pack(*command))
        super().send_command(*command, **options)

    def pack_commands(self, commands: Sequence[Command]) -> list[bytes]:
        packed: list[bytes] = super().pack_commands(commands)
        self._start(commands, packed)
        return packed

    def _start(self, commands: Sequence[Command], packed: list[bytes]) -> None:
        size = sum(map(len, packed))
        self._note = start_note("redis") | {"commands": to_json(commands), "replies": [], "bytes": size}

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            reply = super().read_response(*args, **kwargs)
        except redis.ConnectionError:
            self._finish("the connection broke")
            raise
        except redis.ResponseError as error:
            self._add(f"({error})")
            raise
        self._add(to_json(reply))
        return reply

    def _add(self, reply: object) -> None:
        self._note["replies"].append(reply)
        if len(self._note["replies"]) == len(self._note["commands"]):
            self._finish()

    def _finish(self, error: str | None = None) -> None:
        end_note(self._note)
        self._trace.add(self._note | {"holds": self._content()} | ({"error": error} if error else {}))
