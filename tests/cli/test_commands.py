"""The commands about one user: they read the environment only, and the running service sees their effect."""

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
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.service import ROOT, Service, WeChatServer, environment
from wxauth import models
from wxauth.cli.commands import main
from wxauth.models import Identity, Secret
from wxauth.settings import Settings
from wxauth.storage.reasons import HINTS
from wxauth.web.services import Services

OTHER_KEY = "ring-key-that-must-stay-secret-02"


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
    """A user of the running service."""

    def __init__(self, name: str, service: Service, wechat: WeChatServer) -> None:
        self._name = name
        self._service = service
        self._wechat = wechat
        self.problem: dict[str, Any] = {}

    def log_in(self, device: str = "phone") -> str:
        """Return the token. If the login fails, return "" and set `problem`."""
        code = self._wechat.fake.wx_login(self._name)
        body = {"code": code, "device": device}
        answer = requests.post(f"{self._service.url}/login", json=body, timeout=5).json()
        if "token" not in answer:
            self.problem = answer
        return str(answer.get("token", ""))

    def session(self, token: str) -> requests.Response:
        return requests.get(f"{self._service.url}/session", headers={"Authorization": token}, timeout=5)


@pytest.fixture
def user(request: pytest.FixtureRequest, service: Service, wechat: WeChatServer) -> User:
    """A new user for each test."""
    return User(request.node.name, service, wechat)


def run(environ: dict[str, str], *words: str) -> Result:
    return CliRunner(env=environ).invoke(main, words, catch_exceptions=False)


def ids(environ: dict[str, str], openid: str) -> list[str]:
    printed = json.loads(run(environ, "sessions", APPID, openid, "--json").stdout)
    return [session["id"] for session in printed["sessions"]]


