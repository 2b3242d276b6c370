"""wrk: 32 connections that are kept, one thread, on the load's core. And one request, to see what is answered."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.identity import visitor
from benchmarks.places import HERE, LOAD_CORE, pinned
from benchmarks.running import ContenderServer

CONNECTIONS: Final = 32
#: An error is quicker than an answer, so it must not count for much.
MOST_FAILED: Final = 1000
#: Seconds for a warm-up.
PATIENCE: Final = 180


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw; latencies in milliseconds."""

    requests: int
    failed: int
    a_second: float
    p50: float
    p99: float
    worst: float


class WrongAnswer(Exception):
    """A contender does not do what it is measured for."""


def drive(server: ContenderServer, headers: Sequence[str], seconds: int) -> Load:
    """`seconds` of load, each of `headers` in turn. WrongAnswer if more than one in MOST_FAILED requests fails."""
    lines = server.folder / "headers"
    lines.write_text("".join(f"{line}\n" for line in headers))
    url = f"http://127.0.0.1:{server.port}{server.contender.path}"
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(HERE / "wrk.lua"), url, "--", str(lines)]
    command = [*pinned(LOAD_CORE), "wrk", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    seen = json.loads(printed.strip().splitlines()[-1])
    if seen["failed"] * MOST_FAILED > seen["requests"]:
        raise WrongAnswer(f"{server.contender.name}: {printed}\n{server.output()}")
    a_second = seen["requests"] / seen["microseconds"] * 1e6
    latencies = (seen[name] / 1000 for name in ("p50", "p99", "worst"))
    return Load(seen["requests"], seen["failed"], a_second, *latencies)


def visit(server: ContenderServer, headers: Sequence[str], at_least: int) -> None:
    """Load until so many requests are answered."""
    deadline = time.monotonic() + PATIENCE
    while at_least > 0:
        if time.monotonic() > deadline:
            raise WrongAnswer(f"{server.contender.name} takes too long to get warm\n{server.output()}")
        at_least -= drive(server, headers, 1).requests


def examine(server: ContenderServer, headers: Sequence[str]) -> None:
    """WrongAnswer unless the first user is known by openid, and nobody else is let in."""
    if not headers:
        return
    status, text = _ask(server, headers[0])
    if status not in (200, 204) or visitor(0).openid not in text:
        raise WrongAnswer(f"{server.contender.name} does not know the first user: {status} {text}")
    for line in ("X-None: 0", "Authorization: Bearer forged", "Cookie: session=forged"):
        if _ask(server, line)[0] not in (401, 422):
            raise WrongAnswer(f"{server.contender.name} lets somebody in with {line}")


def _ask(server: ContenderServer, line: str) -> tuple[int, str]:
    """The status, and all of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    name, _, value = line.partition(": ")
    connection.request("GET", server.contender.path, headers={name: value})
    response = connection.getresponse()
    text = f"{response.headers}{response.read().decode()}"
    connection.close()
    return response.status, text
