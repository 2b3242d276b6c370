"""A TCP relay in front of a Redis that delays, cuts and spoils its replies.

Its attributes may be set from any thread while it runs.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from types import TracebackType
from typing import Self

CHUNK = 65536
SWAP_PATIENCE = 0.05
LATEST = 0.02


class Relay:
    """Listen on a loopback `port` and forward to `target`, a port on 127.0.0.1.

    `latency` delays each batch of replies, in seconds. While `stalled`, nothing is forwarded in either direction.
    `piece` splits replies into pieces of so many bytes. `odds` are probabilities for each batch of replies: flip one
    bit, duplicate the last reply at once or later, swap two replies of one batch or of two connections, cut the
    connection after half of the batch. `done` counts what happened.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.target = target
        self.latency = 0.0
        self.stalled = False
        self.piece = 0
        self.odds: dict[str, float] = {}
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: tuple[bytes, asyncio.Future[bytes]] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._refuse())
        self._do(self._cut())
        self._do(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def accept(self) -> None:
        """Accept connections."""
        self._do(self._accept())

    def refuse(self) -> None:
        """Accept no more connections. Existing ones stay."""
        self._do(self._refuse())

    def cut(self) -> None:
        """Abort all connections."""
        self._do(self._cut())

    def _do(self, what: object) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)  # type: ignore[arg-type]  # any coroutine

    async def _accept(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    async def _cut(self) -> None:
        for writer in list(self._links):
            writer.transport.abort()

    async def _end_tasks(self) -> None:
        """Cancel all tasks. A connection that was just accepted becomes a task after some turns of the loop."""
        for _ in range(5):
            await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, from_caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._links.add(to_caller)
        to_server = None
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
            self._links.add(to_server)
            pumps = self._forward(from_caller, to_server), self._answer(from_server, to_caller)
            running = [asyncio.ensure_future(pump) for pump in pumps]
            try:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in running:
                    pump.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        except OSError:
            self.done["no_server"] += 1
        except asyncio.CancelledError:
            pass
        finally:
            for writer in filter(None, (to_caller, to_server)):
                writer.transport.abort()
                self._links.discard(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._unstalled()
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.latency:
                await asyncio.sleep(self.latency)
            await self._unstalled()
            await self._send(await self._spoilt(data, writer), writer)

    async def _unstalled(self) -> None:
        while self.stalled:
            await asyncio.sleep(0.002)

    async def _send(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        size = self.piece or len(data) or 1
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if self.piece:
                await asyncio.sleep(0)

    async def _spoilt(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        for mischief, probability in self.odds.items():
            if self._random.random() < probability:
                self.done[mischief] += 1
                data = await self._spoil(mischief, data, writer)
        return data

    async def _spoil(self, mischief: str, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        if mischief == "flip":
            place = self._random.randrange(len(data))
            return data[:place] + bytes([data[place] ^ 1 << self._random.randrange(8)]) + data[place + 1 :]
        if mischief == "cut":
            writer.write(data[: len(data) // 2])
            await writer.drain()
            raise ConnectionAbortedError
        batch = replies(data)
        if mischief == "duplicate":
            return self._duplicated(data, batch[-1], writer)
        if len(batch) > 1 and self._random.random() < 0.5:
            place = self._random.randrange(len(batch) - 1)
            batch[place : place + 2] = reversed(batch[place : place + 2])
            return b"".join(batch)
        return await self._exchanged(data)

    def _duplicated(self, data: bytes, last: bytes, writer: asyncio.StreamWriter) -> bytes:
        if self._random.random() < 0.5:
            return data + last
        self._loop.call_later(self._random.random() * LATEST, writer.write, last)
        return data

    async def _exchanged(self, mine: bytes) -> bytes:
        """Return the reply for another connection at the same time, or `mine` if there is none."""
        waiting, self._waiting = self._waiting, None
        if waiting and not waiting[1].done():
            waiting[1].set_result(mine)
            return waiting[0]
        self._waiting = mine, self._loop.create_future()
        try:
            return await asyncio.wait_for(self._waiting[1], SWAP_PATIENCE)
        except TimeoutError:
            return mine


def replies(data: bytes) -> list[bytes]:
    """Split `data` into RESP 2 replies. The last one may be incomplete."""
    found: list[bytes] = []
    start = 0
    while start < len(data):
        end = _end_of_reply(data, start)
        found.append(data[start:end])
        start = end
    return found


def _end_of_reply(data: bytes, start: int) -> int:
    line_end = data.find(b"\r\n", start) + 2
    if line_end < 2:
        return len(data)
    kind, rest = data[start : start + 1], data[start + 1 : line_end - 2]
    length = int(rest) if kind in b"$*" and rest.lstrip(b"-").isdigit() else -1
    if length < 0:
        return line_end
    if kind == b"$":
        return min(line_end + length + 2, len(data))
    end = line_end
    for _ in range(length):
        end = _end_of_reply(data, end) if end < len(data) else len(data)
    return end
