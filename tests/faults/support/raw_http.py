"""Send any bytes over a socket and read the HTTP answers."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass

START = re.compile(rb"(?:^|(?<=\n)|(?<=[}\w]))HTTP/1\.[01] (\d{3}) ")


@dataclass(frozen=True)
class Answers:
    """The answers on one connection. `kept` is whether it was still open at the end."""

    raw: bytes
    kept: bool

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in START.findall(self.raw)]

    @property
    def status(self) -> int:
        """The status of the only answer, or 0 if there is none or more than one."""
        return self.statuses[0] if len(self.statuses) == 1 else 0


def ask(port: int, data: bytes, patience: float = 0.3) -> Answers:
    """Send `data` and read until the other side closes or is silent for `patience` seconds."""
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        sender = threading.Thread(target=_send, args=(line, data))
        sender.start()
        answers = _listen(line, patience)
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        sender.join()
        return answers


def _send(line: socket.socket, data: bytes) -> None:
    # The server may close the connection before it has read everything.
    with contextlib.suppress(OSError):
        line.sendall(data)


def _listen(line: socket.socket, patience: float) -> Answers:
    found = b""
    over = time.monotonic() + 10
    while time.monotonic() < over:
        line.settimeout(patience if found else 10)
        try:
            part = line.recv(65536)
        except TimeoutError:
            return Answers(found, kept=True)
        except OSError:
            part = b""
        if not part:
            return Answers(found, kept=False)
        found += part
    return Answers(found, kept=True)
