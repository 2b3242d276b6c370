"""The service under observation, and the checks that follow a fault: I1 to I7 of the specification, and latencies."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

import redis

from tests.conftest import APP_SECRET, RING_KEY
from tests.faults.conftest import FULL, Run
from tests.faults.support.driver import Caller, Load, Person, milliseconds
from tests.faults.support.history import Bounds, Call, count, judged, violations
from tests.faults.support.leaks import arguments, hits, random_part
from tests.support.servers import children
from tests.support.service import Service, WeChatServer, environment
from wxauth.sessions.records import MICROSECONDS

#: Bounds without a session cache. No run makes 1,000 sessions of one user, so no session ends at the limit.
UNCACHED = Bounds(max_sessions=1000)
#: SECURITY.md allows the session cache to be 3 s late.
CACHED = Bounds(max_sessions=1000, stale=3)
#: How much both workers may grow: files by the connections that stay in the pools, memory in MB.
MAX_MORE_FILES, MAX_MORE_MEMORY = 40, 40
#: Each token is searched in a dozen spellings, so of more tokens than this a sample is searched.
MAX_TOKENS_SEARCHED = 200
#: The worker and the test send these on their own; no caller causes them.
BACKGROUND_COMMANDS = (
    *("info", "ping", "publish", "subscribe", "unsubscribe", "client", "hello", "auth", "select", "config"),
)


@contextmanager
def single_caller(service: Service, wechat: WeChatServer, seed: int) -> Iterator[tuple[Caller, Person, list[Call]]]:
    """Give one caller, its user, and the log of its calls."""
    load = Load(service.url, wechat, seed=seed, users=1)
    caller = load.caller()
    try:
        yield caller, load.people[0], load.calls
    finally:
        caller.close()


def events(service: Service) -> list[dict[str, Any]]:
    """Return the log of the service so far."""
    lines = re.findall(r"^[0-9:]+ web\.1 +\| (\{.*\})$", service.output(), re.MULTILINE)
    return [json.loads(line) for line in lines]


def redis_commands(client: redis.Redis) -> Counter[str]:
    """Count the commands that callers caused, as Redis itself counts them."""
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}
    return Counter({name: calls for name, calls in counts.items() if not name.startswith(BACKGROUND_COMMANDS)})


def age_sessions(admin: redis.Redis) -> None:
    """Let most of each session's idle time pass, so that its next check records a use.

    This depends on the layout in Redis.
    """
    idle_end = int((time.time() + 1000) * MICROSECONDS).to_bytes(8)
    with admin.pipeline(transaction=False) as pipeline:
        for name in admin.scan_iter("wxa:{*}", count=1000):
            for id, value in session_fields(admin, name).items():
                pipeline.hset(name, id, idle_end + value[8:])
        pipeline.execute()


def session_fields(admin: redis.Redis, name: bytes | str) -> dict[bytes, bytes]:
    """Return the sessions in a user's hash by id. This depends on the layout in Redis."""
    fields = cast(dict[bytes, bytes], admin.hgetall(name))
    return {id: value for id, value in fields.items() if len(id) > 1}


@dataclass(frozen=True)
class WorkerStats:
    """I6: pids of the workers; their open files and resident memory (MB) in sum."""

    pids: tuple[int, ...]
    files: int
    memory: float

    @classmethod
    def of(cls, service: Service) -> Self:
        pids = worker_pids(service)
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return cls(pids, files, pages * 4096 / 1e6)


def worker_pids(service: Service) -> tuple[int, ...]:
    """Return the last generation of processes below honcho: these answer requests."""
    pids = [service.process.pid]
    while below := [child for pid in pids for child in children(pid)]:
        pids = below
    return tuple(sorted(pids))


class ObservedService(Service):
    """The service with two workers. `before` holds their stats from before the fault."""

    def __init__(self, redis_url: str, wechat: WeChatServer, **more: str) -> None:
        settings = {"WEB_CONCURRENCY": "2", "WXAUTH_MAX_SESSIONS": "1000", "WXAUTH_LOGIN_RATE": "1000000/second"}
        settings["WXAUTH_LOG_LEVEL"] = "debug"
        super().__init__(environment(redis_url, wechat.url, **{**settings, **more}))
        self.wechat = wechat
        self.redis_password = urlsplit(redis_url).password

    def answers(self) -> bool:
        return super().answers() and self.output().count("Started worker") == 2

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.settle()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def settle(self) -> None:
        """Take the stats that a later check compares with."""
        self.before = WorkerStats.of(self)


@dataclass(frozen=True)
class Loaded:
    """A service, its load, and whether its session cache is on."""

    cache: str
    service: ObservedService
    load: Load

    bounds: Bounds

    def assert_clean(self, run: Run, fault: str) -> None:
        """Check every token once more, then assert I1 to I7."""
        self.load.check_all()
        assert_clean(run, f"{fault}, {self.cache}", self.service, self.load.calls, self.bounds)


