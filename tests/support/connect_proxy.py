"""An HTTP proxy for the tests: CONNECT for TLS, the absolute form for plain HTTP, with a user and a password."""

from __future__ import annotations

import base64
import socket
from urllib.parse import quote, urlsplit

from tests.support.listener import Listener

USER, PASSWORD = "fixie", "proxy/password+that no one?may=see"


class ConnectProxy(Listener):
    """Forwards to the address that a request names. `with` ends all its threads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[bytes] = []

    def url(self, password: str = PASSWORD) -> str:
        return f"http://{USER}:{quote(password, safe='')}@{self.host}"

    def _serve(self, sock: socket.socket) -> None:
        client, head = sock, self._head(sock)
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
