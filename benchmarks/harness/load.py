"""Load by wrk with one thread and 32 keep-alive connections, and a check that a contender answers correctly."""

from __future__ import annotations

import http.client
import json
import secrets
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contenders.users import fake_user
from benchmarks.harness.host import LOAD_CORE, pinned
from benchmarks.harness.servers import ContenderServer

CONNECTIONS: Final = 32
SCRIPT: Final = Path(__file__).with_name("wrk.lua")
#: A failed request is faster than a good one, so at most one in this many may fail.
REQUESTS_PER_FAILURE: Final = 1000
#: Seconds.
WARM_UP_TIMEOUT: Final = 180


@dataclass(frozen=True, slots=True)
class Load:
    """The figures of wrk. Latencies are in milliseconds."""

    requests: int
    failed: int
    per_second: float
    p50: float
    p99: float
    worst: float


class WrongAnswer(Exception):
    """A contender fails requests, or accepts or refuses the wrong users."""


def drive(server: ContenderServer, headers: Sequence[str], seconds: int) -> Load:
    """Send requests for `seconds`, with each of `headers` in turn.

    Raises WrongAnswer if more than one request in REQUESTS_PER_FAILURE fails.
    """
    url = f"http://127.0.0.1:{server.port}{server.contender.path}"
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), url, "--", *_requests(server, headers)]
    command = [*pinned(LOAD_CORE), "wrk", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    figures = json.loads(printed.strip().splitlines()[-1])
    if figures["failed"] * REQUESTS_PER_FAILURE > figures["requests"]:
        raise WrongAnswer(f"{server.contender.name}: {printed}\n{server.output()}")
    per_second = figures["requests"] / figures["microseconds"] * 1e6
    latencies = (figures[name] / 1000 for name in ("p50", "p99", "worst"))
    return Load(figures["requests"], figures["failed"], per_second, *latencies)


def _requests(server: ContenderServer, headers: Sequence[str]) -> tuple[str, str]:
    """Return the arguments of the script. Each login is of a new user."""
    if server.contender.is_login:
        return "logins", str(secrets.randbelow(10**12))
    lines = server.folder / "headers"
    lines.write_text("".join(f"{line}\n" for line in headers))
    return "checks", str(lines)


def warm_up(server: ContenderServer, headers: Sequence[str], at_least: int) -> None:
    """Send requests until `at_least` are answered. Raises WrongAnswer after WARM_UP_TIMEOUT."""
    deadline = time.monotonic() + WARM_UP_TIMEOUT
    while at_least > 0:
        if time.monotonic() > deadline:
            raise WrongAnswer(f"{server.contender.name} did not answer enough requests in time\n{server.output()}")
        at_least -= drive(server, headers, 1).requests


def check_answers(server: ContenderServer, headers: Sequence[str]) -> None:
    """Raise WrongAnswer unless the first user is accepted and forged credentials are refused."""
    if server.contender.is_login:
        _check_logins(server)
    if not headers:
        return
    status, text = _ask(server, headers[0])
    if status not in (200, 204) or fake_user(0).openid not in text:
        raise WrongAnswer(f"{server.contender.name} does not know the first user: {status} {text}")
    for line in ("X-None: 0", "Authorization: Bearer forged", "Cookie: session=forged"):
        if _ask(server, line)[0] not in (401, 422):
            raise WrongAnswer(f"{server.contender.name} accepts {line}")


def _check_logins(server: ContenderServer) -> None:
    """Raise WrongAnswer unless a valid code gets a new token, and an invalid one gets none."""
    answers = [_log_in(server, code) for code in ("user-1", "user-1", "invalid")]
    tokens = {body["token"] for status, body in answers if status == 200}
    with server.redis.client() as client:
        if len(tokens) != 2 or not client.dbsize():
            raise WrongAnswer(f"{server.contender.name} answers logins with {[status for status, _ in answers]}")


def _log_in(server: ContenderServer, code: str) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/login", json.dumps({"code": code}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if response.status == 200 else {}


def _ask(server: ContenderServer, line: str) -> tuple[int, str]:
    """Return the status, and headers and body as one text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    name, _, value = line.partition(": ")
    connection.request("GET", server.contender.path, headers={name: value})
    response = connection.getresponse()
    text = f"{response.headers}{response.read().decode()}"
    connection.close()
    return response.status, text
