"""Storms of logins, floods of forged tokens, slow callers: the checks of others stay fast."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.conftest import APPID
from tests.faults.conftest import FULL, Progress, Run
from tests.faults.support.rig import redis_commands
from tests.faults.support.slow_wechat import SlowWeChat, code
from tests.faults.support.traffic import Caller, Reply, at_rate, beside, max_concurrent, milliseconds, statuses
from tests.support.rogue import self_signed
from tests.support.servers import RedisServer, Server, program, wait_until
from tests.support.service import Service, environment
from wxauth.settings import Settings
from wxauth.web.requests import MAX_BODY
from wxauth.web.services import Services

pytestmark = pytest.mark.timed

#: The address of the good caller, as a trusted proxy reports it. The other callers have another address.
GOOD = "203.0.113.9"
STALLED = 60_000
WORKERS = 2
PHONES = 300
#: How many logins of a worker may wait for WeChat.
WAITING = Settings.threads * 3 // 4


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(redis_server: RedisServer) -> Iterator[Service]:
    with SlowWeChat() as wechat:
        environ = environment(redis_server.url, wechat.url, WEB_CONCURRENCY=str(WORKERS), WXAUTH_TRUSTED_PROXIES="1")
        with Service(environ) as running:
            wait_until(lambda: running.output().count("Started worker") == WORKERS, "the workers")
            yield running


class Visitor:
    """A logged-in user who sends checks. `others` sends the requests of other callers."""

    def __init__(self, port: int) -> None:
        self.caller = Caller(port, GOOD)
        self.others = Caller(port)
        self._token = ""

    async def __aenter__(self) -> Self:
        self._token = (await self.caller.log_in(code(0, unique()))).token
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.caller.__aexit__(kind, error, trace)
        await self.others.__aexit__(kind, error, trace)

    async def check(self, due: float) -> Reply:
        return await self.caller.check(self._token, due)

    async def quiet(self, rate: float, count: int) -> list[Reply]:
        """Send checks without other load, after a second to warm up."""
        await at_rate(rate, round(rate), self.check)
        return await at_rate(rate, count, self.check)


def unique() -> str:
    return f"USER-{secrets.token_hex(8)}"


def test_login_storm_succeeds_and_checks_stay_fast(service: Service, run: Run) -> None:
    """40 logins are always in flight, at a WeChat that takes 200 ms."""

    async def storm() -> tuple[list[Reply], list[Reply]]:
        async with Visitor(service.port) as visitor:
            await visitor.quiet(50, 50)
            logins = max_concurrent(40, run.of(300, 4000), lambda _: visitor.others.log_in(code(200, unique())))
            return await beside(logins, 50, visitor.check)

    logins, checks = asyncio.run(storm())
    seconds = max(login.end for login in logins) - min(login.start for login in logins)
    rate, p95 = round(len(logins) / seconds), milliseconds(checks, 95)
    run.figure("login storm, 40 at once, WeChat 200 ms", "logins a second", rate, ">= 100")
    run.figure("login storm, 40 at once, WeChat 200 ms", "p95 of GET /session in it, ms", p95, "<= 60")
    assert (set(statuses(logins)), set(statuses(checks))) == ({200}, {200})
    if FULL:
        assert rate >= 100
        assert p95 <= 60


def test_logins_at_a_stalled_wechat_leave_checks_fast(service: Service, run: Run) -> None:
    """50 logins wait until the deadline of 4 s. The p99 of the checks is at most twice the quiet one."""

    async def stall() -> tuple[list[Reply], list[Reply], list[Reply]]:
        async with Visitor(service.port) as visitor:
            quiet = await visitor.quiet(300, run.of(600, 6000))
            # Each waits 4 s, so from the fourth second on 50 logins wait.
            logins = at_rate(12.5, run.of(40, 300), lambda due: visitor.others.log_in(code(STALLED, unique()), due))
            return (quiet, *await beside(logins, 300, visitor.check))

    quiet, stuck, checks = asyncio.run(stall())
    ratio = round(milliseconds(checks, 99) / milliseconds(quiet, 99), 2)
    run.figure("50 logins in a stalled WeChat", "p99 of 300 checks/s, quiet, ms", milliseconds(quiet, 99), "-")
    run.figure("50 logins in a stalled WeChat", "p99 beside them, times the quiet one", ratio, "<= 2")
    assert (set(statuses(stuck)), set(statuses(checks))) == ({503}, {200})
    assert {login.code for login in stuck} == {"wechat_unreachable"}
    assert max(login.seconds for login in stuck) < 5
    if FULL:
        assert ratio <= 2


def test_300_phones_log_in_at_once_and_nobody_is_refused(service: Service, run: Run) -> None:
    """A push message at noon: 300 logins are always in flight, from one address, at a WeChat that takes 200 ms."""

    async def storm() -> tuple[list[Reply], list[Reply]]:
        async with Visitor(service.port) as visitor:
            await visitor.quiet(50, 50)
            logins = max_concurrent(PHONES, run.of(600, 6000), lambda _: visitor.others.log_in(code(200, unique())))
            return await beside(logins, 50, visitor.check)

    logins, checks = asyncio.run(storm())
    seconds = max(login.end for login in logins) - min(login.start for login in logins)
    rate, p95 = round(len(logins) / seconds), milliseconds(checks, 95)
    run.figure(f"{PHONES} phones at once, WeChat 200 ms", "logins a second", rate, ">= 600")
    run.figure(f"{PHONES} phones at once, WeChat 200 ms", "p95 of GET /session in it, ms", p95, "<= 60")
    assert (set(statuses(logins)), set(statuses(checks))) == ({200}, {200})
    if FULL:
        assert rate >= 600
        assert p95 <= 60


def test_logins_beyond_three_quarters_of_the_threads_get_wechat_busy_at_once(service: Service, run: Run) -> None:
    """The answer has a Retry-After, and checks succeed."""
    crowd_size = WORKERS * WAITING + 100

    async def crowd() -> tuple[list[Reply], list[Reply]]:
        async with Visitor(service.port) as visitor, contextlib.AsyncExitStack() as stack:
            callers = [Caller(service.port, f"198.51.100.{number}") for number in range(250)]
            for caller in callers:
                await stack.enter_async_context(caller)
            send = partial(_log_in_from, callers)
            return await beside(max_concurrent(crowd_size, crowd_size, send), 50, visitor.check)

    logins, checks = asyncio.run(crowd())
    # All requests with a body together may use a few threads more. The next one gets server_busy.
    busy = [login for login in logins if login.code in ("wechat_busy", "server_busy")]
    slowest = milliseconds(busy, 100)
    title = f"{crowd_size} logins in a stalled WeChat"
    run.figure(title, "refused at once", len(busy), f">= {crowd_size - WORKERS * WAITING}")
    run.figure(title, "the slowest of these, ms", slowest, "< 1000")
    assert len(busy) >= crowd_size - WORKERS * WAITING
    assert all("retry-after: 1" in login.head.lower() for login in busy)
    assert {login.code for login in logins} - {"server_busy"} == {"wechat_busy", "wechat_unreachable"}
    assert set(statuses(checks)) == {200}
    if FULL:
        assert slowest < 1000


def test_storm_over_tls_makes_as_many_connections_to_wechat_as_logins_were_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """A TLS handshake costs more than the rest of a login, so connections are used again, also by the next wave."""
    waves, in_flight = run.of(5, 63), 48
    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed(tmp_path)[1]))
    with SlowWeChat(tmp_path) as wechat:
        settings = Settings.from_env(environment("redis://127.0.0.1:1", wechat.url, WXAUTH_THREADS="64"))
        client = Services(settings).wechat
        before = wechat.connections
        with ThreadPoolExecutor(in_flight) as pool:
            log_in = lambda _: client.exchange(APPID, code(20, unique())).user.openid  # noqa: E731
            users = [user for _ in range(waves) for user in pool.map(log_in, range(in_flight))]
        handshakes = wechat.connections - before
    title = f"{len(users)} logins over TLS, {in_flight} at once"
    run.figure(title, "TLS handshakes with WeChat", handshakes, in_flight)
    assert len(set(users)) == waves * in_flight
    assert handshakes <= in_flight


async def _log_in_from(callers: Sequence[Caller], number: int) -> Reply:
    return await callers[number % len(callers)].log_in(code(STALLED, unique()))


@dataclass(frozen=True)
class Flood:
    """Forged tokens for one route: how many in a full run, in how many rounds, and about how many a second.

    CONNECTIONS connections with a mean pause of `pause` milliseconds make `rate`.
    """

    path: str
    count: int
    rounds: int
    rate: int
    pause: int


CONNECTIONS = 64
#: One million together. `/verify` gets most: each request to an application behind a proxy passes it.
#: The pace is chosen so that a worker on two cores, which also bear the load, is not busy with forged tokens alone.
FLOODS = (Flood("verify", 850_000, 8, 2_000, 30), Flood("session", 150_000, 3, 950, 64))


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.path)
def test_forged_tokens_cost_no_redis_command_and_leave_checks_fast(
    service: Service, redis_server: RedisServer, run: Run, progress: Progress, flood: Flood
) -> None:
    """Each gets a 401. The p99 of the checks is at most 1.5 times the quiet one; the log has at most 100 lines/s."""
    needed, rounds = run.of(3_000, flood.count), run.of(1, flood.rounds)

    async def alternate() -> tuple[list[Reply], Forged, list[Reply], Counter[str]]:
        """Alternate quiet and flood, so that other work of the machine falls into both."""
        quiet, forged, checks, asked = list[Reply](), NONE_FORGED, list[Reply](), Counter[str]()
        async with Visitor(service.port) as visitor:
            for number in range(1, rounds + 1):
                quiet += await visitor.quiet(100, run.of(200, 800))
                before = redis_commands(client)
                sending = forge(service.port, flood, needed // rounds, run.seed + number)
                more, checks_beside = await beside(sending, 100, visitor.check)
                asked += redis_commands(client) - before
                forged, checks = forged + more, checks + checks_beside
                progress(f"forged tokens at /{flood.path}: {forged.answered} of {needed}")
        return quiet, forged, checks, asked

    start, lines = time.monotonic(), refusals(service)
    with redis_server.client() as client:
        quiet, forged, checks, asked = asyncio.run(alternate())
    logged = round((refusals(service) - lines) / (time.monotonic() - start))
    ratio = round(milliseconds(checks, 99) / milliseconds(quiet, 99), 2)
    title = f"{forged.answered:,} forged at /{flood.path}, {round(forged.answered / forged.seconds)}/s"
    run.figure(title, "other answers than 401, or none", forged.others + forged.unanswered, 0)
    run.figure(title, "Redis commands beyond those of the checks", asked["hmget"] - len(checks), "<= 0")
    run.figure(title, "p99 of the checks, quiet, ms", milliseconds(quiet, 99), "-")
    run.figure(title, "p99 of the checks, times the quiet one", ratio, "<= 1.5")
    run.figure(title, "log lines about them a second", logged, "<= 100")
    assert forged.answered >= needed
    assert forged.others + forged.unanswered == 0
    assert set(statuses(checks)) == {200}
    assert asked["hmget"] <= len(checks)
    assert set(asked) <= {"hmget"}
    assert logged <= 100
    if FULL:
        assert ratio <= 1.5


def refusals(service: Service) -> int:
    """Return the number of log lines about refused tokens. Every other request is logged one by one."""
    return sum(service.output().count(word) for word in ("token_invalid", "requests_refused"))


@dataclass(frozen=True)
class Forged:
    """The answers to forged tokens, as forge.lua counts them."""

    answered: int
    others: int
    unanswered: int
    seconds: int

    def __add__(self, more: Forged) -> Forged:
        return Forged(
            self.answered + more.answered,
            self.others + more.others,
            self.unanswered + more.unanswered,
            self.seconds + more.seconds,
        )


NONE_FORGED = Forged(0, 0, 0, 0)


async def forge(port: int, flood: Flood, needed: int, seed: int) -> Forged:
    """Send at least `needed` forged tokens with wrk, which takes little processor time from the service."""
    total = NONE_FORGED
    while total.answered < needed:
        seconds = (needed - total.answered) // flood.rate + 1
        total += await _forge(port, flood, seconds, seed + total.seconds)
    return total


async def _forge(port: int, flood: Flood, seconds: int, seed: int) -> Forged:
    connections = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s"]
    script = ["-s", str(Path(__file__).with_name("forge.lua"))]
    url = f"http://127.0.0.1:{port}/{flood.path}"
    command = [program("wrk"), *connections, *script, url, "--", str(seed), str(flood.pause)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    counts = re.search(rb"answered (\d+), others (\d+), unanswered (\d+)", output)
    assert counts, output
    return Forged(int(counts[1]), int(counts[2]), int(counts[3]), seconds)


@pytest.mark.parametrize("attack", ["-H", "-B"], ids=["slow headers", "slow bodies"])
def test_slow_callers_leave_good_requests_fast(service: Service, run: Run, attack: str) -> None:
    """slowhttptest holds 400 connections. The p95 of the good checks is at most 50 ms."""

    with slowhttptest(attack, service.port, seconds=run.of(5, 20)) as attacker:
        logins, checks = asyncio.run(go_on(service.port, lambda: attacker.process.poll() is None))
        assert "service available" in attacker.output()
    report(run, f"slowhttptest {attack}, 400 connections", logins, checks)


#: The heads of bodies that stall after a byte. Flask refuses those over the limit without reading them.
STALLING = {
    "limit -1": b"Content-Length: %d\r\n\r\n{" % (MAX_BODY - 1),
    "limit": b"Content-Length: %d\r\n\r\n{" % MAX_BODY,
    "limit +1": b"Content-Length: %d\r\n\r\n{" % (MAX_BODY + 1),
    "limit +2": b"Content-Length: %d\r\n\r\n{" % (MAX_BODY + 2),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("name", STALLING)
def test_bodies_that_stall_leave_good_requests_fast(service: Service, run: Run, name: str) -> None:
    """One address holds 400 connections. No thread waits for a body outside the buffer."""
    head = b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + STALLING[name]
    over = time.monotonic() + run.of(2, 15)
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 5))
            line.sendall(head)
        logins, checks = asyncio.run(go_on(service.port, lambda: time.monotonic() < over))
    report(run, f"bodies that stall, {name}, 400 connections", logins, checks)


async def go_on(port: int, lasts: Callable[[], bool]) -> tuple[list[Reply], list[Reply]]:
    """Send one login after the other, and checks beside them, while `lasts` returns True."""
    async with Visitor(port) as visitor:

        async def log_in_again() -> list[Reply]:
            logins = []
            while lasts():
                logins.append(await visitor.caller.log_in(code(0, unique())))
                await asyncio.sleep(0.05)
            return logins

        return await beside(log_in_again(), 100, visitor.check)


def report(run: Run, title: str, logins: list[Reply], checks: list[Reply]) -> None:
    p95 = milliseconds(checks, 95)
    run.figure(title, "p95 of the good checks, ms", p95, "<= 50")
    run.figure(title, "good requests that failed", sum(r.status != 200 for r in [*logins, *checks]), "0")
    assert (set(statuses(logins)), set(statuses(checks))) == ({200}, {200})
    if FULL:
        assert p95 <= 50


def slowhttptest(attack: str, port: int, seconds: int) -> Server:
    path = {"-H": "session", "-B": "login"}[attack]
    options = f"{attack} -c 400 -r 400 -i 1 -l {seconds} -p 3 -x 16 -u http://127.0.0.1:{port}/{path}"
    return Server([program("slowhttptest"), *options.split()])