@contextmanager
def cached_and_uncached(
    redis_url: str,
    wechat: WeChatServer,
    load: Callable[..., Load],
    max_sessions: int = UNCACHED.max_sessions,
    **more: str,
) -> Iterator[list[Loaded]]:
    """Run two services over one Redis, so that each fault hits both: one with the session cache, one without.

    `load` makes the load of each from its URL and `wechat`. All users are logged in; `running` begins the calls.
    """
    more = {**more, "WXAUTH_MAX_SESSIONS": str(max_sessions)}
    with contextlib.ExitStack() as stack:
        pairs = []
        for cache, size in {"cache on": "10000", "cache off": "0"}.items():
            service = stack.enter_context(ObservedService(redis_url, wechat, **more, WXAUTH_CACHE_SIZE=size))
            bounds = Bounds(max_sessions=max_sessions, stale=bounds_of(size).stale)
            pairs.append(Loaded(cache, service, load(service.url, wechat), bounds))
        for each in pairs:
            each.load.log_in_all()
            each.service.settle()
        yield pairs


@contextmanager
def running(pairs: Sequence[Loaded]) -> Iterator[None]:
    """Run all loads until the end of the `with` block."""
    with contextlib.ExitStack() as stack:
        for each in pairs:
            stack.enter_context(each.load)
        yield


def bounds_of(cache: str) -> Bounds:
    """Return the bounds for a WXAUTH_CACHE_SIZE."""
    return CACHED if int(cache) else UNCACHED


def assert_clean(
    run: Run,
    fault: str,
    service: ObservedService,
    calls: Sequence[Call],
    bounds: Bounds = CACHED,
    *,
    witnesses: bool = True,
) -> None:
    """Assert I1 to I7. With `witnesses`, assert too that I1 judged the last answer of at least one token."""
    found, tokens = violations(calls, bounds), judged(calls)
    run.figure(fault, "tokens whose last answer I1 judges", tokens, "more than 0" if witnesses else "")
    assert tokens or not witnesses
    run.figure(fault, f"violations of I1 to I5 in {len(calls)} calls", count(found), 0)
    assert {name: breaches[:3] for name, breaches in found.items() if breaches} == {}
    assert_workers_unchanged(run, fault, service)
    assert_no_secrets(run, fault, service, calls)


def assert_workers_unchanged(run: Run, fault: str, service: ObservedService) -> None:
    """I6: the pids are the same, and neither open files nor memory have grown much."""
    now = WorkerStats.of(service)
    files, memory = now.files - service.before.files, round(now.memory - service.before.memory, 1)
    run.figure(fault, "I6 open files, all workers", f"{files:+}", f"at most +{MAX_MORE_FILES}")
    run.figure(fault, "I6 memory, all workers (MB)", f"{memory:+}", f"at most +{MAX_MORE_MEMORY}")
    assert now.pids == service.before.pids
    assert files <= MAX_MORE_FILES
    assert memory <= MAX_MORE_MEMORY


def assert_no_secrets(run: Run, fault: str, service: ObservedService, calls: Sequence[Call]) -> None:
    """I7: no secret, token or openid is in the log or in the arguments of a process."""
    tokens = sorted({random_part(call.token_id) for call in calls if call.token_id})
    of_users = {*tokens[:: len(tokens) // MAX_TOKENS_SEARCHED + 1], *(call.user for call in calls)}
    of_users |= {key for key, _ in service.wechat.fake._session_keys.values()}
    secrets = {"app secret": APP_SECRET, "ring key": RING_KEY}
    secrets |= {"redis password": service.redis_password} if service.redis_password else {}
    secrets |= {f"a user's own, {number}": secret for number, secret in enumerate(sorted(of_users))}
    found = hits(secrets, "the log", service.output().encode())
    found += [hit for text in arguments(service.process.pid) for hit in hits(secrets, "the arguments", text)]
    run.figure(fault, f"I7 {len(secrets)} secrets, found", len(found), 0)
    assert found == []


def assert_limit(run: Run, fault: str, name: str, value: float, limit: float, unit: str = "ms") -> None:
    """Print a figure, and assert its limit in a full run: only there the test has the machine to itself."""
    run.figure(fault, f"{name} ({unit})", value, f"at most {limit}")
    if FULL:
        assert value <= limit, f"{fault}, {name}: {value} {unit}, limit {limit}"


def calls_within(calls: Sequence[Call], start: float, end: float) -> list[Call]:
    """Return the calls that began and ended between `start` and `end`."""
    return [call for call in calls if start <= call.start and call.end <= end]


def calls_begun(calls: Sequence[Call], start: float, end: float) -> list[Call]:
    """Return the calls that began between `start` and `end`."""
    return [call for call in calls if start <= call.start <= end]


def slowest(calls: Sequence[Call]) -> float:
    return milliseconds(list(calls), 100)


def first_success(calls: Sequence[Call], since: float, operation: str = "check") -> float:
    """Return the seconds from `since` to the end of the first `operation` after it that succeeded."""
    ends = [call.end for call in calls if call.start >= since and call.passed and call.operation == operation]
    return round(min(ends, default=float("inf")) - since, 3)


def statuses(calls: Sequence[Call]) -> set[int | None]:
    return {call.status for call in calls}


def run_in_parallel(*jobs: Callable[[], object]) -> None:
    """Run each job in a thread of its own. Raises the first error of a job."""
    raised: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
