"""`python -m benchmarks.harness.fake_wechat PORT MILLISECONDS`: answer jscode2session after a delay.

The code names the user: `user-7` is `fake_user(7)`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import asdict

from benchmarks.contenders.users import fake_user


async def serve(port: int, delay: float) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _request(reader):
            await asyncio.sleep(delay)
            writer.write(_answer(request))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    await server.serve_forever()


async def _request(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _answer(request: bytes) -> bytes:
    code = re.search(rb"js_code=user-([0-9]+)", request)
    identity = asdict(fake_user(code[1].decode() if code else "0"))
    del identity["appid"]
    body = json.dumps(identity).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]) / 1000))
