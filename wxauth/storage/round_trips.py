"""Round trips to Redis: with the commands of one thread, or with a command each of many threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import redis

Command = tuple[str | bytes | int, ...]

#: Seconds that a thread waits for the round trip of another. If Redis is near and answers, one takes a millisecond.
MAX_WAIT: Final = 0.05
#: How many commands one thread sends for others. So it is soon back at its own request.
MAX_OTHERS: Final = 31
#: The reply of a command that was not sent, or got none.
NOTHING: Final = object()


def round_trip(
    pool: Any, commands: Sequence[Command], *, close: bool = False, seconds: float = float("inf")
) -> list[Any]:
    """Send the commands on a connection of `pool`. Return their replies; an error reply is a redis.ResponseError.

    `close` the connection afterwards. Raises redis.TimeoutError if a reply does not come in the timeout of the
    connection, or not all come in `seconds`.

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
    if time.monotonic() > deadline:
        raise redis.TimeoutError("the replies take too long")
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


class _Question:
    """A command of a thread. The thread waits for `wakeup`: then there is a reply, or the thread has the turn."""

    __slots__ = ("command", "has_turn", "reply", "wakeup")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: Any = NOTHING
        self.has_turn = False
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class SharedRoundTrips:
    """Sends commands of many threads together. It is for reads whose replies prove that they are the right ones.

    While a thread waits for Redis, the commands of other threads gather. The first of these then sends all of them in
    one round trip. Among many, a command costs Redis a fifth of the processor time.

    No thread depends on another: if it has no reply after MAX_WAIT, it sends its command alone.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._is_busy = False
        self._gathered: list[_Question] = []

    def send(self, pool: Any, command: Command) -> Any:
        """Return the reply. Raises the errors of redis-py, also for an error reply."""
        question = _Question(command)
        try:
            self._wait(question)
            if question.has_turn:
                self._send_gathered(pool, question)
        finally:
            # Also if gevent.Timeout or a signal interrupts this thread.
            self._leave(question)
        reply = round_trip(pool, [command])[0] if question.reply is NOTHING else question.reply
        if isinstance(reply, redis.ResponseError):
            raise reply
        return reply

    def _wait(self, question: _Question) -> None:
        with self._lock:
            question.has_turn = not self._is_busy
            self._is_busy = True
            if not question.has_turn:
                self._gathered.append(question)
        if not question.has_turn:
            question.wakeup.acquire(timeout=MAX_WAIT)

    def _send_gathered(self, pool: Any, own: _Question) -> None:
        with self._lock:
            others = self._gathered[:MAX_OTHERS]
            del self._gathered[:MAX_OTHERS]
        try:
            commands = [own.command, *(question.command for question in others)]
            own.reply, *replies = round_trip(pool, commands, seconds=self._timeout)
            for question, reply in zip(others, replies, strict=True):
                question.reply = reply
        finally:
            for question in others:
                question.wakeup.release()

    def _leave(self, question: _Question) -> None:
        """Withdraw the question, and pass its turn to the thread that has waited longest."""
        with self._lock:
            if question in self._gathered:
                self._gathered.remove(question)
            if question.has_turn:
                self._is_busy = bool(self._gathered)
            if question.has_turn and self._gathered:
                first = self._gathered.pop(0)
                first.has_turn = True
                first.wakeup.release()
