"""`python -m wxauth sessions | revoke | ban | unban`: from the environment alone, and the running service sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.servers import RedisServer, free_port
from tests.service import ROOT, Service, WeChatServer, environment
from wxauth.cli.commands import main

OTHER_KEY = "ring-key-that-nobody-may-see-0002"


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def environ(redis_server: RedisServer, wechat: WeChatServer) -> dict[str, str]:
    return environment(redis_server.url, wechat.url)


@pytest.fixture(scope="module")
def service(environ: dict[str, str]) -> Iterator[Service]:
    with Service(environ | {"WEB_CONCURRENCY": "1"}) as running:
        yield running


class User:
    """Somebody with a phone of each name, at the running service."""

    def __init__(self, name: str, service: Service, wechat: WeChatServer) -> None:
        self._name = name
        self._service = service
        self._wechat = wechat
        self.refusal: dict[str, Any] = {}

    def log_in(self, device: str = "phone") -> str:
        """The token, or nothing and a `refusal`."""
        code = self._wechat.fake.wx_login(self._name)
        body = {"code": code, "device": device}
        answer = requests.post(f"{self._service.url}/login", json=body, timeout=5).json()
        if "token" not in answer:
            self.refusal = answer
        return str(answer.get("token", ""))

    def session(self, token: str) -> requests.Response:
        return requests.get(f"{self._service.url}/session", headers={"Authorization": token}, timeout=5)


@pytest.fixture
def user(request: pytest.FixtureRequest, service: Service, wechat: WeChatServer) -> User:
    """Somebody new for each test."""
    return User(request.node.name, service, wechat)


def run(environ: dict[str, str], *words: str) -> Result:
    return CliRunner(env=environ).invoke(main, words, catch_exceptions=False)


def ids(environ: dict[str, str], openid: str) -> list[str]:
    told = json.loads(run(environ, "sessions", APPID, openid, "--json").stdout)
    return [session["id"] for session in told["sessions"]]


def test_sessions_are_listed(user: User, environ: dict[str, str]) -> None:
    """Oldest first, each with its id, its device and its time, as the service tells them."""
    tokens = [user.log_in("phone"), user.log_in("desk")]
    known = [user.session(token).json() for token in tokens]
    told = run(environ, "sessions", APPID, known[0]["openid"]).stdout.splitlines()
    assert [line.split()[0] for line in told] == [session["id"] for session in known]
    assert [line.split()[-1] for line in told] == ["phone", "desk"]
    assert ids(environ, known[0]["openid"]) == [session["id"] for session in known]


def test_revoke_ends_all(user: User, environ: dict[str, str]) -> None:
    """The running service refuses every token of the user from then on."""
    tokens = [user.log_in(), user.log_in()]
    openid = user.session(tokens[0]).json()["openid"]
    assert run(environ, "revoke", APPID, openid).exit_code == 0
    assert [user.session(token).status_code for token in tokens] == [401, 401]
    assert ids(environ, openid) == []


def test_revoke_ends_one(user: User, environ: dict[str, str]) -> None:
    """With --id the user's other sessions live on."""
    tokens = [user.log_in(), user.log_in()]
    session = user.session(tokens[0]).json()
    assert run(environ, "revoke", APPID, session["openid"], "--id", session["id"]).exit_code == 0
    assert [user.session(token).status_code for token in tokens] == [401, 200]


def test_revoke_of_an_unknown_id(user: User, environ: dict[str, str]) -> None:
    """Exit code 1, and nothing is ended; an id may begin with a dash."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    assert run(environ, "revoke", APPID, openid, "--id", "-nobodys-session").exit_code == 1
    assert user.session(token).status_code == 200


def test_ban_and_unban(user: User, environ: dict[str, str]) -> None:
    """A ban ends the user's sessions and refuses the next login; once it is lifted the user logs in again."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    assert run(environ, "ban", APPID, openid).exit_code == 0
    assert (user.session(token).status_code, user.log_in(), user.refusal["code"]) == (401, "", "user_banned")
    assert run(environ, "unban", APPID, openid).exit_code == 0
    assert user.session(user.log_in()).status_code == 200


