"""Test the service on WSGI servers. Each server runs with the settings of its row in docs/compatibility.md."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

import pytest
import requests

from tests.support.clients import BACKEND, CLIENT_SECRET, basic
from tests.support.compatibility import check_row
from tests.support.servers import RedisServer, Server, free_port, program
from tests.support.service import BIN, ROOT, WeChatServer, await_end, environment

#: Seconds. A host kills a server that takes longer, after 10 s or more.
SIGTERM_LIMIT: Final = 5
APP: Final = "wxauth.wsgi:app"
#: `make check` installs the service there for Debian's Python, which is that of Debian's mod_wsgi.
DEBIAN: Final = ROOT / ".venv-debian"
MOD_WSGI: Final = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog /dev/stderr
Listen 127.0.0.1:{port}
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule wsgi_module /usr/lib/apache2/modules/mod_wsgi.so
WSGISocketPrefix {folder}/wsgi
WSGIDaemonProcess wxauth processes=2 threads=16 python-home={folder}/venv python-path={folder}
WSGIProcessGroup wxauth
WSGIApplicationGroup %{GLOBAL}
WSGIScriptAlias / {folder}/app.py
WSGICallableObject app
WSGIPassAuthorization On
WSGIChunkedRequest On
"""


@dataclass(frozen=True)
class Kind:
    """How a server is started, and where it differs from the others."""

    command: str
    package: str = ""
    exit_code: int = 0
    chunked: int = 200
    threads: int = 16
    config: str = ""


LISTEN: Final = "127.0.0.1:{port}"
KINDS: Final = {
    "Granian": Kind("python -m wxauth serve --port {port}", "granian"),
    # Two gunicorns of one user would share the control socket, which is in the home folder.
    "gunicorn": Kind(f"gunicorn --bind {LISTEN} --workers 2 --threads 16 --no-control-socket {APP}", "gunicorn"),
    # It does not handle SIGTERM, so the signal ends it.
    "waitress": Kind(f"waitress-serve --listen {LISTEN} --threads 16 {APP}", "waitress", exit_code=-15),
    # It does not decode chunked bodies.
    "uWSGI": Kind(
        f"uwsgi --http-socket {LISTEN} --master --processes 2 --threads 16 --die-on-term --need-app --module {APP}",
        "pyuwsgi",
        chunked=400,
    ),
    # asyncio chooses the number of threads.
    "Hypercorn": Kind(
        f"hypercorn --bind {LISTEN} --workers 2 wsgi:{APP}", "hypercorn", threads=min(32, (os.cpu_count() or 1) + 4)
    ),
    "mod_wsgi": Kind("apache2 -f {folder}/config -D FOREGROUND", config=MOD_WSGI),
}


class WsgiServer(Server):
    """The service on a WSGI server, on a free port."""

    def __init__(self, kind: Kind, environ: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kind = kind
        if kind.config:
            program("python", DEBIAN / "bin")
        environ = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin",
            "PYTHONPATH": str(ROOT),
            "WXAUTH_THREADS": str(kind.threads),
            **environ,
        }
        super().__init__(kind.command.replace("{port}", str(self.port)).split(), environ=environ)
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / "metrics")

    def start(self) -> None:
        # Apache's workers belong to www-data.
        self.folder.chmod(0o755)
        (self.folder / "metrics").mkdir()
        (self.folder / "metrics").chmod(0o777)
        if self.kind.config:
            self._copy_the_service()
        config = self.kind.config.replace("{folder}", str(self.folder)).replace("{port}", str(self.port))
        (self.folder / "config").write_text(config)
        super().start()

    def _copy_the_service(self) -> None:
        """Copy what Apache's workers load: they may not be able to read the folder of the checkout."""
        shutil.copytree(DEBIAN, self.folder / "venv", symlinks=True)
        shutil.copytree(ROOT / "wxauth", self.folder / "wxauth")
        shutil.copy(ROOT / "app.py", self.folder)

    def answers(self) -> bool:
        try:
            return self.send("GET", "/healthz").ok
        except requests.RequestException:
            return False

    def send(self, method: str, path: str, authorization: str = "", **more: Any) -> requests.Response:
        """Send the request on a new connection, so that any worker may answer."""
        headers = {"Authorization": authorization} | more.pop("headers", {})
        return requests.request(method, self.url + path, headers=headers, timeout=5, **more)

    def version(self) -> str:
        """Return the version that runs. Apache names its module in each answer."""
        if self.kind.package:
            return metadata.version(self.kind.package)
        (found,) = re.findall(r"mod_wsgi/([\d.]+)", self.send("GET", "/healthz").headers["Server"])
        return str(found)


