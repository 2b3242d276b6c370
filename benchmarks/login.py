"""A login beside WeChat's own time: what the service adds to the exchange, for one user after the other."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.procs import processor_seconds, tree
from benchmarks.running import ContenderServer, FakeWeChat, PinnedRedis
from benchmarks.table import VERIFY

#: Milliseconds that WeChat takes.
DELAYS: Final = (0, 50)
WARM_UP: Final = 20


@dataclass(frozen=True, slots=True)
class Logins:
    """Milliseconds of a login and of the exchange alone; processor time in microseconds a login."""

    count: int
    login: float
    login_p99: float
    exchange: float
    processor: float
    redis: float

    @property
    def added(self) -> float:
        return self.login - self.exchange


def measure(count: int, progress: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """By WeChat's own time."""
    found = {}
    for delay in DELAYS:
        progress(f"{count} logins, WeChat takes {delay} ms")
        logins = _measure(count, delay)
        found[str(delay)] = asdict(logins) | {"added": logins.added}
    return found


def _measure(count: int, delay: int) -> Logins:
    with FakeWeChat(delay) as wechat, PinnedRedis() as redis:
        environ = {"WXAUTH_WECHAT_URL": wechat.url}
        with ContenderServer(VERIFY, redis, environ) as server:
            _times(server.port, _login, WARM_UP, 0)
            own = tree(server.process.pid)
            before = processor_seconds(own), processor_seconds([redis.process.pid])
            logins = _times(server.port, _login, count, WARM_UP)
            used = processor_seconds(own) - before[0], processor_seconds([redis.process.pid]) - before[1]
            exchanges = _times(wechat.port, _exchange, count, 0)
    p99 = statistics.quantiles(logins, n=100)[-1]
    return Logins(count, statistics.median(logins), p99, statistics.median(exchanges), *_each(used, count))


def _each(seconds: Sequence[float], count: int) -> tuple[float, float]:
    processor, redis = (part * 1e6 / count for part in seconds)
    return processor, redis


def _times(port: int, ask: Callable[[http.client.HTTPConnection, int], None], count: int, first: int) -> list[float]:
    """Milliseconds of each of `count` requests, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    times = []
    for number in range(first, first + count):
        began = time.perf_counter()
        ask(connection, number)
        response = connection.getresponse()
        body = response.read()
        times.append((time.perf_counter() - began) * 1000)
        if response.status != 200:
            raise RuntimeError(f"{response.status} {body.decode()}")
    connection.close()
    return times


def _login(connection: http.client.HTTPConnection, number: int) -> None:
    body = json.dumps({"code": f"user-{number}", "device": "a phone"})
    connection.request("POST", "/login", body, {"Content-Type": "application/json"})


def _exchange(connection: http.client.HTTPConnection, number: int) -> None:
    query = f"appid=a&secret=s&js_code=user-{number}&grant_type=authorization_code"
    connection.request("GET", f"/sns/jscode2session?{query}")
