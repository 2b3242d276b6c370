"""A TCP server with a thread for each connection: the base of those that misbehave, and of the proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Listener:
    """Calls `_serve` for each connection. The `with` block ends all connections and threads."""

    def __init__(self) -> None:
        self.connections = 0
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.port: int = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"

    def _serve(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def _accept(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listener.accept()
                sock.settimeout(None)
                self.connections += 1
                self._open.append(sock)
                self._start(self._serve, sock)

    def _start(self, run: Callable[..., None], *sockets: socket.socket) -> None:
        self._threads.append(threading.Thread(target=self._quietly, args=(run, *sockets)))
        self._threads[-1].start()

    def _quietly(self, run: Callable[..., None], *sockets: socket.socket) -> None:
        with contextlib.suppress(OSError):
            run(*sockets)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._threads[0].join()
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for sock in self._open:
            sock.close()