@dataclass
class Surroundings:
    """The fake WeChat, and the environment of a service."""

    wechat: WeChatServer
    environ: dict[str, str]


@pytest.fixture(scope="module")
def surroundings() -> Iterator[Surroundings]:
    with ExitStack() as stack:
        redis, wechat = stack.enter_context(RedisServer()), stack.enter_context(WeChatServer())
        clients = {"WXAUTH_CLIENTS": f"{BACKEND}:{CLIENT_SECRET}"}
        yield Surroundings(wechat, environment(redis.url, wechat.url, **clients))


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, surroundings: Surroundings) -> Iterator[tuple[str, WsgiServer]]:
    with WsgiServer(KINDS[request.param], surroundings.environ) as server:
        yield request.param, server


@pytest.fixture
def server(running: tuple[str, WsgiServer]) -> WsgiServer:
    return running[1]


@pytest.fixture
def token(server: WsgiServer, surroundings: Surroundings) -> str:
    answer = server.send("POST", "/login", json={"code": surroundings.wechat.fake.wx_login("alice")})
    assert answer.status_code == 200, answer.text
    return f"Bearer {answer.json()['token']}"


def test_the_version_of_the_server_is_in_the_table(running: tuple[str, WsgiServer]) -> None:
    name, server = running
    check_row(name, server.version())


def test_a_token_is_accepted_by_every_route_until_logout(server: WsgiServer, token: str) -> None:
    """The answers without a body are complete too: the server adds none, and closes no connection."""
    openid = server.send("GET", "/session", token).json()["openid"]
    verified = server.send("GET", "/verify", token)
    assert (verified.status_code, verified.content, verified.headers["X-WX-OpenID"]) == (204, b"", openid)
    head = server.send("HEAD", "/session", token)
    assert (head.status_code, head.content) == (200, b"")
    form = {"token": token.removeprefix("Bearer ")}
    assert server.send("POST", "/introspect", basic(), data=form).json()["sub"] == openid
    ended = server.send("DELETE", "/session", token)
    assert (ended.status_code, ended.content) == (204, b"")
    await_end(f"{server.url}/session", {"Authorization": token})


@pytest.mark.parametrize("path", ["/session", "/verify"])
def test_no_token_returns_401_with_a_challenge(path: str, server: WsgiServer) -> None:
    answer = server.send("GET", path)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="wxauth"'


def test_a_chunked_body_is_read_whole(server: WsgiServer, surroundings: Surroundings) -> None:
    code = surroundings.wechat.fake.wx_login("alice")
    chunks = iter([b'{"code": "', code.encode(), b'"}'])
    answer = server.send("POST", "/login", data=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == server.kind.chunked, answer.text


def test_metrics_of_each_worker_count_the_logins_of_all(server: WsgiServer, token: str) -> None:
    texts = [server.send("GET", "/metrics", basic()).text for _ in range(20)]
    counts = [re.findall(r'^wxauth_logins_total{outcome="ok"} ([0-9.]+)$', text, re.MULTILINE) for text in texts]
    assert counts[0] != []
    assert counts == [counts[0]] * 20


@pytest.mark.parametrize("name", KINDS)
def test_sigterm_ends_the_server_in_time(name: str, surroundings: Surroundings) -> None:
    """uWSGI forks after it has loaded the service. A thread of the service at that moment would make it hang."""
    with WsgiServer(KINDS[name], surroundings.environ) as server:
        assert {server.send("GET", "/session").status_code for _ in range(20)} == {401}
        time.sleep(1)  # uWSGI loses a SIGTERM in its first moments, with any application
        since = time.monotonic()
        found = server.stop(), time.monotonic() - since < SIGTERM_LIMIT
        assert found == (KINDS[name].exit_code, True), server.output()
