"""A website on an origin of its own, a phone that scans its codes, and a scripted stand-in for the service."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import requests

from tests.support.servers import RedisServer, ThreadedServer
from tests.support.service import WeChatServer

CODES: Final = ("BCDF-GHJK", "LMNP-QRST", "VWXZ-BCDF")
PIXEL: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CORS: Final = {
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate",
    "Vary": "Origin",
}

#: Status, body (or a function that waits and returns it) and headers.
Answer = tuple[int, Any, dict[str, str]]


class Phone:
    """The phone of a user who is logged in."""

    def __init__(self, url: str, code: str) -> None:
        self.url = url
        token = requests.post(f"{url}/login", json={"code": code}, timeout=5).json()["token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", headers=self.headers, timeout=5)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def answer(self, user_code: str, *, approve: bool) -> int:
        url, body = f"{self.url}/device/{user_code}", {"approve": approve}
        return requests.post(url, json=body, headers=self.headers, timeout=5).status_code


@dataclass
class Login:
    """The service with a client for scans, and its users."""

    url: str
    wechat: WeChatServer
    redis: RedisServer

    def phone(self, user: str = "alice") -> Phone:
        return Phone(self.url, self.wechat.fake.wx_login(user))


class Website(ThreadedServer):
    """Serve the files of a folder. `asked` has the addresses that came in."""

    def __init__(self, folder: Path) -> None:
        asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                asked.append(self.path)

        self.asked = asked
        super().__init__(partial(Handler, directory=str(folder)))


class ScriptedService(ThreadedServer):
    """Answer the routes of design section 2.1 and POST /login. `say` scripts the next answers of a path.

    Unless a script says otherwise, a poll is `authorization_pending` and each new code is the next one of CODES.
    """

    def __init__(self) -> None:
        self.allows_origin = True
        self.reset()
        super().__init__(self._handler())

    def reset(self) -> None:
        self.scripts: defaultdict[str, list[Answer]] = defaultdict(list)
        self.requests: list[tuple[str, dict[str, str]]] = []
        #: The Cookie header of each POST.
        self.cookies: list[str] = []

    def say(self, path: str, status: int, body: Any, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.scripts[path].append((status, body, named))

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the bodies of the requests to a path."""
        return [body for asked, body in self.requests if asked == path]

    def answer(self, path: str) -> Answer:
        if self.scripts[path]:
            return self.scripts[path].pop(0)
        if path == "/device_authorization":
            return 200, self._new_code(), {}
        if path == "/token":
            return 400, {"error": "authorization_pending"}, {}
        return (200, PIXEL, {}) if path.endswith(".png") else (404, {"code": "not_found"}, {})

    def _new_code(self) -> dict[str, Any]:
        number = len(self.asked("/device_authorization"))
        user_code = CODES[number - 1]
        return {
            "device_code": f"device-code-{number}",
            "user_code": user_code,
            "verification_uri": f"{self.url}/device",
            "verification_uri_complete": f"{self.url}/device?user_code={user_code}",
            "expires_in": 300,
            "interval": 2,
            "qr_code": f"{self.url}/device/{user_code}.png",
        }

    def _handler(service) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                self._send(204, b"", {})

            def do_GET(self) -> None:
                self._respond({})

            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.cookies.append(self.headers.get("Cookie", ""))
                is_json = self.headers["Content-Type"] == "application/json"
                self._respond(json.loads(text) if is_json else dict(parse_qsl(text)))

            def _respond(self, body: dict[str, str]) -> None:
                service.requests.append((self.path, body))
                status, content, headers = service.answer(self.path)
                content = content() if callable(content) else content
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self._send(status, data, headers)

            def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
                origin = {"Access-Control-Allow-Origin": self.headers["Origin"]} if self.headers["Origin"] else {}
                cors = CORS | origin if service.allows_origin else {}
                self.send_response(HTTPStatus(status))
                for name, value in (cors | headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing. Tests read `requests`."""

        return Handler
