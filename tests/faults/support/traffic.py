"""Load in one thread: a number of logins at once, or of checks a second, over kept connections.

It uses asyncio and no HTTP library: on two cores, the processor time of the load is missing to the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

TIMEOUT = 30.0
#: The server closes a connection that was idle for 100 s.
IDLE = 90.0


@dataclass(frozen=True)
class Reply:
    """An answer. Without one, the status is 0 and `head` is the error. Times are `time.monotonic()` seconds."""

    status: int
    head: str
    body: bytes
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def code(self) -> str:
        """The code of the problem, or an empty string."""
        found: str = json.loads(self.body).get("code", "") if self.status >= 400 else ""
        return found

    @property
    def token(self) -> str:
        """The token of a login."""
        assert self.status == 200, (self.status, self.head, self.body)
        found: str = json.loads(self.body)["token"]
        return found


@dataclass(frozen=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float


class Caller:
    """Sends requests to one port as if from `address`, and keeps its connections for the next ones."""

    def __init__(self, port: int, address: str | None = None) -> None:
        self._port = port
        self._headers = "Host: a\r\n" + (f"X-Forwarded-For: {address}\r\n" if address else "")
        self._idle: list[Connection] = []

    async def check(self, token: str, due: float | None = None) -> Reply:
        """Send `GET /session`. The time counts from `due`, when the request should have started."""
        request = f"GET /session HTTP/1.1\r\n{self._headers}Authorization: {token}\r\n\r\n"
        return await self._call(request, due or time.monotonic())

    async def log_in(self, code: str, due: float | None = None) -> Reply:
        body = json.dumps({"code": code})
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        request = f"POST /login HTTP/1.1\r\n{self._headers}{head}\r\n\r\n{body}"
        return await self._call(request, due or time.monotonic())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._idle:
            connection.writer.close()
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()

    async def _call(self, request: str, start: float) -> Reply:
        try:
            async with asyncio.timeout(TIMEOUT):
                head, body = await self._exchange(request.encode(), await self._connection())
        except (OSError, EOFError) as error:
            return Reply(0, repr(error), b"", start, time.monotonic())
        return Reply(int(head[9:12]), head, body, start, time.monotonic())

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.used_at < IDLE and not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return Connection(*await asyncio.open_connection("127.0.0.1", self._port), time.monotonic())

    async def _exchange(self, request: bytes, connection: Connection) -> tuple[str, bytes]:
        reader, writer = connection.reader, connection.writer
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = head.lower().split("\r\n")
            length = next(field for field in fields if field.startswith("content-length:"))
            body = await reader.readexactly(int(length.partition(":")[2]))
        except BaseException:
            writer.close()
            raise
        if "connection: close" in fields:
            writer.close()
        else:
            self._idle.append(Connection(reader, writer, time.monotonic()))
        return head, body


async def at_rate(
    rate: float, count: int, call: Callable[[float], Awaitable[Reply]], stopped: asyncio.Event | None = None
) -> list[Reply]:
    """Make `count` calls, `rate` a second, without waiting for answers. Each gets the time at which it is due."""
    tasks = []
    start = time.monotonic()
    for number in range(count):
        due = start + number / rate
        await asyncio.sleep(max(due - time.monotonic(), 0))
        if stopped and stopped.is_set():
            break
        tasks.append(asyncio.ensure_future(call(due)))
    return list(await asyncio.gather(*tasks))


async def max_concurrent(width: int, count: int, call: Callable[[int], Awaitable[Reply]]) -> list[Reply]:
    """Make `count` calls, always `width` of them in flight. Each gets its number."""
    numbers = iter(range(count))
    replies: list[Reply] = []

    async def caller() -> None:
        for number in numbers:
            replies.append(await call(number))

    await asyncio.gather(*(caller() for _ in range(width)))
    return replies


async def beside(main: Awaitable[T], rate: float, call: Callable[[float], Awaitable[Reply]]) -> tuple[T, list[Reply]]:
    """Run `main`, and make calls at `rate` until it ends. Return both results."""
    stopped = asyncio.Event()
    others = asyncio.ensure_future(at_rate(rate, 10**9, call, stopped))
    try:
        found = await main
    finally:
        stopped.set()
    return found, await others


def milliseconds(replies: Sequence[Reply], percent: float) -> float:
    """Return the percentile of the durations in ms."""
    times = sorted(reply.seconds for reply in replies)
    return round(times[min(int(len(times) * percent / 100), len(times) - 1)] * 1000, 1)


def statuses(replies: Sequence[Reply]) -> Counter[int]:
    return Counter(reply.status for reply in replies)
