"""Scan logins and tickets under faults: races, a killed worker, a killed Redis, many open codes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import requests

from tests.faults.conftest import Run
from tests.faults.support.rig import assert_limit
from tests.faults.test_mutants import Change, Mutant, MutatedService
from tests.support.clients import CLIENT_SECRET
from tests.support.scans import DESK, GRANT_TYPE, PUBLIC_URL
from tests.support.servers import RedisServer, wait_until
from tests.support.service import Service, WeChatServer, environment

#: Seconds: the interval of a device code, and some more.
INTERVAL = 2.1
#: Errors after which a website polls again.
UNFINISHED = ["authorization_pending", "slow_down", "temporarily_unavailable"]
#: The outcomes of two phones: one has answered, and the other is told that the code is answered.
ONE_ANSWER = [204, 404]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
ANSWERED = "  if get('state') then return ok_if(get('answer') == ARGV[3]) end\n"
USED = "  if get('state') == 'approved' then redis.call('HSET', KEYS[1], 'state', 'used', 'taken', ARGV[3]) end\n"
#: The service without one of the checks that keep a code to one outcome.
MUTANTS = {
    "a code is answered twice": Mutant("", (Change("sessions/scripts/device_code.lua", ANSWERED, ""),)),
    "a code is never used": Mutant(
        "", (Change("sessions/scripts/device_code.lua", USED, "  redis.call('HSET', KEYS[1], 'taken', ARGV[3])\n"),)
    ),
}


class Site:
    """A website, and the phones of its users, at a running service."""

    def __init__(self, service: Service, wechat: WeChatServer) -> None:
        self._url = service.url
        self._wechat = wechat
        self._local = threading.local()

    def send(self, method: str, path: str, token: str = "", **more: Any) -> requests.Response:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        found: requests.Response = self._local.session.request(
            method, self._url + path, headers=headers, timeout=10, **more
        )
        return found

    def log_in(self, user: str) -> str:
        answer = self.send("POST", "/login", json={"code": self._wechat.fake.wx_login(user)})
        return str(answer.json()["token"])

    def try_to_ask(self) -> requests.Response:
        return self.send("POST", "/device_authorization", auth=(DESK, CLIENT_SECRET))

    def ask(self) -> tuple[str, str]:
        """Return a device_code and its user_code."""
        answer = self.try_to_ask()
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return body["device_code"], body["user_code"]

    def answer(self, user_code: str, phone: str, approve: bool = True) -> int:
        return self.send("POST", f"/device/{user_code}", phone, json={"approve": approve}).status_code

    def poll(self, device_code: str) -> tuple[int, str]:
        """Return the status, and the token or the error."""
        form = {"grant_type": GRANT_TYPE, "device_code": device_code}
        answer = self.send("POST", "/token", auth=(DESK, CLIENT_SECRET), data=form)
        body = answer.json()
        return answer.status_code, str(body.get("access_token") or body["error"])

    def openid(self, token: str) -> str:
        return str(self.send("GET", "/session", token).json()["openid"])

    def scans(self, phone: str) -> int:
        """Return how many sessions by scan the user of the phone has."""
        listed = self.send("GET", "/sessions", phone).json()["sessions"]
        return sum(row.get("device") == DESK for row in listed)


def scan_environment(redis_url: str, wechat: WeChatServer, **more: str) -> dict[str, str]:
    names = {
        "WEB_CONCURRENCY": "2",
        "WXAUTH_PUBLIC_URL": PUBLIC_URL,
        "WXAUTH_CLIENTS": f"{DESK}!scan:{CLIENT_SECRET}",
        "WXAUTH_CLIENT_RATE": "100000000/minute",
        "WXAUTH_MAX_SESSIONS": "1000",
    }
    return environment(redis_url, wechat.url, **names, **more)


@contextlib.contextmanager
def started(service: Service) -> Iterator[Service]:
    with service:
        wait_until(lambda: service.output().count("Started worker") == 2, "the workers")
        yield service


@pytest.fixture(scope="module")
def site(wechat: WeChatServer) -> Iterator[Site]:
    """A website at a service with two workers."""
    with RedisServer() as redis, started(Service(scan_environment(redis.url, wechat))) as service:
        yield Site(service, wechat)


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs in threads that start together. Return their results in order."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def race_answers(site: Site, times: int, second: bool) -> list[tuple[list[int], bool]]:
    """Let two users answer each code at the same moment, the second with `second`.

    Return for each code the statuses, and whether the poll that follows agrees with the phone that got 204.
    """
    phones, found = [site.log_in("alice"), site.log_in("bob")], []
    openids = [site.openid(phone) for phone in phones]
    for _ in range(times):
        device_code, user_code = site.ask()
        answers = [partial(site.answer, user_code, phones[0]), partial(site.answer, user_code, phones[1], second)]
        statuses = at_once(*answers)
        status, text = site.poll(device_code)
        winner = statuses.index(204)
        expected = (200, openids[winner]) if winner == 0 or second else (400, "access_denied")
        found.append((sorted(statuses), (status, site.openid(text) if status == 200 else text) == expected))
    return found


@pytest.mark.parametrize("second", [False, True], ids=["approval racing denial", "two phones approving"])
def test_answers_at_once_have_one_outcome(run: Run, site: Site, second: bool) -> None:
    times = run.of(20, 2_000)
    found = race_answers(site, times, second)
    wrong = [row for row in found if row != (ONE_ANSWER, True)]
    run.figure("answers at once", f"codes with two outcomes, of {times}", len(wrong), 0)
    assert wrong == []


def race_polls(site: Site, times: int) -> list[int]:
    """Approve each code while it is polled, then poll it until it is used. Return how many tokens each code gave."""
    phone, few_at_once = site.log_in("carol"), threading.Semaphore(4)

    def tokens(number: int) -> int:
        delay = partial(time.sleep, number % 10 * 0.002)
        with few_at_once:
            device_code, user_code = site.ask()
            polls = [partial(site.poll, device_code)] * 3
            *found, answered = at_once(*polls, lambda: (delay(), site.answer(user_code, phone))[1])
        assert answered == 204
        for _ in range(2):
            found += polled_on(site, device_code, found)
        return len([text for status, text in found if status == 200])

    with ThreadPoolExecutor(200) as pool:  # nearly all of them sleep
        return list(pool.map(tokens, range(times)))


def polled_on(site: Site, device_code: str, before: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Poll at the interval until the answer is final, as RFC 8628 says, and return what the polls found."""
    found: list[tuple[int, str]] = []
    while not found or found[-1][1] in UNFINISHED:
        # Each poll that was too soon adds 5 s to the interval.
        time.sleep(INTERVAL + 5 * [text for _, text in before + found].count("slow_down"))
        found.append(site.poll(device_code))
    return found


