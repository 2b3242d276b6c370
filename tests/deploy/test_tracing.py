"""OpenTelemetry and Sentry as they are installed export no secret, neither in a span nor in a report of an error."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.faults.support.leaks import hits, random_part
from tests.support.compatibility import check_row
from tests.support.servers import RedisServer, Server, ThreadedServer, free_port, wait_until
from tests.support.service import BIN, ROOT, WeChatServer, environment

PASSWORD = "redis/password+that no one?may=see"
CLIENT_SECRET = "client-secret-that-must-stay-secret"
#: The prefix of the routes in each application of tests/support/traced.py.
PREFIXES: Final = {"service": "", "application": "/auth"}
CONSOLE: Final = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "console",
    "OTEL_LOGS_EXPORTER": "console",
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
}


class Traced(Server):
    """An application of tests/support/traced.py under Granian."""

    def __init__(self, name: str, environ: dict[str, str], *command: str) -> None:
        self.prefix = PREFIXES[name]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        target = f"tests.support.traced:{name}"
        server = [sys.executable, "-m", "wxauth.cli.server", target, "127.0.0.1", str(self.port), "1", "16"]
        super().__init__([*command, *server], environ={"PATH": os.environ["PATH"], **environ}, cwd=ROOT)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}{self.prefix}/session", timeout=1).status_code == 401
        except requests.RequestException:
            return False


class Walk:
    """Sends requests, and notes each secret that they carry or get."""

    def __init__(self, server: Traced, wechat: WeChatServer) -> None:
        self._server = server
        self._wechat = wechat
        self.secrets: dict[str, str] = {}
        self.token = ""

    def note(self, name: str, secret: str) -> str:
        self.secrets[f"{name} {len(self.secrets)}"] = secret
        return secret

    def ask(self, method: str, path: str, *, prefix: bool = True, **more: Any) -> requests.Response:
        headers = ({"Authorization": f"Bearer {self.token}"} if self.token else {}) | more.pop("headers", {})
        url = f"{self._server.url}{self._server.prefix if prefix else ''}{path}"
        return requests.request(method, url, headers=headers, timeout=15, **more)

    def log_in(self, outcome: str | None = None, status: int = 200, **more: str) -> int:
        code = self.note("code", self._wechat.fake.wx_login("planted", outcome))
        self._wechat.status = status
        answer = self.ask("POST", "/login", json={"code": code, **more})
        self._wechat.status = 200
        self.token = answer.json()["token"] if answer.ok else self.token
        return answer.status_code

    def note_token(self) -> str:
        self.note("bits of a token", random_part(self.token))
        return self.note("token", self.token)

    def ask_for_a_scan(self) -> dict[str, str]:
        """Let a website ask for a login, and approve it. Return the form with which the website polls."""
        client = {"client_id": "backend", "client_secret": CLIENT_SECRET}
        given = self.ask("POST", "/device_authorization", data=client).json()
        self.note("device code", given["device_code"])
        self.note("user code", given["user_code"])
        path = f"/device/{given['user_code']}"
        assert self.ask("GET", path).json()["client_id"] == "backend"
        assert self.ask("POST", path, json={"approve": True}).status_code == 204
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        return client | {"grant_type": grant, "device_code": given["device_code"]}

    def check_like_a_proxy(self, openid: str) -> None:
        """Envoy appends the path of the request to the prefix. Traefik and Caddy name it in a header."""
        asked = f"/users/{openid}?openid={openid}"
        for path in ("/verify", f"/verify{asked}"):
            assert self.ask("GET", path, headers={"X-Forwarded-Uri": asked}).ok
            refused = {"X-Forwarded-Uri": asked, "Authorization": "Bearer nonsense"}
            assert self.ask("GET", path, headers=refused).status_code == 401

    def run(self) -> None:
        assert self.log_in() == 200
        token = self.note_token()
        openid = self.note("openid", self.ask("GET", "/session").json()["openid"])
        code = self.note("phone code", self._wechat.fake.tap_phone_button("planted", APPID))
        answer = self.ask("POST", "/phone", json={"code": code})
        self.note("phone number", answer.json()["phoneNumber"])
        assert self.log_in("40029") == 400
        assert self.log_in("40163") == 400
        assert self.log_in("stall") == 503
        assert self.log_in(status=500) == 503
        assert self.ask("GET", "/orders", prefix=False).status_code == 500
        assert self.ask("GET", f"/session?access_token={token}").status_code == 400
        assert self.ask("GET", f"/nowhere/{token}/{openid}").status_code == 404
        if not self._server.prefix:
            self.check_like_a_proxy(openid)
        ticket = self.note("ticket", self.ask("POST", "/ticket").json()["ticket"])
        scan = self.ask_for_a_scan()
        self.token = ""
        page = {"Referer": f"{self._server.url}/page?ticket={ticket}"}
        answer = self.ask("POST", "/login", json={"ticket": ticket}, headers=page)
        self.note("token of a page", answer.json()["token"])
        self.note("token of a website", self.ask("POST", "/token", data=scan).json()["access_token"])
        assert self.log_in(device="bug") == 500
        login: dict[str, Any] = {"auth": ("backend", CLIENT_SECRET)}
        assert self.ask("POST", "/introspect", data={"token": token}, **login).json()["active"]
        fields = {"client_id": "backend", "client_secret": CLIENT_SECRET, "token": token}
        assert self.ask("POST", "/introspect", data=fields).json()["active"]
        user = f"/users/{APPID}/{openid}"
        assert self.ask("GET", f"{user}/sessions", **login).status_code == 200
        assert self.ask("GET", f"/admin{user}", **login).status_code in (200, 404)
        assert self.ask("PUT", f"{user}/ban", **login).status_code == 204
        assert self.ask("POST", "/wechat/push", params={"openid": openid, "signature": "x"}).status_code in (403, 404)
        assert self.ask("POST", "/revoke", data={"token": token}, **login).status_code == 200
        self.secrets |= {"app secret": APP_SECRET, "ring key": RING_KEY, "redis password": PASSWORD}
        self.secrets |= {"client secret": CLIENT_SECRET}
        self.secrets["access token"] = self._wechat.fake.api.newest_access_token(APPID)
        for key, _ in self._wechat.fake._session_keys.values():
            self.note("session_key", key)


@contextmanager
def walked(name: str, environ: Mapping[str, str], *command: str) -> Iterator[tuple[Walk, Traced]]:
    with RedisServer("--requirepass", PASSWORD) as redis, WeChatServer() as wechat:
        url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{redis.port}/0"
        more = {"WXAUTH_WECHAT_TIMEOUT": "1", "WXAUTH_CLIENTS": f"backend:{CLIENT_SECRET}", **environ}
        more["WXAUTH_ADMIN_CLIENTS"] = "backend"
        more["WXAUTH_PUBLIC_URL"] = "https://login.example.com"
        with Traced(name, environment(url, wechat.url, **more), *command) as server:
            walk = Walk(server, wechat)
            walk.run()
            yield walk, server


class Collector(ThreadedServer):
    """Takes the envelopes of Sentry."""

    def __init__(self) -> None:
        self.text = b""
        super().__init__(self._handler())
        self.dsn = self.url.replace("//", "//key@") + "/1"

    def _handler(collector) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.text += gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        return Handler


#: The application, and which names its spans have: the old ones, or both.
CONVENTIONS: Final = {"application": {}, "service": {"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}}


@pytest.mark.parametrize(("name", "convention"), CONVENTIONS.items(), ids=CONVENTIONS)
def test_opentelemetry_exports_no_secret(name: str, convention: dict[str, str]) -> None:
    """`opentelemetry-instrument` in front of the server, as its documentation says, with spans, metrics and logs."""
    with walked(name, CONSOLE | convention, str(BIN / "opentelemetry-instrument")) as (walk, server):
        wait_until(lambda: f"{PREFIXES[name]}/revoke" in spans(server), "the last span")
        wait_until(lambda: "http.server.duration" in server.output(), "the metrics")
        server.stop()
        assert hits(walk.secrets, "the spans", server.output().encode()) == []
        # As the row says: calls to WeChat have no spans.
        assert not any(path.startswith(("/sns/", "/wxa/", "/cgi-bin/")) for path in spans(server))
        assert {f"{PREFIXES[name]}/users/<appid>/<openid>/ban", f"{PREFIXES[name]}/login", "/orders"} < spans(server)
        assert "a bug in a receiver" in server.output()
    check_row("OpenTelemetry SDK", version("opentelemetry-sdk"))


def spans(server: Traced) -> set[str]:
    """Return the paths of the URLs of all spans."""
    return {urlsplit(url).path for url in re.findall(r'"http.url": "([^"]+)"', server.output())}


@pytest.mark.parametrize("name", PREFIXES)
def test_sentry_gets_no_secret(name: str) -> None:
    """`sentry_sdk.init` with the default integrations: transactions, breadcrumbs and errors with their variables."""
    with Collector() as collector, walked(name, {"SENTRY_DSN": collector.dsn}) as (walk, server):
        wait_until(lambda: b"wxauth.backends.revoke" in collector.text, "the last transaction")
        server.stop()
        sent = collector.text
    assert hits(walk.secrets, "the reports", sent) == []
    assert b"/sns/jscode2session" in sent
    assert b"a bug in a receiver" in sent
    # The variables of a view are the application's own.
    assert b"an app with 18 characters" in sent
    check_row("Sentry SDK", version("sentry-sdk"))
