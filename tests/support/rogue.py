"""A server on 127.0.0.1 that misbehaves as a script says."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import ipaddress
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.listener import Listener
from tests.support.servers import free_port

BLOCK = b"\0" * 65536
FLOOD = 64 * 1024 * 1024
DRIP = 0.1


class Line:
    """One accepted connection, for use in a script."""

    def __init__(self, sock: socket.socket, over: threading.Event, heard: list[bytes]) -> None:
        self._sock = sock
        self._over = over
        self._heard = heard
        self.head = b""

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def read_request(self) -> bytes:
        """Return the head of the next request, or nothing if the client has closed the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._sock.recv(1)
            if not byte:
                return b""
            head += byte
        self._heard.append(head)
        self.head = head
        return head

    def read(self, length: int) -> bytes:
        """Read `length` bytes of a body, or fewer if the client closes the connection. TLS knows no MSG_WAITALL."""
        body = b""
        while len(body) < length and (part := self._sock.recv(length - len(body))):
            body += part
        return body

    def drip(self, data: bytes) -> None:
        """Send `data` again and again, one byte at a time, for 3 seconds."""
        for byte in itertools.islice(itertools.cycle(data), round(3 / DRIP)):
            self.send(bytes([byte]))
            if self._over.wait(DRIP):
                return

    def flood(self, block: bytes = BLOCK) -> None:
        """Send `block` again and again at full speed, 64 MiB in total. Then send nothing."""
        for _ in range(FLOOD // len(block)):
            self.send(block)
        self.hold()

    def hold(self, seconds: float | None = None) -> None:
        self._over.wait(seconds)

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Script = Callable[[Line], None]
Place = Callable[[], contextlib.AbstractContextManager[str]]


class Rogue(Listener):
    """Read one request on each connection, then run `script` in a thread. The `with` block ends all threads."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None, *, speaks_first: bool = False) -> None:
        super().__init__()
        self.requests: list[bytes] = []
        self._script = script
        self._tls = tls
        self._speaks_first = speaks_first
        self.url = f"{'https' if tls else 'http'}://{self.host}"

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(sock)
            if self._tls:
                sock = stack.enter_context(self._tls.wrap_socket(sock, server_side=True))
                self._open.append(sock)
            line = Line(sock, self._over, self.requests)
            if not self._speaks_first:
                line.read_request()
            self._script(line)


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Yield an address where nothing listens."""
    yield f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def full_house() -> Iterator[str]:
    """Yield an address with a full queue of connections: it accepts no more."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def at(script: Script, scheme: str = "http", *, speaks_first: bool = False) -> Place:
    """Return a context manager for the address of a server that runs `script`."""

    @contextlib.contextmanager
    def place() -> Iterator[str]:
        with Rogue(script, speaks_first=speaks_first) as rogue:
            yield f"{scheme}://{rogue.host}"

    return place


def saying(data: bytes, then: Script = lambda line: None) -> Script:
    """Return a script that sends `data`, runs `then`, and closes the connection."""

    def script(line: Line) -> None:
        line.send(data)
        then(line)

    return script


def dripping(data: bytes) -> Script:
    return lambda line: line.drip(data)


def flooding(block: bytes = BLOCK) -> Script:
    return lambda line: line.flood(block)


def answering(body: bytes, head: bytes = b"") -> Script:
    """Return a script that gives the same answer to each request of a connection."""
    answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)

    def script(line: Line) -> None:
        line.send(answer)
        while line.read_request():
            line.send(answer)

    return script


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FOUND = b"HTTP/1.1 302 Found\r\nLocation: "
GZIP = b"Content-Encoding: gzip\r\n"
GZIP_BOMB = gzip.compress(bytes(32 * 1048576))
LONG_HEADER = b"A: " + b"b" * 60000 + b"\r\n"


def with_long_headers(line: Line) -> None:
    line.send(OK)
    for _ in range(90):
        line.send(LONG_HEADER)
    line.send(b"\r\n")
    line.flood()


def answer_once(line: Line) -> None:
    line.send(OK + b"Content-Length: 2\r\n\r\n{}")


#: What the server does, and the reasons that may be reported for it.
FAULTS: dict[str, tuple[Place, str]] = {
    "refused": (nobody, "connection"),
    "not-accepted": (full_house, "timeout"),
    "silent": (at(Line.hold), "timeout"),
    "reset": (at(Line.reset), "connection"),
    "hangs-up": (at(saying(b"")), "connection"),
    "drips-status-line": (at(dripping(b"HTTP/1.1 200 OK")), "timeout"),
    "drips-headers": (at(saying(OK, dripping(b"X-Drip: drip\r\n"))), "timeout"),
    "drips-body": (at(saying(OK + b"\r\n", dripping(b"{}"))), "timeout"),
    "drips-chunks": (at(saying(CHUNKED, dripping(b"1\r\nx\r\n"))), "timeout"),
    "drips-trailers": (at(saying(CHUNKED + b"0\r\n", dripping(b"A: b\r\n"))), "timeout"),
    "drips-interim-answers": (at(dripping(b"HTTP/1.1 100 Continue\r\n\r\n")), "timeout"),
    "500": (at(saying(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")), "http_500"),
    "404-endless": (at(saying(b"HTTP/1.1 404 Lost\r\n\r\n", Line.flood)), "http_404"),
    "302": (at(saying(FOUND + b"http://127.0.0.1:1/\r\n\r\n")), "http_302"),
    "302-to-nonsense": (at(saying(FOUND + b"http://[\r\n\r\n")), "http_302"),
    "302-not-utf8": (at(saying(FOUND + b"/\xff\r\n\r\n")), "http_302"),
    "302-endless": (at(saying(FOUND + b"/\r\n\r\n", Line.flood)), "http_302"),
    "302-gzip-bomb": (at(saying(FOUND + b"/\r\n" + GZIP + b"\r\n" + GZIP_BOMB)), "http_302"),
    "not-http": (at(saying(b"SSH-2.0-OpenSSH_9.9\r\n")), "connection"),
    "endless-header": (at(saying(OK + b"A: ", flooding(b"b" * 1024))), "connection too_large"),
    "endless-headers": (at(saying(OK, flooding(b"A: b\r\n" * 1024))), "connection too_large"),
    "long-headers": (at(with_long_headers), "connection too_large"),
    "malformed-headers": (at(saying(b"HTTP/1.1 500 Oops\r\nno colon here\r\n: b\r\n\r\n")), "http_500"),
    "endless-body": (at(saying(OK + b"\r\n", Line.flood)), "too_large"),
    "1-GiB-body": (at(saying(OK + b"Content-Length: 1073741824\r\n\r\n", Line.flood)), "too_large"),
    "endless-chunks": (at(saying(CHUNKED, flooding(b"400\r\n" + b"x" * 1024 + b"\r\n"))), "too_large"),
    "one-byte-too-large": (at(answering(b"x" * (65537))), "too_large"),
    "gzip-bomb": (at(answering(GZIP_BOMB, GZIP)), "encoded"),
    "shorter-than-promised": (at(saying(OK + b"Content-Length: 99\r\n\r\n{}")), "connection cut_short"),
    "two-lengths": (at(saying(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}")), "connection"),
    "two-lengths-around-no-header": (
        at(saying(OK + b"Content-Length: 2\r\nno header\r\nContent-Length: 3\r\n\r\n{}")),
        "connection",
    ),
    "chunk-cut-short": (at(saying(CHUNKED + b"9\r\n{}")), "connection"),
    "chunk-size-no-number": (at(saying(CHUNKED + b"zz\r\n{}\r\n")), "connection"),
    "chunk-size-negative": (at(saying(CHUNKED + b"-5\r\n{}\r\n")), "connection"),
    "chunk-size-minus-one": (at(saying(CHUNKED + b"-1\r\n", Line.flood)), "connection too_large"),
    "silent-before-tls": (at(Line.hold, "https", speaks_first=True), "timeout"),
    "no-tls-at-all": (at(saying(b"220 no TLS here\r\n"), "https", speaks_first=True), "tls"),
}


def self_signed(folder: Path, common_name: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """Return a TLS context with a self-signed certificate, and the path of the certificate.

    With another `common_name` than 127.0.0.1 the certificate has no subjectAltName.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if common_name == "127.0.0.1":
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(common_name))])
        builder = builder.add_extension(address, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, folder / "key.pem")
    return context, path
