"""Two that want opposite things of one user at the same moment, on a real server: no order of events is a bad one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import pytest
import redis

from tests.conftest import APPID, RING_KEY, SESSION_KEY
from tests.faults.conftest import Progress, Run
from tests.faults.support.rig import run_in_parallel
from tests.servers import RedisServer
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.records import Shelf, record_name
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

BATCH = 100
CAP = 3
IDLE = 604800
#: Jobs of which one may be told once that the store can't be asked: a machine that stands still uses up the budget.
JOBS_A_REFUSAL = 1000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([Secret(RING_KEY)])


def store(server: RedisServer, ring: KeyRing, cap: int) -> SessionStore:
    return SessionStore(RedisClient(connector(server.url, "verify")), ring, SessionPolicy(IDLE, 2592000, cap))


def someone(number: int) -> Identity:
    return Identity(User(APPID, f"o{number:027}"), Secret(SESSION_KEY), None)


class RetryOnce:
    """Makes jobs do as the answer to StoreUnavailable says, once: ask again."""

    def __init__(self) -> None:
        self.jobs = 0
        self.refusals: list[str] = []

    def __call__(self, job: Callable[[], object]) -> Callable[[], object]:
        self.jobs += 1

        def insist() -> object:
            try:
                return job()
            except StoreUnavailable as error:
                self.refusals.append(error.reason)
            return job()

        return insist

    def judge(self, run: Run, fault: str) -> None:
        most = max(self.jobs // JOBS_A_REFUSAL, 1)
        run.figure(
            fault, f"asked again, of {self.jobs} jobs", f"{len(self.refusals)} {sorted(set(self.refusals))}", most
        )
        assert len(self.refusals) <= most, self.refusals


def in_step(jobs: Sequence[Callable[[], object]], barrier: threading.Barrier) -> None:
    """One job after the other, each at the same moment as that of the others who hold the barrier."""
    for job in jobs:
        barrier.wait(30)
        with contextlib.suppress(TokenInvalid):
            job()


def test_refresh_racing_logout(
    run: Run, request: pytest.FixtureRequest, server: RedisServer, admin: redis.Redis, ring: KeyRing
) -> None:
    """A use that is being recorded while its session ends brings nothing back."""
    progress, times, back = Progress(request), run.of(400, 100_000), 0
    retry_once = RetryOnce()
    ours = store(server, ring, cap=BATCH + 1)
    for done in range(0, times, BATCH):
        logins = [ours.create(someone(done + number)) for number in range(BATCH)]
        names = [name_of(ring, token) for token, _ in logins]
        with admin.pipeline(transaction=False) as pipeline:
            for name in names:
                # So much of its idle life is gone that any use is recorded.
                pipeline.expire(name, 1000)
            pipeline.execute()
        barrier = threading.Barrier(2)
        refreshes = [retry_once(partial(ours.resolve, token.reveal())) for token, _ in logins]
        logouts = [retry_once(partial(ours.revoke, session)) for _, session in logins]
        run_in_parallel(partial(in_step, refreshes, barrier), partial(in_step, logouts, barrier))
        back += int(admin.exists(*names))
        progress(f"refresh racing logout: {done + BATCH} of {times}, back from the dead: {back}")
    run.figure("refresh racing logout", f"sessions back from the dead, {times} times", back, 0)
    assert back == 0
    retry_once.judge(run, "refresh racing logout")


def name_of(ring: KeyRing, token: Secret) -> str:
    found = ring.verify(token.reveal())
    return record_name(found.tag, found.id)


def test_login_racing_logout_everywhere(
    run: Run, request: pytest.FixtureRequest, server: RedisServer, admin: redis.Redis, ring: KeyRing
) -> None:
    """Whatever is left is in the user's list, and what is in the list is there."""
    progress, times, unlisted, over = Progress(request), run.of(100, 10_000), 0, 0
    retry_once = RetryOnce()
    ours = store(server, ring, CAP)
    for number in range(times):
        alice = someone(number % 50)
        ours.create(alice)
        log_in, end_all = retry_once(partial(ours.create, alice)), retry_once(partial(ours.end_all, alice.user))
        run_in_parallel(log_in, end_all, retry_once(partial(ours.create, alice)))
        unlisted += len(strays(ours, admin, ring, alice.user))
        over += len(ours.sessions_of(alice.user)) > CAP
        progress(f"login racing logout-everywhere: {number + 1} of {times}, alive but not listed: {unlisted}")
    run.figure("login racing everywhere", f"sessions that no list shows, {times} times", unlisted, 0)
    run.figure("login racing everywhere", "users above the cap", over, 0)
    assert (unlisted, over) == (0, 0)
    retry_once.judge(run, "login racing everywhere")


def strays(ours: SessionStore, admin: redis.Redis, ring: KeyRing, user: User) -> set[str]:
    """Records without an entry, and entries without a record."""
    tag = ring.newest.tag(user)
    records = {key.decode().rpartition(":")[2] for key in admin.scan_iter(f"wxa:{{{tag}}}:s:*", count=10_000)}
    shelf = Shelf.of(ring.newest, user)
    return records ^ shelf.ids(cast(dict[bytes, bytes], admin.hgetall(shelf.hash)))


def test_logins_at_once_keep_the_cap(
    run: Run, request: pytest.FixtureRequest, server: RedisServer, admin: redis.Redis, ring: KeyRing
) -> None:
    """However many phones log in at the same moment."""
    progress, times, over = Progress(request), run.of(30, 2_000), 0
    retry_once = RetryOnce()
    ours = store(server, ring, CAP)
    sessions: list[WxSession] = []
    for number in range(times):
        alice = someone(1000 + number)
        log_in = partial(lambda who: sessions.append(ours.create(who)[1]), alice)
        run_in_parallel(*(retry_once(log_in) for _ in range(CAP + 2)))
        over += len(ours.sessions_of(alice.user)) > CAP or bool(strays(ours, admin, ring, alice.user))
        progress(f"logins at once: {number + 1} of {times}, above the cap: {over}")
    run.figure("logins at once", f"users above the cap, {times} times", over, 0)
    assert over == 0
    assert len(sessions) == times * (CAP + 2)
    retry_once.judge(run, "logins at once")
