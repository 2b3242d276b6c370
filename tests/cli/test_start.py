"""The command line, and the entry as a newcomer and as a host start it: real processes, on ports of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from tests.servers import Server, free_port, wait_until
from wxauth.cli.commands import main
from wxauth.settings import Settings

ROOT = Path(__file__).parents[2]
GRANIAN = Path(sys.executable).with_name("granian")
BARE = {"PATH": "/usr/bin:/bin"}
CONFIGURED = {"WECHAT_APPID": "wx0123456789abcdef", "WECHAT_SECRET": "a-secret", "REDIS_URL": "redis://127.0.0.1:1/0"}


def keygen() -> str:
    return CliRunner().invoke(main, ["keygen"], catch_exceptions=False).output.strip()


def test_keygen_makes_a_key_that_is_accepted() -> None:
    """What keygen prints, and nothing else, is a key that the service starts with."""
    key = keygen()
    settings = Settings.from_env(CONFIGURED | {"WXAUTH_SECRET_KEYS": key})
    assert [secret.reveal() for secret in settings.secret_keys] == [key]


def test_keygen_makes_another_key_each_time() -> None:
    """No two keys are the same."""
    assert keygen() != keygen()


def test_keygen_needs_no_configuration() -> None:
    """`python -m wxauth keygen` works where nothing is configured yet."""
    with Server([sys.executable, "-m", "wxauth", "keygen"], environ=BARE, cwd=ROOT) as process:
        assert (process.process.wait(10), len(process.output().strip())) == (0, 43)


@pytest.fixture(scope="module")
def sandbox_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def sandbox(sandbox_port: int) -> Iterator[Server]:
    environ = BARE | {"PORT": str(sandbox_port)}
    with Server([sys.executable, "app.py"], environ=environ, cwd=ROOT) as server:
        wait_until(lambda: answers(sandbox_port), "the sandbox")
        yield server


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=1).ok
    except requests.RequestException:
        return False


@pytest.mark.usefixtures("sandbox")
def test_bare_app_is_the_sandbox(sandbox_port: int) -> None:
    """`python app.py` where nothing is configured lets a newcomer log in, on $PORT."""
    root = f"http://127.0.0.1:{sandbox_port}"
    code = requests.post(f"{root}/sandbox/wx.login", json={"user": "alice"}, timeout=5).json()["code"]
    token = requests.post(f"{root}/login", json={"code": code}, timeout=5).json()["token"]
    session = requests.get(f"{root}/session", headers={"Authorization": token}, timeout=5).json()
    assert session["openid"].startswith("oSANDBOX")


@pytest.mark.usefixtures("sandbox")
def test_sandbox_listens_on_loopback_alone(sandbox_port: int) -> None:
    """The sandbox is not to be reached from another machine."""
    port = f":{sandbox_port:04X}"
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()
    ]
    listening = [fields[1] for fields in lines if fields[1].endswith(port) and fields[3] == "0A"]
    assert listening == [f"0100007F{port}"]


def test_sandbox_says_where_it_is(sandbox: Server, sandbox_port: int) -> None:
    """The newcomer is told what was started, and the address to open."""
    assert f"http://127.0.0.1:{sandbox_port}/" in sandbox.output()


def test_sandbox_begins_with_where_it_is(sandbox: Server, sandbox_port: int) -> None:
    """The address stands in the first lines, and nothing that a newcomer would have to wonder about before it."""
    beginning = sandbox.output().splitlines()[:2]
    assert f"http://127.0.0.1:{sandbox_port}/" in beginning[1]
    assert '"level": "warning"' not in sandbox.output()


def test_sandbox_ends_cleanly() -> None:
    """SIGTERM ends it with exit code 0."""
    port = free_port()
    with Server([sys.executable, "app.py"], environ=BARE | {"PORT": str(port)}, cwd=ROOT) as server:
        wait_until(lambda: answers(port), "the sandbox")
        assert server.stop() == 0


def test_app_starts_from_any_folder() -> None:
    """`python /elsewhere/app.py` serves too."""
    port = free_port()
    with Server([sys.executable, str(ROOT / "app.py")], environ=BARE | {"PORT": str(port)}) as server:
        wait_until(lambda: answers(port), "the sandbox")
        assert "sandbox" in server.output()


FAULTY = {
    "app-with-appid-alone": (
        [sys.executable, "app.py"],
        {"WECHAT_APPID": "wx0123456789abcdef"},
        ["WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "REDIS_URL"],
    ),
    "app-with-secret-alone": (
        [sys.executable, "app.py"],
        {"WECHAT_SECRET": "secret-that-nobody-may-see"},
        ["WECHAT_APPID", "WXAUTH_SECRET_KEYS", "REDIS_URL"],
    ),
    "server-with-nothing": (
        [str(GRANIAN), "--interface", "wsgi", "--port", "{port}", "app:app"],
        {},
        ["WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "REDIS_URL"],
    ),
    "server-with-typos": (
        [str(GRANIAN), "--interface", "wsgi", "--port", "{port}", "app:app"],
        CONFIGURED | {"WXAUTH_SECRET_KEY": "short", "WXAUTH_IDLE_TTL": "never"},
        ["WXAUTH_SECRET_KEY: no such setting; WXAUTH_SECRET_KEYS is meant?", "WXAUTH_SECRET_KEYS", "WXAUTH_IDLE_TTL"],
    ),
}


@pytest.mark.parametrize(("command", "environ", "faults"), FAULTY.values(), ids=FAULTY)
def test_faults_are_listed_and_nothing_is_served(
    command: list[str], environ: dict[str, str], faults: list[str]
) -> None:
    """A broken configuration starts no server: it ends by itself, not with 0, and names every fault."""
    port = str(free_port())
    command = [part.replace("{port}", port) for part in command]
    with Server(command, environ=BARE | {"PORT": port} | environ, cwd=ROOT) as process:
        assert process.process.wait(20) != 0
        listed = [line.removeprefix("  - ") for line in process.output().splitlines() if line.startswith("  - ")]
    assert [fault for fault in faults if not any(line.startswith(fault) for line in listed)] == []


def test_faults_tell_no_secret() -> None:
    """What was found in a variable is never repeated."""
    environ = BARE | {"PORT": str(free_port()), "WECHAT_SECRET": "secret-that-nobody-may-see"}
    with Server([sys.executable, "app.py"], environ=environ, cwd=ROOT) as process:
        process.process.wait(20)
        assert "secret-that-nobody-may-see" not in process.output()


def test_service_serves_as_the_procfile_says() -> None:
    """`python app.py` where a mini program is configured is the service, up without its Redis, and no sandbox."""
    port = free_port()
    environ = BARE | CONFIGURED | {"PORT": str(port), "WXAUTH_SECRET_KEYS": keygen(), "WEB_CONCURRENCY": "1"}
    with Server([sys.executable, "app.py"], environ=environ, cwd=ROOT):
        wait_until(lambda: answers(port), "the service")
        assert requests.get(f"http://127.0.0.1:{port}/sandbox/wx.login", timeout=5).status_code == 404
