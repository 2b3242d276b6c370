"""Run the code blocks of the pages about Flask and testing, and compare what the pages list with the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from tests.support.documents import document
from tests.support.servers import RedisServer, Server, free_port, program
from tests.support.service import BIN, ROOT, Sandbox, environment
from wxauth import login_required, testing
from wxauth.settings import SECRET_NAMES
from wxauth.web.mount import FALLBACK

NAMES_OF_A_SANDBOX = {"app"} | {name for name in vars(testing.Sandbox) if not name.startswith("_")}


def page(name: str) -> str:
    return document(f"docs/{name}").text


def blocks(name: str, language: str) -> list[str]:
    return document(f"docs/{name}").code(language)


# --- The application of flask.md


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that a reader of both pages saves."""
    path = tmp_path_factory.mktemp("shop")
    *application, wsgi = blocks("flask.md", "python")
    (path / "shop.py").write_text("\n\n".join(application))
    (path / "wsgi.py").write_text(wsgi)
    (tests,) = blocks("testing.md", "python")
    (path / "test_shop.py").write_text(tests)
    return path


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`. It finds this package, and no variable of ours but `variables`."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


@pytest.fixture
def sandbox() -> testing.Sandbox:
    """The application in this process, without the block for production."""
    names: dict[str, Any] = {"__name__": "shop"}
    for block in blocks("flask.md", "python")[:-1]:
        exec(compile(block, "flask.md", "exec"), names)  # noqa: S102 - it is our own page
    app = names["app"]
    assert isinstance(app, Flask)
    return testing.Sandbox(app)


def test_flask_page_guards_each_view_but_the_optional_one(sandbox: testing.Sandbox) -> None:
    guarded = ["/orders", "/unread", "/me", "/account/addresses", "/cart"]
    stranger, alice = sandbox.app.test_client(), sandbox.client("alice")
    assert [(stranger.get(path).json or {}).get("code") for path in guarded] == ["token_missing"] * len(guarded)
    assert [alice.get(path).status_code for path in guarded] == [200] * len(guarded)
    assert alice.get("/cart").json == {"openid": alice.openid, "cart": []}
    assert alice.get("/me").json == {"name": f"customer {alice.openid[-4:]}"}
    assert (stranger.get("/news").json, alice.get("/news").json) == ({"openid": None}, {"openid": alice.openid})


def test_flask_page_lists_the_mounted_routes(sandbox: testing.Sandbox) -> None:
    """Each mounted route begins with a path of the table. Those of WXAUTH_SANDBOX=1 are not mounted for tests."""
    rows = re.findall(r"^\| (`/.*?) \|", page("flask.md"), re.MULTILINE)
    listed = {path.rstrip("/…") for row in rows for path in re.findall(r"`([^`]+)`", row)} - {"", "/sandbox"}
    rules = [rule for rule in sandbox.app.url_map.iter_rules() if rule.endpoint.startswith("wxauth.")]
    mounted = {rule.rule.removeprefix("/auth").partition("/<")[0] for rule in rules if rule.endpoint != FALLBACK}
    assert mounted == listed


@pytest.mark.parametrize("name", ["flask.md", "flask.zh-CN.md"])
def test_flask_page_shows_the_warning_about_an_open_route(name: str, sandbox: testing.Sandbox) -> None:
    (shown,) = blocks(name, "text")
    with pytest.warns(UserWarning, match="is open") as caught:
        login_required(sandbox.app.view_functions["orders"])
    assert shown == f"UserWarning: {caught[0].message}\n"


def test_wsgi_file_leaves_no_secret_in_the_environment(folder: Path, redis_server: RedisServer) -> None:
    given = environment(redis_server.url, "https://api.weixin.qq.com")
    done = run(folder, "-c", "import os, wsgi; print(wsgi.app.wsgi_app, *os.environ.values())", **given)
    assert done.stdout.startswith("<werkzeug.middleware.proxy_fix.ProxyFix"), done.stderr
    assert {name for name, text in given.items() if text not in done.stdout} == {*SECRET_NAMES} & {*given}


def test_wsgi_file_does_not_start_without_a_configuration(folder: Path) -> None:
    refused = run(folder, "-c", "import wsgi")
    assert refused.returncode == 1
    assert "  - WECHAT_SECRET: required" in refused.stderr


