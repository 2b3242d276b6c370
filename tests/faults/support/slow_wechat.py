"""A slow WeChat in a process of its own. The code names the delay in milliseconds and the user. It works once."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.servers import Server, free_port
from tests.support.service import ROOT

CODE = re.compile(rb"js_code=(\d+)\.([\w-]+)")
CODE_USED: dict[str, Any] = {"errcode": 40163, "errmsg": "code been used"}


def code(milliseconds: int, user: str) -> str:
    """Return a code that WeChat answers after `milliseconds` with the openid of `user`."""
    return f"{milliseconds}.{user}"


class SlowWeChat(Server):
    """It takes little processor time, so that measurements show the service.

    With a `folder`, which holds certificate.pem and key.pem, it speaks TLS.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"{'https' if folder else 'http'}://127.0.0.1:{self.port}"
        super().__init__(
            [sys.executable, "-m", __name__, str(self.port), *([str(folder)] if folder else [])], cwd=ROOT
        )

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def connections(self) -> int:
        """How many connections were opened, those of `answers` too. With TLS each had its handshake."""
        return self.output().count("connected")


async def _serve(used: set[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    print("connected", flush=True)  # noqa: T201 - `connections` counts the lines
    try:
        while True:
            await _answer(used, await reader.readuntil(b"\r\n\r\n"), writer)
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


async def _answer(used: set[bytes], head: bytes, writer: asyncio.StreamWriter) -> None:
    found = CODE.search(head)
    milliseconds, user = (int(found[1]), found[2].decode()) if found else (0, "unknown")
    answer: dict[str, Any] = {"openid": f"o{user}", "session_key": "tiihtNczf5v6AKRyjwEUhQ=="}
    if found and found[0] in used:
        answer = CODE_USED
    elif found:
        used.add(found[0])
    await asyncio.sleep(milliseconds / 1000)
    body = json.dumps(answer).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def _main(port: int, folder: str = "") -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if folder else None
    if context:
        context.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
    server = await asyncio.start_server(partial(_serve, set()), "127.0.0.1", port, backlog=1024, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), *sys.argv[2:]))