def test_sessions_prints_id_and_device_oldest_first(user: User, environ: dict[str, str]) -> None:
    tokens = [user.log_in("phone"), user.log_in("desk")]
    known = [user.session(token).json() for token in tokens]
    lines = run(environ, "sessions", APPID, known[0]["openid"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [session["id"] for session in known]
    assert [line.split()[-1] for line in lines] == ["phone", "desk"]
    assert ids(environ, known[0]["openid"]) == [session["id"] for session in known]


def test_revoke_ends_all_sessions_of_the_user(user: User, environ: dict[str, str]) -> None:
    """The running service rejects each of the tokens."""
    tokens = [user.log_in(), user.log_in()]
    openid = user.session(tokens[0]).json()["openid"]
    assert run(environ, "revoke", APPID, openid).exit_code == 0
    wait_until(
        lambda: [user.session(token).status_code for token in tokens] == [401, 401],
        "the revocation",
    )
    assert ids(environ, openid) == []


def test_revoke_with_an_id_ends_one_session(user: User, environ: dict[str, str]) -> None:
    tokens = [user.log_in(), user.log_in()]
    session = user.session(tokens[0]).json()
    assert run(environ, "revoke", APPID, session["openid"], "--id", session["id"]).exit_code == 0
    wait_until(
        lambda: [user.session(token).status_code for token in tokens] == [401, 200],
        "the revocation",
    )


def test_revoke_of_an_unknown_id_exits_with_1(user: User, environ: dict[str, str]) -> None:
    """No session ends. An id may start with a dash."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    assert run(environ, "revoke", APPID, openid, "--id", "-unknown-session").exit_code == 1
    assert user.session(token).status_code == 200


def test_ban_ends_the_sessions_and_rejects_logins_until_unban(user: User, environ: dict[str, str]) -> None:
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    assert run(environ, "ban", APPID, openid).exit_code == 0
    wait_until(lambda: user.session(token).status_code == 403, "the revocation")
    assert (user.log_in(), user.problem["code"]) == ("", "user_banned")
    assert run(environ, "unban", APPID, openid).exit_code == 0
    assert user.session(user.log_in()).status_code == 200


def test_revoke_works_as_a_process_with_a_bare_environment(user: User, environ: dict[str, str]) -> None:
    """A hosting platform runs it so: `heroku run python -m wxauth revoke …`."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    command = [sys.executable, "-m", "wxauth", "revoke", APPID, openid]
    done = subprocess.run(command, env=environ | {"PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"All ended.\n", b"")
    wait_until(lambda: user.session(token).status_code == 401, "the revocation")


def test_revoke_ends_a_session_of_an_older_key(user: User, environ: dict[str, str]) -> None:
    """During a key rotation."""
    token = user.log_in()
    openid = user.session(token).json()["openid"]
    rotated = environ | {"WXAUTH_SECRET_KEYS": f"{OTHER_KEY},{RING_KEY}"}
    assert len(ids(rotated, openid)) == 1
    assert run(rotated, "revoke", APPID, openid).exit_code == 0
    wait_until(lambda: user.session(token).status_code == 401, "the revocation")


def test_prune_deletes_what_no_key_opens(environ: dict[str, str]) -> None:
    """Without --delete it only counts. The hashes of each key in the ring stay."""
    with RedisServer() as server, server.client() as client:
        old = environ | {"REDIS_URL": server.url}
        new = old | {"WXAUTH_SECRET_KEYS": OTHER_KEY}
        both = old | {"WXAUTH_SECRET_KEYS": f"{OTHER_KEY},{RING_KEY}"}
        for number, it in enumerate((old, old, new)):
            store = Services(Settings.from_env(it)).store
            store.create(Identity(models.User(APPID, f"o{number}"), Secret("key")))
        assert run(both, "prune", "--delete").stdout == "0 deleted.\n"
        assert (run(new, "prune").stdout, client.dbsize()) == ("2 found. Delete them with --delete.\n", 3)
        assert (run(new, "prune", "--delete").stdout, client.dbsize()) == ("2 deleted.\n", 1)
        assert run(new, "prune").stdout.startswith("0 found")
        assert len(ids(new, "o2")) == 1


def test_check_session_exits_with_1_once_the_key_is_outdated_or_absent(
    user: User, environ: dict[str, str], wechat: WeChatServer
) -> None:
    openid = user.session(user.log_in()).json()["openid"]
    assert run(environ, "check-session", APPID, openid).exit_code == 0
    wechat.fake.replace_session_key(APPID, openid)
    assert run(environ, "check-session", APPID, openid).exit_code == 1
    assert run(environ, "check-session", APPID, "oUNKNOWN").exit_code == 1


def test_reset_session_key_stores_the_new_key_and_prints_none(
    user: User, environ: dict[str, str], wechat: WeChatServer
) -> None:
    """An outdated key is not replaced."""
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
        pytest.param({"WECHAT_SECRET": "a-wrong-secret"}, ["40125", "AppSecret", "重新复制"], id="rejected"),
        pytest.param(
            {"WXAUTH_WECHAT_URL": "http://127.0.0.1:{port}"}, ["no valid answer", "(connection)"], id="unreachable"
        ),
    ],
)
def test_an_error_of_wechat_exits_with_2(
    command: str,
    changes: dict[str, str],
    words: list[str],
    user: User,
    environ: dict[str, str],
    redis_server: RedisServer,
) -> None:
    """The hint is printed in both languages if WeChat rejects the request."""
    openid = user.session(user.log_in()).json()["openid"]
    with redis_server.client() as client:
        client.delete(*client.keys("wxa:{*}:t:*") or ["none"])
    changed = {name: text.replace("{port}", str(free_port())) for name, text in changes.items()}
    result = run(environ | changed, command, APPID, openid)
    assert (result.exit_code, result.stdout) == (2, "")
    assert [word for word in words if word not in result.stderr] == []
    assert "a-wrong-secret" not in result.stderr


PRODUCTION = ("WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "REDIS_URL")
COMMANDS = ["sessions", "revoke", "ban", "unban", "check-session", "reset-session-key"]
ERRORS = {
    "redis-down": ({"REDIS_URL": "redis://127.0.0.1:{port}/0"}, HINTS["unreachable"]),
    "configuration-errors": ({"WXAUTH_SECRET_KEYS": "", "WXAUTH_IDLE_TTL": "x"}, "WXAUTH_IDLE_TTL"),
    "sandbox": ({"WXAUTH_SANDBOX": "1", **dict.fromkeys(PRODUCTION, "")}, "memory"),
}


@pytest.mark.parametrize("command", [*((name, APPID, "oUNKNOWN") for name in COMMANDS), ("prune",)], ids=" ".join)
@pytest.mark.parametrize(("changes", "words"), ERRORS.values(), ids=ERRORS)
def test_a_command_that_fails_exits_with_2_and_one_message(
    command: tuple[str, ...], changes: dict[str, str], words: str, environ: dict[str, str]
) -> None:
    """No traceback and no secret."""
    changed = {name: text.replace("{port}", str(free_port())) for name, text in changes.items()}
    result = run(environ | changed, *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert [secret for secret in (APP_SECRET, RING_KEY) if secret in result.stderr] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_another_app_exits_with_2(command: str, environ: dict[str, str]) -> None:
    result = run(environ | {"WECHAT_APPID": "wxffffffffffffffff"}, command, APPID, "oUNKNOWN")
    assert (result.exit_code, result.stdout, "not configured" in result.stderr) == (2, "", True)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("openid", ["", "o b", "o\n", "o" * 129])
def test_an_invalid_openid_exits_with_2(command: str, openid: str, environ: dict[str, str]) -> None:
    assert run(environ, command, APPID, openid).exit_code == 2


def test_every_command_has_help() -> None:
    """Help works without a valid configuration."""
    helps = [CliRunner().invoke(main, [name, "--help"]).output for name in main.commands]
    assert {"doctor", "keygen", "prune", "serve", *COMMANDS} == set(main.commands)
    assert all(len(text.splitlines()) > 4 for text in helps)


def as_process(environ: dict[str, str], encoding: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with a console of this encoding."""
    more = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "wxauth", *words]
    return subprocess.run(command, env=environ | more, cwd=ROOT, capture_output=True, timeout=60)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_console_without_chinese_letters_changes_no_exit_code(
    user: User, environ: dict[str, str], encoding: str
) -> None:
    """Of no command: the device is named by the user, and the explanation of an errcode has a Chinese text."""
    openid = user.session(user.log_in("小明的手机")).json()["openid"]
    listed = as_process(environ, encoding, "sessions", APPID, openid)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert listed.stdout.decode(encoding).split()[-1] == ("小明的手机" if encoding == "utf-8" else "?????")
    printed = as_process(environ, encoding, "sessions", APPID, openid, "--json")
    assert json.loads(printed.stdout)["sessions"][0]["device"] == "小明的手机"
    checked = as_process(environ | {"WECHAT_SECRET": "0" * 32}, encoding, "doctor")
    assert (checked.returncode, checked.stderr) == (2, b"")
    assert b"40125" in checked.stdout
    failed = as_process(environ | {"WECHAT_SECRET": "0" * 32}, encoding, "check-session", APPID, openid)
    assert failed.returncode == 2
    assert b"40125" in failed.stderr


def test_serve_without_the_server_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth.cli.commands.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["serve"])
    assert (result.exit_code, "pip install 'wxauth[service]'" in result.stderr) == (2, True)