def test_testing_page_passes_its_own_tests(folder: Path) -> None:
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert re.search(r"^6 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(NAMES_OF_A_SANDBOX))
def test_testing_page_describes_each_name_of_a_sandbox(name: str) -> None:
    assert len(re.findall(rf"^\| `sandbox\.{name}[(`]", page("testing.md"), re.MULTILINE)) == 1


# --- The lines for a shell


class Shop(Server):
    """The application of flask.md, started in `folder` by one of the page's lines, on a free port."""

    def __init__(self, folder: Path, line: str, **variables: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        environ = {"PATH": path, "PYTHONPATH": str(ROOT), **variables}
        super().__init__(["/bin/sh", "-c", f"exec env {line.strip()} --port {port}"], environ=environ, cwd=folder)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/orders", timeout=5).status_code == 401
        except requests.ConnectionError:
            return False


def line_with(command: str) -> str:
    (found,) = (block for block in blocks("flask.md", "sh") if command in block)
    return found


def typed(name: str, server: str, url: str) -> Iterator[dict[str, Any]]:
    """Run the page's lines with curl, and return their JSON. An earlier answer fills THE CODE and THE TOKEN in."""
    seen = {"code": "", "token": ""}
    for line in blocks(name, "sh"):
        if line.startswith("curl "):
            line = line.replace(server, url).replace("THE CODE", seen["code"]).replace("THE TOKEN", seen["token"])
            line = line.replace("curl ", f"{program('curl')} --silent --show-error --fail ", 1)
            answer = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, timeout=30).stdout
            found = json.loads(answer or "{}")
            seen |= found
            yield found


def test_flask_page_logs_in_by_hand(folder: Path) -> None:
    with Shop(folder, line_with("flask --app")) as server:
        login, orders, logout = typed("flask.md", "http://127.0.0.1:5000", server.url)
        headers = {"Authorization": f"Bearer {login['token']}"}
        after = requests.get(f"{server.url}/orders", headers=headers, timeout=5)
    assert orders["openid"].startswith("oSANDBOX")
    assert (logout, after.status_code, after.json()["code"]) == ({}, 401, "token_invalid")


class Nginx(Server):
    """nginx with the locations of flask.md, in front of `application`."""

    def __init__(self, folder: Path, application: str) -> None:
        (locations,) = (textwrap.dedent(block) for block in blocks("flask.md", "nginx"))
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        paths = "".join(f"{it}_temp_path {folder}; " for it in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        server = f"server {{ listen 127.0.0.1:{port};\n{locations} }}".replace("http://127.0.0.1:8000", application)
        (folder / "nginx.conf").write_text(f"events {{}}\nhttp {{ access_log off; {paths}\n{server} }}")
        directives = f"daemon off; pid {folder}/nginx.pid; error_log stderr;"
        super().__init__([program("nginx"), "-c", f"{folder}/nginx.conf", "-g", directives])

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/auth/session", timeout=5).status_code == 401
        except requests.ConnectionError:
            return False


def test_nginx_of_the_flask_page_hides_the_routes_for_backends(
    folder: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    given = environment(redis_server.url, "https://api.weixin.qq.com")
    clients = {"WXAUTH_CLIENTS": "shop:a-long-random-secret"}
    line = line_with("granian").replace("--workers 2", "--workers 1")
    paths = ("introspect", "%69ntrospect", "revoke", "users/wx0123456789abcdef/o/sessions")
    with Shop(folder, line, **{**given, **clients}) as shop, Nginx(tmp_path, shop.url) as nginx:
        direct = [requests.post(f"{shop.url}/auth/{path}", timeout=5).status_code for path in paths]
        hidden = [requests.post(f"{nginx.url}/auth/{path}", timeout=5).status_code for path in paths]
        seen = requests.get(f"{nginx.url}/orders", timeout=5).json()["code"]
    assert 404 not in direct
    assert (hidden, seen) == ([404] * len(paths), "token_missing")


def test_flask_page_starts_the_application_on_granian(folder: Path, redis_server: RedisServer) -> None:
    given = environment(redis_server.url, "https://api.weixin.qq.com")
    # One worker: a second one that is still starting would miss the signal to stop.
    with Shop(folder, line_with("granian").replace("--workers 2", "--workers 1"), **given) as server:
        answer = requests.get(f"{server.url}/auth/session", timeout=5)
    assert answer.json()["code"] == "token_missing"


def test_fake_wechat_answers_a_backend_in_the_printed_form() -> None:
    with Sandbox() as server:
        _, identity = typed("testing.md", "http://127.0.0.1:8000", server.url)
    (shown,) = blocks("testing.md", "json")
    assert identity.keys() == json.loads(shown).keys()
