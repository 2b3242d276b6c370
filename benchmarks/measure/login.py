"""The duration of a login, and how much of it is WeChat's own time. One login at a time."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.contenders.table import VERIFY
from benchmarks.harness.procs import processor_seconds, tree
from benchmarks.harness.servers import ContenderServer, FakeWeChat, PinnedRedis

#: Milliseconds that the fake WeChat takes to answer.
DELAYS: Final = (0, 50)
WARM_UP: Final = 20


@dataclass(frozen=True, slots=True)
class Logins:
    """Medians. Durations are in milliseconds, processor times in microseconds per login."""

    count: int
    login: float
    login_p99: float
    exchange: float  # the same request to the fake WeChat, without the service
    processor: float
    redis: float

    @property
    def added(self) -> float:
        return self.login - self.exchange


def measure(count: int, progress: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Return the figures of Logins by the delay of the fake WeChat."""
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
            _durations(server.port, _login, range(WARM_UP))
            groups = tree(server.process.pid), [redis.process.pid]
            before = [processor_seconds(pids) for pids in groups]
            logins = _durations(server.port, _login, range(WARM_UP, WARM_UP + count))
            used = [processor_seconds(pids) - start for pids, start in zip(groups, before, strict=True)]
            exchanges = _durations(wechat.port, _exchange, range(count))
    p99 = statistics.quantiles(logins, n=100)[-1]
    processor, redis_ = (seconds * 1e6 / count for seconds in used)
    return Logins(count, statistics.median(logins), p99, statistics.median(exchanges), processor, redis_)


def _durations(port: int, send: Callable[[http.client.HTTPConnection, int], None], users: range) -> list[float]:
    """Send one request for each user over one connection and return the durations in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    durations = [_duration(connection, send, user) for user in users]
    connection.close()
    return durations


def _duration(
    connection: http.client.HTTPConnection, send: Callable[[http.client.HTTPConnection, int], None], user: int
) -> float:
    began = time.perf_counter()
    send(connection, user)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {body.decode()}")
    return (time.perf_counter() - began) * 1000


def _login(connection: http.client.HTTPConnection, user: int) -> None:
    body = json.dumps({"code": f"user-{user}", "device": "a phone"})
    connection.request("POST", "/login", body, {"Content-Type": "application/json"})


def _exchange(connection: http.client.HTTPConnection, user: int) -> None:
    query = f"appid=a&secret=s&js_code=user-{user}&grant_type=authorization_code"
    connection.request("GET", f"/sns/jscode2session?{query}")
