"""Round trips to Redis: with the commands of one thread, or with one command from each of many threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import redis

Command = tuple[str | bytes | int, ...]

#: Seconds that a thread waits for its turn or its reply. With a near Redis a round trip takes a millisecond.
MAX_WAIT: Final = 0.05
#: How many commands a thread sends for others. It has to continue with its own request soon.
MAX_OTHERS: Final = 31
#: In the place of a reply that has not come.
NO_REPLY: Final = object()


def round_trip(
    pool: Any, commands: Sequence[Command], *, close: bool = False, seconds: float = float("inf")
) -> list[Any]:
    """Send the commands on a connection of `pool`. Return their replies; an error reply is a redis.ResponseError.

    `close` the connection afterwards. Raises redis.TimeoutError if a reply takes longer than the timeout of the
    connection. After `seconds` it does not wait for another reply.

    execute_command and the pipeline of redis-py do the same, but need twice the processor time.
    """
    connection = pool.get_connection()
    deadline = time.monotonic() + seconds
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_reply(connection, deadline) for _ in commands]
    except BaseException:
        # A reply that was not read would be taken for that of the next command.
        connection.disconnect()
        raise
    finally:
        if close:
            connection.disconnect()
        pool.release(connection)


def _reply(connection: Any, deadline: float) -> Any:
    if time.monotonic() > deadline and not connection.can_read():
        raise redis.TimeoutError("the replies take too long")
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


class _PendingCommand:
    """The command of a thread that waits for `wakeup`. Then there is a reply, or it is the turn of this thread."""

    __slots__ = ("command", "has_turn", "reply", "wakeup")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: Any = NO_REPLY
        self.has_turn = False
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class SharedRoundTrips:
    """Sends commands of many threads together. It is for reads: each reply must prove that it is the right one.

    While a thread waits for Redis, the commands of other threads gather. The first of these threads then sends up to
    MAX_OTHERS more with its own. A thread waits at most MAX_WAIT. Without a reply, it sends its command alone.
    """

    def __init__(self, pool: Any, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lock = threading.Lock()
        self._is_busy = False
        self._gathered: list[_PendingCommand] = []

    def send(self, command: Command) -> Any:
        """Return the reply. Raises the errors of redis-py, also for an error reply."""
        pending = _PendingCommand(command)
        try:
            self._wait(pending)
            if pending.has_turn:
                self._send_gathered(pending)
        finally:
            # gevent.Timeout and signals can interrupt the wait and the round trip.
            self._leave(pending)
        # An error reply may belong to another thread.
        if pending.reply is NO_REPLY or isinstance(pending.reply, redis.ResponseError):
            (pending.reply,) = round_trip(self._pool, [command])
        if isinstance(pending.reply, redis.ResponseError):
            raise pending.reply
        return pending.reply

    def _wait(self, pending: _PendingCommand) -> None:
        with self._lock:
            pending.has_turn = not self._is_busy
            self._is_busy = True
            if not pending.has_turn:
                self._gathered.append(pending)
        if not pending.has_turn:
            pending.wakeup.acquire(timeout=MAX_WAIT)

    def _send_gathered(self, own: _PendingCommand) -> None:
        with self._lock:
            others = self._gathered[:MAX_OTHERS]
            del self._gathered[:MAX_OTHERS]
        try:
            commands = [own.command, *(pending.command for pending in others)]
            own.reply, *replies = round_trip(self._pool, commands, seconds=self._timeout)
            for pending, reply in zip(others, replies, strict=True):
                pending.reply = reply
        finally:
            for pending in others:
                pending.wakeup.release()

    def _leave(self, pending: _PendingCommand) -> None:
        """Withdraw the command, and pass its turn to the thread that has waited longest."""
        with self._lock:
            if pending in self._gathered:
                self._gathered.remove(pending)
            if pending.has_turn:
                self._is_busy = bool(self._gathered)
            if pending.has_turn and self._gathered:
                first = self._gathered.pop(0)
                first.has_turn = True
                first.wakeup.release()
