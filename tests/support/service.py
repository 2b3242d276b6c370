"""Start the service as a host does: from its Procfile, with a real Redis and a fake WeChat over HTTP."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.support.servers import Server, ThreadedServer, free_port, wait_until
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wxauth"
#: Seconds after which a logout holds in every worker, as SECURITY.md says.
REVOCATION_LIMIT: Final = 3.0
BIN = Path(sys.executable).parent


class WeChatServer(ThreadedServer):
    """The sandbox's fake WeChat as an HTTP server."""

    def __init__(self) -> None:
        self.fake = FakeWeChat({APPID: Secret(APP_SECRET)})
        self.asked: list[str] = []
        #: The status of the answers.
        self.status = 200
        super().__init__(self._handler())

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, data: bytes | None) -> None:
                server.asked.append(self.path)
                request = requests.Request(self.command, f"https://api.weixin.qq.com{self.path}", data=data).prepare()
                body = server.fake.send(request, timeout=3).content
                self.send_response(server.status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing. Tests read `asked`."""

        return Handler


def is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=1).ok
    except requests.RequestException:
        return False


class Service(Server):
    """The Procfile under honcho, as on a host like Heroku, with `environ` as its whole environment.

    All phones of a test have one address, so the limit on logins is very high.
    """

    def __init__(self, environ: dict[str, str], port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(BIN / "honcho"), "start", "-f", str(ROOT / "Procfile"), "-p", str(self.port), "--no-colour"]
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        super().__init__(
            command,
            environ={"PATH": path, "HOME": str(ROOT), "WXAUTH_LOGIN_RATE": "1000000/minute", **environ},
            cwd=ROOT,
        )

    def answers(self) -> bool:
        return is_healthy(self.url)


class Sandbox(Server):
    """The sandbox, as `make run` starts it, on a free port. `environ` is added to its environment."""

    def __init__(self, **environ: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        environ |= {"PATH": os.environ["PATH"], "PORT": str(port)}
        super().__init__([sys.executable, "app.py"], environ=environ, cwd=ROOT)

    def answers(self) -> bool:
        return is_healthy(self.url)


def await_end(url: str, headers: dict[str, str]) -> None:
    """Wait until `url` returns 401 ten times: another worker learns of a logout some milliseconds later."""

    def has_ended() -> bool:
        return {requests.get(url, headers=headers, timeout=5).status_code for _ in range(10)} == {401}

    wait_until(has_ended, f"the end of the session at {url}", REVOCATION_LIMIT)


def environment(redis_url: str, wechat_url: str, **more: str) -> dict[str, str]:
    """Return the environment of a service for one mini program."""
    return {
        "WECHAT_APPID": APPID,
        "WECHAT_SECRET": APP_SECRET,
        "WXAUTH_SECRET_KEYS": RING_KEY,
        "WXAUTH_WECHAT_URL": wechat_url,
        "REDIS_URL": redis_url,
        **more,
    }