def test_as_a_host_runs_it(user: User, environ: dict[str, str]) -> None:
    """`heroku run python -m wxauth revoke …` is a process with the environment and nothing else."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    command = [sys.executable, "-m", "wxauth", "revoke", APPID, openid]
    done = subprocess.run(command, env=environ | {"PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"All ended.\n", b"")
    assert user.session(token).status_code == 401


def test_rotated_keys_are_looked_under_too(user: User, environ: dict[str, str]) -> None:
    """While keys are rotated, a session under the older one is found and ended."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    rotated = environ | {"WXAUTH_SECRET_KEYS": f"{OTHER_KEY},{RING_KEY}"}
    assert len(ids(rotated, openid)) == 1
    assert run(rotated, "revoke", APPID, openid).exit_code == 0
    assert user.session(token).status_code == 401


def test_check_session(user: User, environ: dict[str, str], wechat: WeChatServer) -> None:
    """0 while the session_key is WeChat's, 1 once it is not, and 1 where there is none."""
    openid = user.session(user.log_in()).json()["openid"]
    assert run(environ, "check-session", APPID, openid).exit_code == 0
    wechat.fake.replace_session_key(APPID, openid)
    assert run(environ, "check-session", APPID, openid).exit_code == 1
    assert run(environ, "check-session", APPID, "oNOBODY").exit_code == 1


def test_reset_session_key(user: User, environ: dict[str, str], wechat: WeChatServer) -> None:
    """The key that is kept is WeChat's new one, and none is printed; a stale one is not replaced."""
    openid = user.session(user.log_in()).json()["openid"]
    before = wechat.fake.session_key_of(APPID, openid)
    result = run(environ, "reset-session-key", APPID, openid)
    assert (result.exit_code, result.stdout) == (0, "Replaced.\n")
    assert wechat.fake.session_key_of(APPID, openid) != before
    assert run(environ, "check-session", APPID, openid).exit_code == 0
    wechat.fake.replace_session_key(APPID, openid)
    assert run(environ, "reset-session-key", APPID, openid).exit_code == 1


@pytest.mark.parametrize("command", ["check-session", "reset-session-key"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"WECHAT_SECRET": "a-wrong-secret"}, ["40125", "AppSecret", "重新复制"], id="refused"),
        pytest.param({"WXAUTH_WECHAT_URL": "http://127.0.0.1:{port}"}, ["no answer (connection)"], id="unreachable"),
    ],
)
def test_what_wechat_does_not_do(
    command: str,
    changes: dict[str, str],
    words: list[str],
    user: User,
    environ: dict[str, str],
    redis_server: RedisServer,
) -> None:
    """Exit code 2, with the hint in both languages where WeChat has refused."""
    openid = user.session(user.log_in()).json()["openid"]
    with redis_server.client() as client:
        client.delete(*client.keys("wxa:{*}:t:*") or ["none"])
    changed = {name: text.replace("{port}", str(free_port())) for name, text in changes.items()}
    result = run(environ | changed, command, APPID, openid)
    assert (result.exit_code, result.stdout) == (2, "")
    assert [word for word in words if word not in result.stderr] == []
    assert "a-wrong-secret" not in result.stderr


COMMANDS = ["sessions", "revoke", "ban", "unban", "check-session", "reset-session-key"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"REDIS_URL": "redis://127.0.0.1:{port}/0"}, "nobody listens at REDIS_URL", id="redis-down"),
        pytest.param({"WXAUTH_SECRET_KEYS": "", "WXAUTH_IDLE_TTL": "x"}, "WXAUTH_IDLE_TTL", id="faults"),
        pytest.param({"WECHAT_APPID": "wxffffffffffffffff"}, "not configured here", id="another-app"),
        pytest.param({"WXAUTH_SANDBOX": "1", "WECHAT_SECRET": ""}, "sandbox", id="sandbox"),
    ],
)
def test_what_can_not_be_done(command: str, changes: dict[str, str], words: str, environ: dict[str, str]) -> None:
    """Exit code 2 and one message that says why, without a traceback and without a secret."""
    changed = {name: text.replace("{port}", str(free_port())) for name, text in changes.items()}
    result = run(environ | changed, command, APPID, "oNOBODY")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert [secret for secret in (APP_SECRET, RING_KEY) if secret in result.stderr] == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("openid", ["", "o b", "o\n", "o" * 129])
def test_what_is_no_openid(command: str, openid: str, environ: dict[str, str]) -> None:
    """Exit code 2: nothing is looked up for a slip of the pen."""
    assert run(environ, command, APPID, openid).exit_code == 2


def test_every_command_has_help() -> None:
    """Each says what it does, where the configuration is broken too."""
    helps = [CliRunner().invoke(main, [name, "--help"]).output for name in main.commands]
    assert {"doctor", "keygen", *COMMANDS} == set(main.commands)
    assert all(len(text.splitlines()) > 4 for text in helps)