def test_polls_racing_the_approval_give_one_token(run: Run, site: Site) -> None:
    times = run.of(40, 2_000)
    found = race_polls(site, times)
    run.figure("polls racing approval", f"codes without exactly one token, of {times}", times - found.count(1), 0)
    assert found == [1] * times


#: Ends the worker once: before its session is made, or between the session and the use of the code.
KILL = """\
        import pathlib, os
        flag = pathlib.Path({flag!r})
        if flag.exists():
            flag.unlink()
            os.kill(os.getpid(), 9)
"""
BEFORE_SESSION = '        user = _open(key, code.hash_tag, "user", more[0], InvalidGrant)\n'
BEFORE_USE = '        if not self._does(code.hash_tag, "take"):\n'


@pytest.mark.parametrize("place", [BEFORE_SESSION, BEFORE_USE], ids=["before the session", "before the use"])
def test_worker_killed_between_approval_and_token_loses_no_login(
    run: Run, wechat: WeChatServer, tmp_path: Path, place: str
) -> None:
    """The next poll gives the token, and there is one session."""
    flag = tmp_path / "kill"
    change = Change("sessions/device_codes.py", place, f"{KILL.format(flag=str(flag))}{place}")
    with RedisServer() as redis:
        environ = scan_environment(redis.url, wechat)
        with started(MutatedService(environ, tmp_path / "copy", Mutant("", (change,)))) as service:
            site = Site(service, wechat)
            phone = site.log_in("dave")
            device_code, user_code = site.ask()
            assert site.answer(user_code, phone) == 204
            flag.touch()
            with pytest.raises(requests.ConnectionError):
                site.poll(device_code)
            assert not flag.exists()
            wait_until(lambda: service.output().count("Started worker") == 3, "the next worker")
            time.sleep(INTERVAL)
            status, token = site.poll(device_code)
            assert (status, site.openid(token), site.scans(phone)) == (200, site.openid(phone), 1)
            time.sleep(INTERVAL)
            assert site.poll(device_code) == (400, "invalid_grant")
            run.figure("a worker killed in a poll", "tokens of the code", 1, 1)


