"""`keygen`, `serve`, and `python app.py` as developers and hosting platforms start them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from tests.support.servers import Server, free_port, wait_until
from tests.support.service import ROOT, is_healthy
from wxauth.cli import server
from wxauth.cli.commands import HEAPS, main
from wxauth.settings import Settings

GRANIAN = Path(sys.executable).with_name("granian")
BARE = {"PATH": "/usr/bin:/bin"}
METRICS = "wxauth-metrics-*"
#: What Python lacks on Windows is removed, as far as this package could use it.
ON_WINDOWS = """
import os, sys
sys.modules |= dict.fromkeys(("fcntl", "resource"))
del os.fork, os.register_at_fork, os.getuid, os.O_NOFOLLOW
from click.testing import CliRunner
from flask import Flask
from wxauth import WxAuth
from wxauth.cli.commands import main
from wxauth.testing import Sandbox
WxAuth(app := Flask("shop"), url_prefix="/auth")
print(Sandbox(app).client().get("/auth/session").status)
for command in ("keygen", "serve"):
    result = CliRunner().invoke(main, [command])
    print(result.exit_code, result.output)
"""
CONFIGURED = {"WECHAT_APPID": "wx0123456789abcdef", "WECHAT_SECRET": "a-secret", "REDIS_URL": "redis://127.0.0.1:1/0"}


def keygen() -> str:
    return CliRunner().invoke(main, ["keygen"], catch_exceptions=False).output.strip()


def test_keygen_prints_a_valid_key_and_nothing_else() -> None:
    key = keygen()
    settings = Settings.from_env(CONFIGURED | {"WXAUTH_SECRET_KEYS": key})
    assert [secret.reveal() for secret in settings.secret_keys] == [key]


def test_keygen_prints_another_key_each_time() -> None:
    assert keygen() != keygen()


def test_keygen_needs_no_configuration() -> None:
    with Server([sys.executable, "-m", "wxauth", "keygen"], environ=BARE, cwd=ROOT) as process:
        assert (process.process.wait(10), len(process.output().strip())) == (0, 43)


def test_on_windows_everything_but_serve_works() -> None:
    with Server([sys.executable, "-c", ON_WINDOWS], environ=BARE, cwd=ROOT) as process:
        process.process.wait(30)
        session, keygen, _, serve, *_ = process.output().splitlines()
    assert (session, keygen[:2]) == ("200 OK", "0 ")
    assert serve == "2 Error: The server runs on Linux and macOS; on Windows use WSL."


@pytest.fixture(scope="module")
def sandbox_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def sandbox(sandbox_port: int) -> Iterator[Server]:
    environ = BARE | {"PORT": str(sandbox_port)}
    with Server([sys.executable, "app.py"], environ=environ, cwd=ROOT) as server:
        wait_until(lambda: is_healthy(f"http://127.0.0.1:{sandbox_port}"), "the sandbox")
        yield server


@pytest.mark.usefixtures("sandbox")
def test_app_without_configuration_starts_the_sandbox(sandbox_port: int) -> None:
    """A login works, on $PORT."""
    root = f"http://127.0.0.1:{sandbox_port}"
    code = requests.post(f"{root}/sandbox/wx.login", json={"user": "alice"}, timeout=5).json()["code"]
    token = requests.post(f"{root}/login", json={"code": code}, timeout=5).json()["token"]
    session = requests.get(f"{root}/session", headers={"Authorization": token}, timeout=5).json()
    assert session["openid"].startswith("oSANDBOX")


def listening(port: int) -> list[str]:
    """Return the addresses of this port that a server listens on, as the kernel writes them."""
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()
    ]
    return [fields[1] for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"]


@pytest.mark.usefixtures("sandbox")
def test_the_sandbox_listens_on_loopback_only(sandbox_port: int) -> None:
    assert listening(sandbox_port) == [f"0100007F:{sandbox_port:04X}"]


def test_the_sandbox_prints_its_address(sandbox: Server, sandbox_port: int) -> None:
    assert f"http://127.0.0.1:{sandbox_port}/" in sandbox.output()


def test_the_address_is_in_the_second_line(sandbox: Server, sandbox_port: int) -> None:
    """No warning is in the output."""
    beginning = sandbox.output().splitlines()[:2]
    assert f"http://127.0.0.1:{sandbox_port}/" in beginning[1]
    assert '"level": "warning"' not in sandbox.output()


def test_sigterm_ends_the_sandbox_with_exit_code_0() -> None:
    port = free_port()
    with Server([sys.executable, "app.py"], environ=BARE | {"PORT": str(port)}, cwd=ROOT) as server:
        wait_until(lambda: is_healthy(f"http://127.0.0.1:{port}"), "the sandbox")
        assert server.stop() == 0


def test_app_starts_from_any_directory() -> None:
    """`python /other/directory/app.py`."""
    port = free_port()
    with Server([sys.executable, str(ROOT / "app.py")], environ=BARE | {"PORT": str(port)}) as server:
        wait_until(lambda: is_healthy(f"http://127.0.0.1:{port}"), "the sandbox")
        assert "sandbox" in server.output()


SERVE = [sys.executable, "-m", "wxauth", "serve"]
BROKEN = {
    "app-with-redis-and-key": (
        [sys.executable, "app.py"],
        {"REDIS_URL": "redis://127.0.0.1:1/0", "WXAUTH_SECRET_KEYS": "k" * 32},
        ["WECHAT_APPID", "WECHAT_SECRET"],
    ),
    "app-with-misspelt-names": (
        [sys.executable, "app.py"],
        {"wechat_app_id": "wx0123456789abcdef", "WeChat_AppSecret": "a-secret"},
        ["WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "REDIS_URL"],
    ),
    "app-with-sandbox-and-redis": (
        [sys.executable, "app.py"],
        {"WXAUTH_SANDBOX": "1", "REDIS_TLS_URL": "rediss://127.0.0.1:1/0"},
        ["WXAUTH_SANDBOX: remove this, or REDIS_TLS_URL."],
    ),
    "serve-with-sandbox-and-redis": (
        SERVE,
        {"WXAUTH_SANDBOX": "1", "REDIS_URL": "redis://127.0.0.1:1/0"},
        ["WXAUTH_SANDBOX: remove this, or REDIS_URL."],
    ),
    "serve-with-nothing": (SERVE, {}, ["WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "REDIS_URL"]),
    "app-with-appid-alone": (
        [sys.executable, "app.py"],
        {"WECHAT_APPID": "wx0123456789abcdef"},
        ["WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "REDIS_URL"],
    ),
    "app-with-secret-alone": (
        [sys.executable, "app.py"],
        {"WECHAT_SECRET": "app-secret-that-must-stay-secret"},
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
        [
            "WXAUTH_SECRET_KEY: unknown variable; did you mean WXAUTH_SECRET_KEYS?",
            "WXAUTH_SECRET_KEYS",
            "WXAUTH_IDLE_TTL",
        ],
    ),
}


@pytest.mark.parametrize(("command", "environ", "errors"), BROKEN.values(), ids=BROKEN)
def test_a_start_with_configuration_errors_lists_them_and_fails(
    command: list[str], environ: dict[str, str], errors: list[str]
) -> None:
    """Each once. The process exits by itself with a code that is not 0."""
    port = str(free_port())
    command = [part.replace("{port}", port) for part in command]
    with Server(command, environ=BARE | {"PORT": port} | environ, cwd=ROOT) as process:
        assert process.process.wait(20) != 0
        listed = [line.removeprefix("  - ") for line in process.output().splitlines() if line.startswith("  - ")]
    assert [error for error in errors if not any(line.startswith(error) for line in listed)] == []
    assert len(listed) == len(set(listed))


def test_configuration_errors_contain_no_value() -> None:
    environ = BARE | {"PORT": str(free_port()), "WECHAT_SECRET": "app-secret-that-must-stay-secret"}
    with Server([sys.executable, "app.py"], environ=environ, cwd=ROOT) as process:
        process.process.wait(20)
        assert "app-secret-that-must-stay-secret" not in process.output()


def test_app_with_configuration_starts_the_service() -> None:
    """It starts without Redis, and it is not the sandbox."""
    port = free_port()
    environ = BARE | CONFIGURED | {"PORT": str(port), "WXAUTH_SECRET_KEYS": keygen(), "WEB_CONCURRENCY": "1"}
    with Server([sys.executable, "app.py"], environ=environ, cwd=ROOT):
        wait_until(lambda: is_healthy(f"http://127.0.0.1:{port}"), "the service")
        assert requests.get(f"http://127.0.0.1:{port}/sandbox/wx.login", timeout=5).status_code == 404


@pytest.mark.parametrize("command", [SERVE, [sys.executable, "app.py"]], ids=["serve", "app"])
def test_a_taken_port_is_one_sentence(command: list[str]) -> None:
    """Also a port that is taken by another server with SO_REUSEPORT, as Granian sets it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with Server(command, environ=BARE | {"PORT": port, "WXAUTH_SANDBOX": "1"}, cwd=ROOT) as process:
            assert process.process.wait(10) == 2
            sentence = f"Error: Cannot listen on port {port}: address already in use; set PORT to use another.\n"
            assert process.output() == sentence


