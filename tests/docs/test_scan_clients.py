"""Test the programs in `examples/scan_login` with their libraries, at the real service: a phone scans and answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import requests

from tests.support.compatibility import check_row
from tests.support.servers import RedisServer, free_port, program
from tests.support.service import ROOT, Service, WeChatServer, environment
from tests.support.website import Login

EXAMPLES = ROOT / "examples" / "scan_login"
NODE_MODULES = ROOT / "tests" / "miniprogram" / "node_modules"
CLIENT_ID, SECRET = "console", "client-secret-that-nobody-may-see"
SCAN_URL, CODE, SUCCESS, FAILURE = "扫码登录：", "登录码：", "登录成功：", "登录失败："


@pytest.fixture(scope="module")
def login() -> Iterator[Login]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    client = {"WXAUTH_CLIENTS": f"{CLIENT_ID}!scan:{SECRET}", "WXAUTH_PUBLIC_URL": url}
    with ExitStack() as stack:
        redis, wechat = stack.enter_context(RedisServer()), stack.enter_context(WeChatServer())
        stack.enter_context(Service(environment(redis.url, wechat.url, **client), port))
        yield Login(url, wechat, redis)


class Program:
    """A running example. It has shown its code."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.qr_code, self.user_code = (process.stdout.readline().strip() for _ in range(2))
        self.qr_code = self.qr_code.removeprefix(SCAN_URL)
        self.user_code = self.user_code.removeprefix(CODE)

    def end(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and what was printed after the code."""
        output, errors = self._process.communicate(timeout=60)
        return self._process.returncode, output + errors


def authlib() -> list[str]:
    check_row("Authlib", version("authlib"))
    return [sys.executable, "scan_login.py"]


def openid_client() -> list[str]:
    program("tsc", NODE_MODULES / ".bin")  # installed with openid-client by `make check`
    package = json.loads((NODE_MODULES / "openid-client" / "package.json").read_text())
    check_row("openid-client", package["version"])
    return [program("node"), "scan_login.mjs"]


Start = Callable[[], list[str]]
each_library = pytest.mark.parametrize("library", [authlib, openid_client])


@contextmanager
def started(command: list[str], url: str, folder: Path, secret: str = SECRET) -> Iterator[Program]:
    """Run an example in a folder of its own with the packages of npm, because ES modules ignore NODE_PATH."""
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    environ = {"PATH": os.environ["PATH"], "WXAUTH_URL": url, "WXAUTH_CLIENT": f"{CLIENT_ID}:{secret}"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


@each_library
def test_approved_program_learns_who_the_user_is(library: Start, login: Login, tmp_path: Path) -> None:
    phone = login.phone()
    with started(library(), login.url, tmp_path) as example:
        asking = phone.get(f"/device/{example.user_code}")
        assert phone.answer(example.user_code, approve=True) == 204
        ended = example.end()
    assert (asking["client_id"], asking["client_name"]) == (CLIENT_ID, CLIENT_ID)
    assert ended == (0, f"{SUCCESS}{phone.get('/session')['openid']}\n")


@each_library
def test_session_of_a_program_is_in_the_list_of_the_user_and_ends_from_the_phone(
    library: Start, login: Login, tmp_path: Path
) -> None:
    """Its label is the id of the client."""
    phone = login.phone(f"bob of {library.__name__}")
    with started(library(), login.url, tmp_path) as example:
        phone.answer(example.user_code, approve=True)
        example.end()
    (session,) = (it for it in phone.get("/sessions")["sessions"] if not it["current"])
    assert session["device"] == CLIENT_ID
    url = f"{login.url}/sessions/{session['id']}"
    assert requests.delete(url, headers=phone.headers, timeout=5).status_code == 204
    assert [it["current"] for it in phone.get("/sessions")["sessions"]] == [True]


@each_library
def test_denied_program_says_so_and_has_no_session(library: Start, login: Login, tmp_path: Path) -> None:
    phone = login.phone(f"carol of {library.__name__}")
    with started(library(), login.url, tmp_path) as example:
        assert phone.answer(example.user_code, approve=False) == 204
        assert example.end() == (1, f"{FAILURE}access_denied\n")
    assert len(phone.get("/sessions")["sessions"]) == 1


@each_library
def test_program_with_an_expired_code_says_so(library: Start, login: Login, tmp_path: Path) -> None:
    """A key that is gone stands for the five minutes of a code."""
    with started(library(), login.url, tmp_path) as example:
        login.redis.client().flushdb()
        assert example.end() == (1, f"{FAILURE}expired_token\n")


@each_library
def test_program_with_a_wrong_secret_ends_and_does_not_show_it(library: Start, login: Login, tmp_path: Path) -> None:
    with started(library(), login.url, tmp_path, secret="a-wrong-secret-of-a-client") as example:
        status, output = example.end()
    assert (status, example.user_code) == (1, "")
    assert "401" in output
    assert "a-wrong-secret" not in output


def test_examples_are_short() -> None:
    sizes = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.iterdir() if path.is_file()}
    assert sizes.keys() == {"scan_login.py", "scan_login.mjs"}
    assert max(sizes.values()) <= 70
