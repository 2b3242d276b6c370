"""What is said on one connection to Redis, and whether a reply can be the answer. Part of the door to `redis`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, cast

import redis

Command = tuple[str | bytes | int, ...]

#: The channel on which every end of a session is told.
REVOCATIONS: Final = "wxa:feed"
GONE: Final = -2  # what PTTL answers for a key that is absent
ASKING: Final[Command] = ("ASKING",)


class Wire:
    """One connection for as long as one conversation takes."""

    def __init__(self, connection: Any, asking: bool) -> None:
        self._connection = connection
        self._asking = asking
        self._watch: tuple[Command, ...] = ()

    def watch(self, keys: Sequence[str]) -> None:
        """WATCH them from the next question on: it travels along with that, which saves a round trip."""
        self._watch = (("WATCH", *keys),)

    def ask(self, *commands: Command) -> list[Any]:
        """The replies to `commands`, in one round trip; the first that is an error is raised once all are read."""
        begun, self._watch = self._watch, ()
        told = list(_each_asking([*begun, *commands]) if self._asking else [*begun, *commands])
        self._connection.send_packed_command(self._connection.pack_commands(told))
        replies = [self._reply() for _ in told]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        replies = [reply for command, reply in zip(told, replies, strict=True) if command != ASKING]
        sound(replies[: len(begun)] == [b"OK"] * len(begun))
        return replies[len(begun) :]

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error
        except (TypeError, ValueError) as error:
            raise redis.InvalidResponse from error


class Reader:
    """What may be read, at large or in the midst of a transaction; `talk` has a conversation and hands on its end."""

    def __init__(self, talk: Callable[[Callable[[Wire], Any]], Any]) -> None:
        self._talk = talk

    def fields(self, key: str) -> dict[bytes, bytes]:
        """The hash at `key`; empty if it is absent."""
        return cast(dict[bytes, bytes], self._talk(lambda wire: _fields(*wire.ask(("HGETALL", key)))))

    def fields_and_mark(self, key: str, mark: str) -> tuple[dict[bytes, bytes], bool]:
        """The hash at `key`, and whether there is a `mark` (of the same slot), in one round trip."""
        return cast(tuple[dict[bytes, bytes], bool], self._talk(lambda wire: _fields_and_mark(wire, key, mark)))

    def present(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` (all of one slot) that are there."""
        # EXISTS would only count them.
        return cast(set[str], self._talk(lambda wire: _present(keys, *wire.ask(("MGET", *keys))))) if keys else set()


def _fields_and_mark(wire: Wire, key: str, mark: str) -> tuple[dict[bytes, bytes], bool]:
    flat, values = wire.ask(("HGETALL", key), ("MGET", mark))
    return _fields(flat), mark in _present([mark], values)


def _fields(flat: Any) -> dict[bytes, bytes]:
    sound(is_list_of(bytes, flat) and len(flat) % 2 == 0)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _present(keys: Sequence[str], values: Any) -> set[str]:
    sound(is_list_of(bytes | None, values) and len(values) == len(keys))
    return {key for key, value in zip(keys, values, strict=True) if value is not None}


def value(wire: Wire, key: str) -> tuple[bytes, float] | None:
    value, milliseconds = wire.ask(("GET", key), ("PTTL", key))
    if value is None:
        # Written in between, or two answers of different questions: asking again tells.
        sound(milliseconds == GONE)
        return None
    sound(isinstance(value, bytes) and type(milliseconds) is int and milliseconds >= GONE)
    return value, milliseconds / 1000


def expire(wire: Wire, key: str, seconds: int) -> bool:
    (done,) = wire.ask(("EXPIRE", key, seconds))
    sound(done in (0, 1))
    return bool(done)


def write(wire: Wire, key: str, seconds: int, value: bytes) -> None:
    sound(wire.ask(("SET", key, value, "EX", seconds)) == [b"OK"])


def delete(wire: Wire, key: str) -> None:
    (count,) = wire.ask(("DEL", key))
    sound(count in (0, 1))


def add(wire: Wire, key: str, seconds: int, amount: int) -> int:
    begun, *queued, results = wire.ask(
        ("MULTI",), ("SET", key, 0, "EX", seconds, "NX"), ("INCRBY", key, amount), ("EXEC",)
    )
    sound(begun == b"OK" and queued == [b"QUEUED"] * 2)
    sound(isinstance(results, list) and len(results) == 2 and type(results[1]) is int)
    return cast(int, results[1])


def claimed(wire: Wire, key: str, owner: str, milliseconds: int) -> bool:
    # Asked whose it is, because SET may have been carried out and its answer lost.
    done, found = wire.ask(("SET", key, owner, "NX", "PX", milliseconds), ("GET", key))
    sound(done in (None, b"OK") and isinstance(found, bytes | None))
    return bool(found == owner.encode())


def facts(wire: Wire) -> dict[str, str]:
    (info,) = wire.ask(("INFO",))
    sound(isinstance(info, bytes) and re.search(rb"^redis_version:\d+\.", info, re.MULTILINE) is not None)
    return dict(re.findall(r"^(\w+):(\S+)", info.decode("latin-1"), re.MULTILINE))


def time_of(wire: Wire) -> float:
    (reply,) = wire.ask(("TIME",))
    sound(is_list_of(bytes, reply) and len(reply) == 2)
    seconds, microseconds = reply
    return int(seconds) + int(microseconds) / 1e6


def carried_out(wire: Wire, commands: Sequence[Command]) -> bool:
    """Whether EXEC did it; an error of any of `commands` is raised."""
    begun, *queued, results = wire.ask(("MULTI",), *commands, ("EXEC",))
    sound(begun == b"OK" and queued == [b"QUEUED"] * len(commands))
    if results is None:
        return False
    sound(isinstance(results, list) and len(results) == len(commands))
    for result in results:
        if isinstance(result, Exception):
            raise result
    return True


def _each_asking(commands: Iterable[Command]) -> Iterator[Command]:
    """With ASKING before each; those of a transaction share that of its MULTI, or they would be queued with it."""
    within = False
    for command in commands:
        if not within:
            yield ASKING
        within = command == ("MULTI",) or (within and command != ("EXEC",))
        yield command


def is_list_of(kind: Any, reply: Any) -> bool:
    return isinstance(reply, list) and all(isinstance(item, kind) for item in reply)


def sound(shape: bool) -> None:
    """Ends the conversation, and with it its connection, where a reply has not the shape of an answer to what was
    asked: it may be somebody else's.
    """
    if not shape:
        raise redis.InvalidResponse