#: WXAUTH_HOST, the address as the kernel writes it, and the hosts that reach the server.
HOSTS = [
    pytest.param("", "00000000", ["127.0.0.1"], id="default"),
    pytest.param("127.0.0.1", "0100007F", ["127.0.0.1"], id="127.0.0.1"),
    pytest.param("::1", "00000000000000000000000001000000", ["[::1]"], id="::1"),
    pytest.param("::", "0" * 32, ["[::1]", "127.0.0.1"], id="::"),
]


@pytest.mark.parametrize(("host", "address", "reached"), HOSTS)
def test_serve_listens_on_the_address_of_wxauth_host(host: str, address: str, reached: list[str]) -> None:
    port = free_port()
    environ = BARE | CONFIGURED | {"PORT": str(port), "WXAUTH_SECRET_KEYS": keygen(), "WXAUTH_HOST": host}
    with Server(SERVE, environ=environ, cwd=ROOT) as server:
        wait_until(lambda: server.output().count("Started worker") == 2, "two workers")
        assert {*listening(port)} == {f"{address}:{port:04X}"}
        for name in reached:
            assert requests.get(f"http://{name}:{port}/healthz", timeout=5).json() == {"status": "ok"}
        assert server.stop() == 0


@pytest.mark.parametrize(("host", "taken"), [("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_serve_on_ipv6_says_that_the_port_is_taken(host: str, taken: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as server:
        port = str(server.getsockname()[1])
        environ = BARE | CONFIGURED | {"PORT": port, "WXAUTH_SECRET_KEYS": keygen(), "WXAUTH_HOST": host}
        with Server(SERVE, environ=environ, cwd=ROOT) as process:
            assert process.process.wait(10) == 2
            assert "address already in use; set PORT to use another" in process.output()


def test_serve_names_wxauth_host_if_the_machine_does_not_have_the_address() -> None:
    environ = BARE | CONFIGURED | {"PORT": str(free_port()), "WXAUTH_SECRET_KEYS": keygen()}
    with Server(SERVE, environ=environ | {"WXAUTH_HOST": "192.0.2.1"}, cwd=ROOT) as process:
        assert process.process.wait(10) == 2
        assert "set WXAUTH_HOST to use another" in process.output()


@pytest.mark.parametrize("variable", ["PORT", "WEB_CONCURRENCY"])
def test_serve_names_a_variable_that_is_not_a_number(variable: str) -> None:
    environ = BARE | {"WXAUTH_SANDBOX": "1", variable: "many"}
    with Server(SERVE, environ=environ, cwd=ROOT) as process:
        assert process.process.wait(10) == 2
        assert f"env var: '{variable}'" in process.output()


def test_serve_with_sandbox_listens_on_loopback_and_answers_loopback_names_only() -> None:
    port = free_port()
    with Server(SERVE, environ=BARE | {"PORT": str(port), "WXAUTH_SANDBOX": "1"}, cwd=ROOT):
        wait_until(lambda: is_healthy(f"http://127.0.0.1:{port}"), "the sandbox")
        assert listening(port) == [f"0100007F:{port:04X}"]
        url = f"http://127.0.0.1:{port}/sandbox/redis"
        assert requests.get(url, timeout=5).status_code == 200
        assert requests.get(url, headers={"Host": "rebound.example"}, timeout=5).status_code == 400


def test_serve_makes_one_folder_of_metrics_for_its_workers_and_removes_it(tmp_path: Path) -> None:
    """Also that of an earlier server on this port, which was killed."""
    port = free_port()
    environ = BARE | CONFIGURED | {"PORT": str(port), "WXAUTH_SECRET_KEYS": keygen(), "TMPDIR": str(tmp_path)}
    with Server(SERVE, environ=environ, cwd=ROOT) as server:
        wait_until(lambda: server.output().count("Started worker") == 2, "two workers")
        os.killpg(server.process.pid, signal.SIGKILL)
        wait_until(lambda: listening(port) == [], "the end of the workers")
        (folder,) = tmp_path.glob(METRICS)
        left = folder / "counter_1.db"
        left.touch()
    with Server(SERVE, environ=environ, cwd=ROOT) as server:
        wait_until(lambda: server.output().count("Started worker") == 2, "two workers")
        assert list(tmp_path.glob(METRICS)) == [folder]
        assert not left.exists()
        assert folder.stat().st_mode & 0o777 == 0o700
        requests.get(f"http://127.0.0.1:{port}/session", headers={"Authorization": "nonsense"}, timeout=5)
        assert list(folder.glob("counter_*.db"))
        assert server.stop() == 0
        assert list(tmp_path.glob(METRICS)) == []


class EndedServer:
    """Granian after a worker has ended by itself: it exits with 1, also if a signal ends it at that moment."""

    interrupt_signal = False

    def __init__(self, *args: object, **options: object) -> None:
        """Take the options of Granian."""

    def serve(self) -> None:
        sys.exit(1)


@pytest.mark.parametrize("has_signal", [True, False])
def test_server_exits_with_1_only_without_a_signal(monkeypatch: pytest.MonkeyPatch, has_signal: bool) -> None:
    """Heroku sends SIGTERM to every process, and a worker may end before Granian has told it to."""
    monkeypatch.setattr(EndedServer, "interrupt_signal", has_signal)
    monkeypatch.setattr(server, "Server", EndedServer)
    monkeypatch.setattr(server, "_allow_files", lambda: None)
    with contextlib.nullcontext() if has_signal else pytest.raises(SystemExit):
        server.run("app:app", "127.0.0.1", "8000", "2", "8")


def test_serve_uses_no_folder_of_metrics_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user of the machine can put a link there. Each worker has its own metrics then."""
    started = []

    def execute(path: str, command: list[str]) -> None:
        started.append((command, os.environ.get("PROMETHEUS_MULTIPROC_DIR")))

    port = free_port()
    Path(tmp_path, f"wxauth-metrics-{os.getuid()}-{port}").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "execv", execute)
    environ = {"WXAUTH_SANDBOX": "1", "PORT": str(port), "PROMETHEUS_MULTIPROC_DIR": ""}
    result = CliRunner().invoke(main, ["serve"], env=environ, catch_exceptions=False)
    assert "No folder for temporary files" in result.stderr
    assert [(command[-1].isdigit(), folder) for command, folder in started] == [(True, None)]


def test_serve_gives_all_threads_one_heap_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    monkeypatch.setattr(os, "execv", lambda *_: started.append([os.environ[name] for name in HEAPS]))
    environ: dict[str, str | None] = {"WXAUTH_SANDBOX": "1", "PORT": str(free_port()), "MALLOC_ARENA_MAX": "4"}
    CliRunner().invoke(main, ["serve"], env=environ | {"_RJEM_MALLOC_CONF": None}, catch_exceptions=False)
    assert started == [["4", HEAPS["_RJEM_MALLOC_CONF"]]]


def test_of_two_starts_at_the_same_moment_one_gets_the_port() -> None:
    """Granian shares a port with another Granian, so half of the requests would go to each."""
    environ = BARE | {"WXAUTH_SANDBOX": "1", "PORT": str(free_port())}
    command = [sys.executable, "-m", "wxauth", "serve"]
    with Server(command, environ=environ, cwd=ROOT) as one, Server(command, environ=environ, cwd=ROOT) as two:
        wait_until(lambda: {one.process.poll(), two.process.poll()} == {None, 2}, "one of them ends")
        loser = one if one.process.poll() == 2 else two
        assert "Cannot listen on port" in loser.output()
