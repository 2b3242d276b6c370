"""What the faults of the store share: the service over a Redis that is about to break, and looks at its inside."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import FULL, Run
from tests.faults.driver import Caller, Load, Person, milliseconds
from tests.faults.history import Bounds, Call, count, judged, violations
from tests.servers import wait_until
from tests.service import Service, WeChatServer, environment

#: More than any run makes, so that the checker need not ask whether a session was the oldest of too many.
UNCACHED = Bounds(max_sessions=1000)
#: What SECURITY.md states for sessions that are kept at hand.
CACHED = Bounds(max_sessions=1000, stale=3)


@contextmanager
def serving(redis_url: str, wechat: WeChatServer, **more: str) -> Iterator[Service]:
    """The service with its two workers."""
    settings = {"WEB_CONCURRENCY": "2", "WXAUTH_MAX_SESSIONS": "1000", "WXAUTH_LOGIN_RATE": "1000000/second", **more}
    with Service(environment(redis_url, wechat.url, **settings)) as service:
        wait_until(lambda: service.output().count("Started worker") == 2, "two workers")
        yield service


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


def workers(service: Service) -> list[int]:
    """The pids of the processes that answer: the youngest generation below honcho."""
    pids = [service.process.pid]
    while below := [child for pid in pids for child in _children(pid)]:
        pids = below
    return sorted(pids)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def open_files(service: Service) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in workers(service))


def megabytes(service: Service) -> float:
    """The resident memory of all workers."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in workers(service))
    return round(pages * 4096 / 1e6, 1)


class Inside:
    """I6: the workers before and after a fault."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.pids = workers(service)
        self.files = open_files(service)
        self.memory = megabytes(service)

    def assert_back(self, run: Run, fault: str, files: int = 40, memory: float = 40) -> None:
        """The same processes, no more open files than the pools of connections may keep, about the same memory."""
        more_files = open_files(self._service) - self.files
        more_memory = round(megabytes(self._service) - self.memory, 1)
        run.figure(fault, "I6 open files, all workers", f"{more_files:+}", f"at most +{files}")
        run.figure(fault, "I6 memory, all workers (MB)", f"{more_memory:+}", f"at most +{memory}")
        assert workers(self._service) == self.pids
        assert more_files <= files
        assert more_memory <= memory


def bounds_of(cache: str) -> Bounds:
    """For a WXAUTH_CACHE_SIZE."""
    return CACHED if int(cache) else UNCACHED


def assert_clean(
    run: Run, fault: str, calls: Sequence[Call], bounds: Bounds = CACHED, *, witnesses: bool = True
) -> None:
    """I1 to I5: no violation in what was called; unless there are no `witnesses`, I1 was judged to the end."""
    found, tokens = violations(calls, bounds), judged(calls)
    run.figure(fault, "tokens whose last answer I1 judges", tokens, "more than 0" if witnesses else "")
    assert tokens or not witnesses
    run.figure(fault, f"violations of I1 to I5 in {len(calls)} calls", count(found), 0)
    assert {name: breaches[:3] for name, breaches in found.items() if breaches} == {}


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


class Progress:
    """Lines on the terminal while a long run goes on; none in a small one."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter") if FULL else None
        self._capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
        self._said_at = 0.0

    def __call__(self, text: str) -> None:
        if self._reporter and time.monotonic() - self._said_at > 2:
            self._said_at = time.monotonic()
            with self._capture.global_and_fixture_disabled():
                self._reporter.write_line(f"  … {text}")
