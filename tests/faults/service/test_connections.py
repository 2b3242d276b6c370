"""Many connections that are silent, send long heads or never read; and connections that rest before a request."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
import requests

from tests.faults.conftest import Run
from tests.faults.support.raw_http import ask
from tests.faults.support.rig import worker_pids
from tests.faults.support.slow_wechat import SlowWeChat, code
from tests.support.proxies import KINDS, Application, Proxy
from tests.support.servers import RedisServer, wait_until
from tests.support.service import Service, environment

WORKERS = 2
#: MiB of resident memory.
MAX_MEMORY = 120
#: Seconds until the service answers after the end of an attack.
MAX_RECOVERY = 10
TRACING = ["opentelemetry", "sentry_sdk"]
#: A test of all proxies has its own parameters.
ATTACKED = ["direct", "nginx", "caddy"]
#: A head of 400 KB, whole, and a long one without its end.
LONG_HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 400_000 + b"\r\n\r\n"
HALF_HEAD = LONG_HEAD[:30_000]
#: Far more than the buffers of a connection hold, if the client reads nothing.
ANSWERS = b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n" * 50
#: What each connection sends, and the number of connections in a small and in a full run.
ATTACKS = {
    "silent": (b"", 2_100, 5_000),
    "long heads": (LONG_HEAD, 600, 1_900),
    "half heads": (HALF_HEAD, 600, 1_900),
    "no reading": (ANSWERS, 100, 1_000),
}


class LimitedService(Service):
    """The service on a host that begins with 1,024 open files and allows more."""

    def __init__(self, environ: dict[str, str]) -> None:
        super().__init__(environ)
        self._command = ["prlimit", "--nofile=1024:", *self._command]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with what requirements.txt installs: the packages for tracing take memory too."""
    hidden = tmp_path_factory.mktemp("hidden")
    for package in TRACING:
        (hidden / f"{package}.py").write_text("raise ImportError\n")
    with RedisServer() as redis_server, SlowWeChat() as wechat:
        more = {"WEB_CONCURRENCY": str(WORKERS), "PYTHONPATH": str(hidden)}
        environ = environment(redis_server.url, wechat.url, **more)
        with LimitedService(environ) as running:
            wait_until(lambda: running.output().count("Started worker") == WORKERS, "the workers")
            yield running


@pytest.fixture(scope="module", params=ATTACKED)
def port(request: pytest.FixtureRequest, service: Service) -> Iterator[int]:
    """The port of the service, or of a proxy before it."""
    if request.param == "direct":
        yield service.port
        return
    with Application() as application, Proxy(request.param, service.port, application.port) as proxy:
        yield proxy.port


def log_in(port: int, timeout: float = 5) -> int:
    answer = requests.post(f"http://127.0.0.1:{port}/login", json={"code": login_code()}, timeout=timeout)
    return answer.status_code


def login_code() -> str:
    return code(0, f"USER-{secrets.token_hex(8)}")


@contextlib.contextmanager
def attacked(port: int, count: int, data: bytes) -> Iterator[None]:
    """Hold `count` connections that have sent as much of `data` as the other side takes at once."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", port))
            line.setblocking(False)
            with contextlib.suppress(OSError):
                line.send(data)
        time.sleep(0.5)
        yield


def memory(service: Service) -> int:
    """Return the resident memory of the largest worker in MiB."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in worker_pids(service))
    return max(pages) * 4096 // 2**20


@pytest.mark.timed
@pytest.mark.parametrize("attack", ATTACKS)
def test_many_connections_leave_room_and_bounded_memory(service: Service, port: int, run: Run, attack: str) -> None:
    """Logins of others are served during the attack."""
    data, small, full = ATTACKS[attack]
    count, pids = run.of(small, full), worker_pids(service)
    # On a bare port, the answers to 50,000 requests for the contract may come first.
    patience = MAX_RECOVERY if port == service.port else 5
    with attacked(port, count, data):
        statuses = {log_in(port, patience) for _ in range(10)}
        largest = memory(service)
    ended = time.monotonic()
    wait_until(lambda: log_in(port) == 200, "a login after the attack", MAX_RECOVERY)
    title = f"{count} connections, {attack}"
    run.figure(title, "memory of the largest worker, MiB", largest, f"<= {MAX_MEMORY}")
    run.figure(title, "seconds until the next login", round(time.monotonic() - ended, 2), f"<= {MAX_RECOVERY}")
    assert statuses == {200}
    assert largest <= MAX_MEMORY
    assert worker_pids(service) == pids


@pytest.mark.parametrize("length", [1_000, 8_192, 16_000, 30_000])
def test_a_head_with_a_long_cookie_is_answered(service: Service, length: int) -> None:
    cookie = b"Cookie: a=" + b"a" * length + b"\r\n"
    assert ask(service.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + cookie + b"\r\n").statuses == [200]


def test_a_head_far_beyond_32_kib_gets_431(service: Service) -> None:
    answer = ask(service.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nCookie: a=" + b"a" * 200_000 + b"\r\n\r\n")
    assert (answer.statuses, answer.kept) == ([431], False)


@pytest.mark.parametrize("port", ["direct", *KINDS], indirect=True)
def test_connections_that_rested_take_a_post(port: int, run: Run) -> None:
    """Heroku's router reuses a connection for up to 90 s."""
    count, rest = run.of(50, 200), run.of(11, 95)
    with contextlib.ExitStack() as stack:
        # http.client sends on the connection that it has, also if the other side has closed it.
        callers = [
            stack.enter_context(contextlib.closing(HTTPConnection("127.0.0.1", port, 5))) for _ in range(count)
        ]
        assert {status_of(caller, "GET", "/session") for caller in callers} == {401}
        time.sleep(rest)
        statuses = [status_of(caller, "POST", "/login", json.dumps({"code": login_code()})) for caller in callers]
    lost = count - statuses.count(200)
    run.figure(f"connections that rested {rest} s", "lost POSTs", f"{lost} of {count}", 0)
    assert lost == 0


def status_of(caller: HTTPConnection, method: str, path: str, body: str | None = None) -> int:
    """Return the status of the answer, or 0 if there is none."""
    try:
        caller.request(method, path, body, {"Content-Type": "application/json"})
        answer = caller.getresponse()
        answer.read()
    except (OSError, HTTPException):
        return 0
    return answer.status
