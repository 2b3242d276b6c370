"""Start the shipped proxy files on free ports, in front of an application that records its requests."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.servers import Server, free_port, program
from tests.support.service import ROOT

SHIPPED: Final = {"nginx": ROOT / "deploy" / "nginx.conf", "caddy": ROOT / "deploy" / "Caddyfile"}
COMMANDS: Final = {
    "nginx": ["-c", "{folder}/config", "-g", "daemon off; pid {folder}/pid;"],
    "caddy": ["run", "--adapter", "caddyfile", "--config", "{folder}/config"],
}

Headers = list[tuple[str, str]]


class Application:
    """Answers `/status/<number>` with that status, everything else with 200 and the openid from the headers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Headers]] = []
        #: The size of the newest body.
        self.received = 0
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def identity(self) -> Headers:
        """Return the identity headers of the newest request, in any spelling."""
        _, headers = self.seen[-1]
        return [(name, value) for name, value in headers if re.match(r"x.wx.", name, re.IGNORECASE)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(application) -> type[socketserver.StreamRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                request_line = self.rfile.readline().decode("latin-1").strip()
                if not request_line:
                    return
                lines = [line.decode("latin-1").rstrip("\r\n") for line in iter(self.rfile.readline, b"\r\n")]
                headers = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
                application.seen.append((request_line, headers))
                self._read_body(dict(headers))
                status = re.search(r"/status/(\d+)", request_line)
                openid = next((value for name, value in headers if name.lower() == "x-wx-openid"), "nobody")
                body = f"hello {openid}".encode()
                head = f"HTTP/1.1 {status[1] if status else 200} Whatever\r\nContent-Length: {len(body)}\r\n"
                self.wfile.write(f"{head}Connection: close\r\n\r\n".encode() + body)

            def _read_body(self, headers: dict[str, str]) -> None:
                application.received = len(self.rfile.read(int(headers.get("Content-Length", "0"))))
                while "Transfer-Encoding" in headers and (size := int(self.rfile.readline(), 16)):
                    application.received += len(self.rfile.read(size + 2)) - 2
                if "Transfer-Encoding" in headers:
                    # The trailers.
                    all(line != b"\r\n" for line in iter(self.rfile.readline, b""))

        return Handler


class Proxy(Server):
    """A proxy of `kind` nginx or caddy. `changed` may edit more of the file than its ports."""

    def __init__(
        self, kind: str, service: int, application: int, changed: Callable[[str], str] = lambda text: text
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        binary = program(kind)
        super().__init__([binary, *COMMANDS[kind]])
        self._environ = {"PATH": "/usr/bin", "HOME": str(self.folder)}
        ports = {"8080": self.port, "8000": service, "9000": application, "2019": free_port()}
        config = changed(with_ports(SHIPPED[kind].read_text(), ports)).replace("{folder}", str(self.folder))
        Path(self.folder, "config").write_text(config)
        # nginx started by root runs its workers as the user nobody, and they write a cache.
        self.folder.chmod(0o755)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def say(self, text: str) -> tuple[int, str]:
        """Send `text` with CRLF line ends. Return the status and the whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(text.replace("\n", "\r\n").encode("latin-1"))
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
        return int(answer[9:12]), answer


def with_ports(text: str, ports: Mapping[str, int]) -> str:
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda found: str(ports[found[1]]), text)