def test_redis_killed_in_each_step_uses_nothing(run: Run, wechat: WeChatServer) -> None:
    """Each step is tried while Redis is dead, and again when it is back."""
    with RedisServer(*DURABLE) as redis, started(Service(scan_environment(redis.url, wechat))) as service:
        site = Site(service, wechat)
        phone = site.log_in("erin")

        def in_the_dark(step: Callable[[], Any]) -> Any:
            redis.process.kill()
            redis.process.wait()
            found = step()
            redis.start()
            wait_until(lambda: service_is_ready(site), "Redis")
            return found

        assert in_the_dark(site.try_to_ask).status_code == 503
        device_code, user_code = site.ask()
        path = f"/device/{user_code}"
        assert in_the_dark(lambda: site.send("GET", path, phone)).status_code == 503
        assert in_the_dark(lambda: site.send("GET", f"{path}.png")).status_code == 503
        assert in_the_dark(partial(site.answer, user_code, phone)) == 503
        assert site.send("GET", path, phone).status_code == 200
        assert site.answer(user_code, phone) == 204
        assert in_the_dark(partial(site.poll, device_code)) == (503, "temporarily_unavailable")
        status, token = site.poll(device_code)
        assert (status, site.openid(token), site.scans(phone)) == (200, site.openid(phone), 1)
        assert in_the_dark(lambda: site.send("POST", "/ticket", phone)).status_code == 503
        ticket = {"ticket": site.send("POST", "/ticket", phone).json()["ticket"]}
        assert in_the_dark(lambda: site.send("POST", "/login", json=ticket)).status_code == 503
        page = site.send("POST", "/login", json=ticket)
        assert page.status_code == 200
        assert site.openid(page.json()["token"]) == site.openid(phone)
        run.figure("Redis killed in each step", "steps that were used in the dark", 0, 0)


def service_is_ready(site: Site) -> bool:
    """Ask often enough that each worker's breaker has closed."""
    return all(site.send("GET", "/readyz").ok for _ in range(6)) and site.send("GET", "/session").status_code == 401


def test_many_open_codes_take_little_memory_and_no_time(run: Run, wechat: WeChatServer) -> None:
    """10,000 are 7 MB; a request takes as long as with none."""
    count = run.of(400, 10_000)
    with RedisServer() as redis, redis.client() as db:
        with started(Service(scan_environment(redis.url, wechat))) as service:
            site = Site(service, wechat)
            phone = site.log_in("frank")
            alone = way(site, phone)
            with ThreadPoolExecutor(8) as pool:
                statuses = list(pool.map(lambda _: site.try_to_ask().status_code, range(count)))
            among = way(site, phone)
        names = cast(list[bytes], db.keys("wxa:d:*"))
        size = sum(cast(int, db.memory_usage(name)) for name in names) / len(names)
    assert set(statuses) == {200}
    assert len(names) >= count
    fault = f"{count} open codes"
    run.figure(fault, "bytes of Redis for each", round(size), "at most 700")
    assert size <= 700
    run.figure(fault, "ask, show, answer and poll (ms)", f"{alone} before", f"{among} after")
    assert_limit(run, fault, "longer by", round(among - alone, 1), 20)


def way(site: Site, phone: str) -> float:
    """Return the milliseconds of the whole way, the best of five."""
    took = []
    for _ in range(5):
        start = time.monotonic()
        device_code, user_code = site.ask()
        site.send("GET", f"/device/{user_code}", phone)
        site.answer(user_code, phone)
        site.poll(device_code)
        took.append((time.monotonic() - start) * 1000)
    return round(min(took), 1)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_mutant_gives_a_code_two_outcomes(run: Run, wechat: WeChatServer, tmp_path: Path, mutant: Mutant) -> None:
    """The checks above see it."""
    with RedisServer() as redis:
        environ = scan_environment(redis.url, wechat)
        with started(MutatedService(environ, tmp_path / "copy", mutant)) as service:
            site = Site(service, wechat)
            if ANSWERED in mutant.changes[0].old:
                red = sum(row != (ONE_ANSWER, True) for row in race_answers(site, 40, False))
            else:
                red = sum(tokens != 1 for tokens in race_polls(site, 2))
    run.figure("mutants", "codes with two outcomes", red, "more than 0")
    assert red > 0
