"""Start the shipped proxy files on free ports, in front of an application that records its requests."""

from __future__ import annotations

import re
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Mapping
from http.client import HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import requests

from tests.support.servers import Server, free_port, program
from tests.support.service import BIN, ROOT

DEPLOY: Final = ROOT / "deploy"


class Kind(NamedTuple):
    """A proxy with a file in deploy/."""

    file: str
    command: list[str]
    #: The option that prints the version.
    version: str
    #: What stands in the file, and what the tests put there. {folder} is that of the test.
    paths: Mapping[str, str] = {}


KINDS: Final = {
    "nginx": Kind("nginx.conf", ["nginx", "-c", "{folder}/config", "-g", "daemon off; pid {folder}/pid;"], "-v"),
    "caddy": Kind("Caddyfile", ["caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/config"], "version"),
    "traefik": Kind(
        "traefik.yml",
        ["traefik", "--configfile", "{folder}/config.yml"],
        "version",
        {"/etc/traefik/traefik.yml": "{folder}/config.yml"},
    ),
    "haproxy": Kind(
        "haproxy.cfg",
        ["haproxy", "-f", "{folder}/config"],
        "-v",
        {"/etc/haproxy/wxauth.lua": "{folder}/haproxy.lua"},
    ),
    "envoy": Kind(
        "envoy.yaml",
        ["envoy", "-c", "{folder}/config.yml", "--concurrency", "2", "--disable-hot-restart"],
        "--version",
    ),
    "apache": Kind(
        "apache.conf",
        ["apache2", "-f", "{folder}/config", "-D", "FOREGROUND"],
        "-v",
        {
            "/etc/apache2/wxauth.lua": "{folder}/apache.lua",
            "/run/apache2/apache2.pid": "{folder}/pid",
            "/var/log/apache2/error.log": "/dev/stderr",
        },
    ),
}

Headers = list[tuple[str, str]]


class Application:
    """Answers `/status/<number>` with that status, everything else with 200 and the openid from the headers.

    It accepts a WebSocket, and sends back each byte that it gets there. After a CONNECT it reads a request.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, Headers]] = []
        #: The size of the newest body.
        self.received = 0
        self._server = _ApplicationServer(("127.0.0.1", 0), _Handler)
        self._server.application = self
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


class _ApplicationServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    application: Application


class _Handler(socketserver.StreamRequestHandler):
    """One request. Names of `headers` are in lower case."""

    server: _ApplicationServer

    def handle(self) -> None:
        request_line = self.rfile.readline().decode("latin-1").strip()
        if not request_line:
            return
        lines = [line.decode("latin-1").rstrip("\r\n") for line in iter(self.rfile.readline, b"\r\n")]
        fields = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
        self.server.application.seen.append((request_line, fields))
        headers = {name.lower(): value for name, value in fields}
        if headers.get("upgrade", "").lower() == "websocket":
            self._echo()
        elif request_line.startswith("CONNECT "):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self.handle()
        else:
            self._read_body(headers)
            self._answer(request_line, headers)

    def _echo(self) -> None:
        head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        self.wfile.write(f"{head}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".encode())
        while data := self.connection.recv(65536):
            self.wfile.write(data)

    def _read_body(self, headers: dict[str, str]) -> None:
        if "expect" in headers:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        received = len(self.rfile.read(int(headers.get("content-length", "0"))))
        while "transfer-encoding" in headers and (size := int(self.rfile.readline(), 16)):
            received += len(self.rfile.read(size + 2)) - 2
        if "transfer-encoding" in headers:
            # The trailers.
            all(line != b"\r\n" for line in iter(self.rfile.readline, b""))
        self.server.application.received = received

    def _answer(self, request_line: str, headers: dict[str, str]) -> None:
        found = re.search(r"/status/(\d+)", request_line)
        status = int(found[1]) if found else 200
        body = f"hello {headers.get('x-wx-openid', 'nobody')}".encode() if status != 204 else b""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.wfile.write(f"HTTP/1.1 {status} Whatever\r\n{length}Connection: close\r\n\r\n".encode())
        if not request_line.startswith("HEAD "):
            self.wfile.write(body)


class Proxy(Server):
    """A proxy of a kind in KINDS. `changed` may edit more of the file than its ports and paths."""

    def __init__(
        self, kind: str, service: int, application: int, changed: Callable[[str], str] = lambda text: text
    ) -> None:
        self.kind = kind
        shipped = KINDS[kind]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command, *arguments = shipped.command
        super().__init__([installed(command), *arguments])
        self._environ = {"PATH": "/usr/bin", "HOME": str(self.folder)}
        ports = {"8080": self.port, "8000": service, "9000": application, "8081": free_port(), "2019": free_port()}
        self._write("config", changed((DEPLOY / shipped.file).read_text()), ports)
        shutil.copy(self.folder / "config", self.folder / "config.yml")
        for script in DEPLOY.glob("*.lua"):
            self._write(script.name, changed(script.read_text()), ports)
        # A proxy started by root runs its workers as another user, and they write a cache.
        self.folder.chmod(0o755)

    def _write(self, name: str, text: str, ports: Mapping[str, int]) -> None:
        text = with_ports(text, ports)
        for shipped, here in KINDS[self.kind].paths.items():
            text = text.replace(shipped, here)
        Path(self.folder, name).write_text(text.replace("{folder}", str(self.folder)))

    def answers(self) -> bool:
        """Say whether it knows its routes: Traefik listens before it has read them, and returns 404."""
        try:
            return requests.get(self.url, timeout=9).status_code != 404
        except requests.RequestException:
            return False

    def say(self, text: str) -> tuple[int, str]:
        """Send `text` with CRLF line ends. Return the status and the text of one answer."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(text.replace("\n", "\r\n").encode("latin-1"))
            answer = HTTPResponse(connection)
            answer.begin()
            return answer.status, f"{answer.headers}{answer.read().decode('latin-1')}"


def version(kind: str) -> str:
    """Return the version that the program reports."""
    command = [installed(KINDS[kind].command[0]), KINDS[kind].version]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    found = re.search(r"\d+\.\d+\.\d+", shown.stdout + shown.stderr)
    assert found, f"{command} reports no version"
    return found[0]


def installed(name: str) -> str:
    """Return the path of a program from Debian or PyPI."""
    return program(name, BIN) if (BIN / name).exists() else program(name)


def with_ports(text: str, ports: Mapping[str, int]) -> str:
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda found: str(ports[found[1]]), text)
