"""An HTTP proxy for the tests: CONNECT for TLS, the absolute form for plain HTTP, with a user and a password."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

USER, PASSWORD = "fixie", "proxy/password+that no one?may=see"


class ConnectProxy:
    """Forwards to the address that a request names. `with` ends all its threads."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def url(self, password: str = PASSWORD) -> str:
        return f"http://{USER}:{quote(password, safe='')}@{self.host}"

    def _accept(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listener.accept()
                sock.settimeout(None)
                self._open.append(sock)
                self._start(self._serve, sock)

    def _start(self, run: Callable[..., None], *sockets: socket.socket) -> None:
        self._threads.append(threading.Thread(target=self._quietly, args=(run, *sockets)))
        self._threads[-1].start()

    def _quietly(self, run: Callable[..., None], *sockets: socket.socket) -> None:
        with contextlib.suppress(OSError):
            run(*sockets)

    def _serve(self, client: socket.socket) -> None:
        head = self._head(client)
        if not head:
            return
        if not self._is_allowed(head):
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.shutdown(socket.SHUT_RDWR)
            return
        method, target, _ = head.split(b" ", 2)
        url = target.decode()
        address = urlsplit(f"//{url}" if method == b"CONNECT" else url)
        try:
            server = socket.create_connection((str(address.hostname), address.port or 80), 5)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            client.shutdown(socket.SHUT_RDWR)
            return
        server.settimeout(None)
        self._open.append(server)
        if method == b"CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.sendall(self._forwarded(head))
        self._start(self._copy, server, client)
        self._copy(client, server)

    def _head(self, client: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = client.recv(1)
            if not byte:
                return b""
            head += byte
        self.heads.append(head)
        return head

    def _is_allowed(self, head: bytes) -> bool:
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode())
        return b"Proxy-Authorization: Basic " + expected in head

    def _forwarded(self, head: bytes) -> bytes:
        """Return the head as the origin gets it: the path in place of the URL, without the credentials."""
        line, *headers = head.split(b"\r\n")
        method, target, version = line.split(b" ")
        path = b"/" + target.split(b"/", 3)[3]
        kept = [header for header in headers if not header.startswith(b"Proxy-")]
        return b"\r\n".join([b"%b %b %b" % (method, path, version), *kept])

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

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
