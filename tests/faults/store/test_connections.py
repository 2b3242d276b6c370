"""A few connections to Redis for many threads: nobody is refused while Redis limits them, or stops."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.conftest import Run
from tests.faults.support.rig import assert_limit, events
from tests.faults.support.slow_wechat import SlowWeChat, code
from tests.faults.support.traffic import Caller, Reply, beside, max_concurrent, milliseconds, statuses
from tests.support.servers import RedisServer, wait_until
from tests.support.service import Service, environment
from wxauth.settings import Settings

WORKERS = 2
PHONES = 40
#: WXAUTH_REDIS_CONNECTIONS, and the revocation channel.
MAX_CONNECTIONS = WORKERS * (Settings.redis_connections + 1)


@pytest.fixture(scope="module")
def wechat() -> Iterator[SlowWeChat]:
    with SlowWeChat() as server:
        yield server


@contextmanager
def serving(redis: RedisServer, wechat: SlowWeChat, workers: int = WORKERS) -> Iterator[Service]:
    variables = {"WEB_CONCURRENCY": str(workers), "WXAUTH_TRUSTED_PROXIES": "1"}
    with Service(environment(redis.url, wechat.url, **variables)) as service:
        wait_until(lambda: service.output().count("Started worker") == workers, "the workers")
        yield service


async def logins(port: int, count: int, width: int = PHONES, address: str | None = None) -> list[Reply]:
    """Log in `count` users, `width` at once. Each sends a check too. Return the first answer that is not a 200."""

    async def log_in(number: int) -> Reply:
        login = await caller.log_in(code(0, f"USER-{secrets.token_hex(8)}"))
        return await caller.check(login.token) if login.status == 200 else login

    async with Caller(port, address) as caller:
        return await max_concurrent(width, count, log_in)


@pytest.mark.timed
@pytest.mark.parametrize("maxclients", [20, 12])
def test_burst_of_logins_at_the_connection_limit_is_served(run: Run, wechat: SlowWeChat, maxclients: int) -> None:
    """40 phones at once, then one alone. A limit of 12 is too low for two workers with 8 connections each.

    With 5 connections for a worker, a phone may wait too long on a busy machine. Redis' refusal reaches no phone.
    """
    fault, most = f"{PHONES} phones, maxclients {maxclients}", 0
    with RedisServer("--maxclients", str(maxclients)) as redis, redis.client() as admin:
        admin.ping()
        with serving(redis, wechat) as service:

            async def count(due: float) -> Reply:
                nonlocal most
                most = max(most, len(admin.client_list()) - 1)
                return Reply(0, "", b"", due, due)

            async def burst() -> list[Reply]:
                found, _ = await beside(logins(service.port, run.of(400, 8_000)), 100, count)
                return found + await logins(service.port, 20, width=1)

            found = asyncio.run(burst())
            reasons = Counter(event["reason"] for event in events(service) if event["event"] == "store_unavailable")
    run.figure(fault, "reasons of refusals", dict(reasons), "none")
    run.figure(fault, "answers to logins", dict(statuses(found)), "200 only")
    run.figure(fault, "connections to Redis, two workers", most, f"at most {MAX_CONNECTIONS}")
    assert reasons.keys() <= ({"pool_exhausted"} if maxclients < MAX_CONNECTIONS else set())
    assert sum(reasons.values()) <= len(found) // 100
    assert set(statuses(found[-20:])) == {200}
    assert 0 < most <= MAX_CONNECTIONS


async def logins_of_many(port: int, count: int) -> list[Reply]:
    """Log in `count` users, 96 at once from 24 addresses: bodies of one address would wait for each other."""
    crowds = [logins(port, count // 24, 4, f"192.0.2.{number}") for number in range(24)]
    return [reply for found in await asyncio.gather(*crowds) for reply in found]


@pytest.mark.timed
def test_stopped_redis_holds_none_of_96_threads_longer_than_600_ms(run: Run, wechat: SlowWeChat) -> None:
    """A worker has 8 connections: most threads wait for one."""
    fault = "redis stopped (SIGSTOP), 96 threads"
    with RedisServer() as redis, serving(redis, wechat, workers=1) as service:
        asyncio.run(logins(service.port, 100))
        redis.process.send_signal(signal.SIGSTOP)
        found = asyncio.run(logins_of_many(service.port, run.of(96, 960)))
        redis.process.send_signal(signal.SIGCONT)
        back = time.monotonic()
        while asyncio.run(logins(service.port, 1))[0].status != 200:
            time.sleep(0.05)
        assert_limit(run, fault, "slowest login", milliseconds(found, 100), 600)
        assert_limit(run, fault, "first 200 after SIGCONT", round(time.monotonic() - back, 3), 1, "s")
    assert set(statuses(found)) == {503}
