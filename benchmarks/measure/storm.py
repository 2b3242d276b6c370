"""A storm of logins: 300 phones log in at once, again and again, at a WeChat that takes 200 ms.

Two workers, the load and the fake WeChat share the machine's cores. Others send checks meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from benchmarks.contenders.table import VERIFY, Contender
from benchmarks.harness.procs import resident_bytes, tree
from benchmarks.harness.servers import ContenderServer, FakeWeChat, PinnedRedis
from tests.faults.support.traffic import Caller, Reply, beside, max_concurrent, milliseconds

PHONES: Final = 300
#: Milliseconds that WeChat takes.
DELAY: Final = 200
WORKERS: Final = 2
CHECKS_A_SECOND: Final = 50
#: The service is not bound to a core.
SERVICE: Final[Contender] = replace(VERIFY, environ={**VERIFY.environ, "WEB_CONCURRENCY": str(WORKERS)})


def measure(count: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return the rate of `count` logins, durations in ms, the refused logins, and the bytes of the largest worker.

    In a storm before it, threads and connections begin. Only its refused logins count.
    """
    progress(f"{count} logins of {PHONES} phones at once, WeChat takes {DELAY} ms")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with FakeWeChat(DELAY) as wechat, PinnedRedis() as redis:
        environ = {"WXAUTH_WECHAT_URL": wechat.url}
        with ContenderServer(SERVICE, redis, environ, pin=False) as server:
            first, _ = asyncio.run(_storm(server.port, PHONES, 0))
            logins, checks = asyncio.run(_storm(server.port, count, PHONES))
            memory = max(map(resident_bytes, tree(server.process.pid)))
    os.sched_setaffinity(0, cores)
    seconds = max(login.end for login in logins) - min(login.start for login in logins)
    return {
        "count": count,
        "per_second": count / seconds,
        "refused": sum(login.status != 200 for login in [*first, *logins]),
        "login_p50": milliseconds(logins, 50),
        "login_p95": milliseconds(logins, 95),
        "check_p50": milliseconds(checks, 50),
        "check_p95": milliseconds(checks, 95),
        "worker_bytes": memory,
    }


async def _storm(port: int, count: int, first: int) -> tuple[list[Reply], list[Reply]]:
    """Return the answers to the logins and to the checks beside them. The users have the numbers from `first` on."""
    async with Caller(port) as visitor, Caller(port) as phones:
        token = (await visitor.log_in("user-0")).token
        logins = max_concurrent(PHONES, count, lambda number: phones.log_in(f"user-{first + number + 1}"))
        return await beside(logins, CHECKS_A_SECOND, lambda due: visitor.check(token, due))
