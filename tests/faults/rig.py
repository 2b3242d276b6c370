"""What the faults of the store share: the service over a Redis that is about to break, and looks at its inside."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.conftest import APP_SECRET, RING_KEY
from tests.faults.conftest import FULL, Run
from tests.faults.driver import Caller, Load, Person, milliseconds
from tests.faults.history import Bounds, Call, count, judged, violations
from tests.faults.leaks import arguments, children, hits
from tests.service import Service, WeChatServer, environment

#: More than any run makes, so that the checker need not ask whether a session was the oldest of too many.
UNCACHED = Bounds(max_sessions=1000)
#: For both workers together: what eight callers may leave in the pools of connections. A leak with each call is seen.
MORE_FILES, MORE_MEMORY = 40, 40
#: At most so many of the tokens are searched for, each in a dozen spellings; of the rest all.
TOKENS_LOOKED_FOR = 200
#: What SECURITY.md states for sessions that are kept at hand.
CACHED = Bounds(max_sessions=1000, stale=3)


@contextmanager
def calling(service: Service, wechat: WeChatServer, seed: int) -> Iterator[tuple[Caller, Person, list[Call]]]:
    """One caller with one user, and the log."""
    load = Load(service.url, wechat, seed=seed, users=1)
    caller = load.caller()
    try:
        yield caller, load.people[0], load.calls
    finally:
        caller.close()


def events(service: Service) -> list[dict[str, Any]]:
    """The log so far."""
    lines = re.findall(r"^[0-9:]+ web\.1 +\| (\{.*\})$", service.output(), re.MULTILINE)
    return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Inside:
    """I6: the workers' pids, their open files and their resident memory in MB, all together."""

    pids: tuple[int, ...]
    files: int
    memory: float

    @classmethod
    def of(cls, service: Service) -> Self:
        pids = workers(service)
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return cls(pids, files, pages * 4096 / 1e6)


def workers(service: Service) -> tuple[int, ...]:
    """The pids of the processes that answer: the youngest generation below honcho."""
    pids = [service.process.pid]
    while below := [child for pid in pids for child in children(pid)]:
        pids = below
    return tuple(sorted(pids))


class Observed(Service):
    """The service with two workers, and what they were like before anything befell them."""

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
        """From here on: what they were like before."""
        self.before = Inside.of(self)


def bounds_of(cache: str) -> Bounds:
    """For a WXAUTH_CACHE_SIZE."""
    return CACHED if int(cache) else UNCACHED


def assert_clean(
    run: Run,
    fault: str,
    service: Observed,
    calls: Sequence[Call],
    bounds: Bounds = CACHED,
    *,
    witnesses: bool = True,
) -> None:
    """I1 to I7 hold in what was called; unless there are no `witnesses`, I1 was judged to the end."""
    found, tokens = violations(calls, bounds), judged(calls)
    run.figure(fault, "tokens whose last answer I1 judges", tokens, "more than 0" if witnesses else "")
    assert tokens or not witnesses
    run.figure(fault, f"violations of I1 to I5 in {len(calls)} calls", count(found), 0)
    assert {name: breaches[:3] for name, breaches in found.items() if breaches} == {}
    assert_back(run, fault, service)
    assert_silent(run, fault, service, calls)


def assert_back(run: Run, fault: str, service: Observed) -> None:
    """I6: the same processes, no more open files than pools of connections may keep, about the same memory."""
    now = Inside.of(service)
    files, memory = now.files - service.before.files, round(now.memory - service.before.memory, 1)
    run.figure(fault, "I6 open files, all workers", f"{files:+}", f"at most +{MORE_FILES}")
    run.figure(fault, "I6 memory, all workers (MB)", f"{memory:+}", f"at most +{MORE_MEMORY}")
    assert now.pids == service.before.pids
    assert files <= MORE_FILES
    assert memory <= MORE_MEMORY


def assert_silent(run: Run, fault: str, service: Observed, calls: Sequence[Call]) -> None:
    """I7: neither the log nor any process' arguments show a secret, a token, or who somebody is."""
    # What stands in a token between its tag and its signature: the part that makes it one.
    tokens = sorted({call.token_id[8:51] for call in calls if call.token_id})
    theirs = {*tokens[:: len(tokens) // TOKENS_LOOKED_FOR + 1], *(call.user for call in calls)}
    theirs |= {key for key, _ in service.wechat.fake._session_keys.values()}
    secrets = {"app secret": APP_SECRET, "ring key": RING_KEY}
    secrets |= {"redis password": service.redis_password} if service.redis_password else {}
    secrets |= {f"a user's own, {number}": secret for number, secret in enumerate(sorted(theirs))}
    found = hits(secrets, "the log", service.output().encode())
    found += [hit for text in arguments(service.process.pid) for hit in hits(secrets, "the arguments", text)]
    run.figure(fault, f"I7 {len(secrets)} secrets, found", len(found), 0)
    assert found == []


def within(calls: Sequence[Call], start: float, end: float) -> list[Call]:
    """The calls that began and ended then."""
    return [call for call in calls if start <= call.start and call.end <= end]


def begun(calls: Sequence[Call], start: float, end: float) -> list[Call]:
    """The calls that began then, however long they took."""
    return [call for call in calls if start <= call.start <= end]


def bar(run: Run, fault: str, name: str, value: float, limit: float, unit: str = "ms") -> None:
    """A promise about time: printed always, asserted in the full run alone, which has the machine to itself."""
    run.figure(fault, f"{name} ({unit})", value, f"at most {limit}")
    if FULL:
        assert value <= limit, f"{fault}, {name}: {value} {unit}, bar {limit}"


def slowest(calls: Sequence[Call]) -> float:
    return milliseconds(list(calls), 100)


def first_success(calls: Sequence[Call], since: float) -> float:
    """Seconds from `since` to the end of the first check that passed after it."""
    ends = [call.end for call in calls if call.start >= since and call.passed and call.operation == "check"]
    return round(min(ends, default=float("inf")) - since, 3)


def statuses(calls: Sequence[Call]) -> set[int | None]:
    return {call.status for call in calls}


def together(*jobs: Callable[[], object]) -> None:
    """All at once; what one raises is raised here."""
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
