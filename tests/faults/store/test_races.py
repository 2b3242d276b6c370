"""Two operations on one user at the same moment, on a real server: every order of events keeps the promises.

The full counts are divided into parts, so that several processes can share them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import redis

from tests.conftest import APPID, RING_KEY, SESSION_KEY
from tests.faults.conftest import Progress, Run
from tests.faults.support.rig import age_sessions, run_in_parallel, session_fields
from tests.support.servers import RedisServer
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.records import UserHash
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

PARTS = 4
BATCH = 100
MAX_SESSIONS = 3
IDLE = 604800
#: One job in 1,000 may get StoreUnavailable once: when the machine halts for a moment, the time budget is used up.
JOBS_PER_REFUSAL = 1000

in_parts = pytest.mark.parametrize("part", range(PARTS))


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


def new_store(server: RedisServer, ring: KeyRing, max_sessions: int = MAX_SESSIONS) -> SessionStore:
    policy = SessionPolicy(IDLE, 2592000, max_sessions)
    return SessionStore(RedisClient(connector(server.url, "verify")), ring, policy)


def identity(number: int) -> Identity:
    return Identity(User(APPID, f"o{number:027}"), Secret(SESSION_KEY), None)


class RetryOnce:
    """Repeat a job once after StoreUnavailable, as its action `retry` says, and count how often."""

    def __init__(self) -> None:
        self.jobs = 0
        self.refusals: list[str] = []

    def __call__(self, job: Callable[[], object]) -> Callable[[], object]:
        self.jobs += 1

        def attempt() -> object:
            try:
                return job()
            except StoreUnavailable as error:
                self.refusals.append(error.reason)
            return job()

        return attempt

    def judge(self, run: Run, fault: str) -> None:
        limit = max(self.jobs // JOBS_PER_REFUSAL, 1)
        reasons = f"{len(self.refusals)} {sorted(set(self.refusals))}"
        run.figure(fault, f"repeated, of {self.jobs} jobs", reasons, limit)
        assert len(self.refusals) <= limit, self.refusals


def in_step(jobs: Sequence[Callable[[], object]], barrier: threading.Barrier) -> None:
    """Run the jobs one after another, each at the same moment as the other threads at `barrier` run theirs."""
    for job in jobs:
        barrier.wait(30)
        with contextlib.suppress(TokenInvalid):
            job()


@in_parts
def test_touch_racing_logout_brings_no_session_back(
    run: Run, progress: Progress, server: RedisServer, admin: redis.Redis, ring: KeyRing, part: int
) -> None:
    """Each check records a use, because most of the idle time has passed. Nothing is left in Redis afterwards."""
    times, back, retry_once = run.of(400, 100_000) // PARTS, 0, RetryOnce()
    store = new_store(server, ring, max_sessions=BATCH + 1)
    for done in range(0, times, BATCH):
        logins = [store.create(identity(done + number)) for number in range(BATCH)]
        age_sessions(admin)
        barrier = threading.Barrier(2)
        checks = [retry_once(partial(store.resolve, token.reveal())) for token, _ in logins]
        logouts = [retry_once(partial(store.revoke, session)) for _, session in logins]
        run_in_parallel(partial(in_step, checks, barrier), partial(in_step, logouts, barrier))
        back += int(admin.dbsize())
        progress(f"touch racing logout: {done + BATCH} of {times}, sessions back: {back}")
    fault = f"touch racing logout, part {part + 1} of {PARTS}"
    run.figure(fault, f"sessions back, {times} times", back, 0)
    assert back == 0
    retry_once.judge(run, fault)


@in_parts
def test_login_racing_logout_everywhere_leaves_no_unlisted_session(
    run: Run, progress: Progress, server: RedisServer, admin: redis.Redis, ring: KeyRing, part: int
) -> None:
    """Two logins and a logout everywhere run at once. What Redis keeps afterwards is what the user's list shows."""
    times, unlisted, too_many, retry_once = run.of(100, 10_000) // PARTS, 0, 0, RetryOnce()
    store = new_store(server, ring)
    for number in range(times):
        alice = identity(number % 50)
        store.create(alice)
        log_in, end_all = retry_once(partial(store.create, alice)), retry_once(partial(store.end_all, alice.user))
        run_in_parallel(log_in, end_all, retry_once(partial(store.create, alice)))
        unlisted += len(unlisted_sessions(store, admin, ring, alice.user))
        too_many += len(store.sessions_of(alice.user)) > MAX_SESSIONS
        progress(f"login racing logout everywhere: {number + 1} of {times}, unlisted: {unlisted}")
    fault = f"login racing everywhere, part {part + 1} of {PARTS}"
    run.figure(fault, f"sessions that no list shows, {times} times", unlisted, 0)
    run.figure(fault, "users above the limit", too_many, 0)
    assert (unlisted, too_many) == (0, 0)
    retry_once.judge(run, fault)


@in_parts
def test_logins_at_once_keep_the_limit_of_sessions(
    run: Run, progress: Progress, server: RedisServer, admin: redis.Redis, ring: KeyRing, part: int
) -> None:
    """Two logins more than the limit run at once."""
    times, too_many, retry_once = run.of(32, 2_000) // PARTS, 0, RetryOnce()
    store = new_store(server, ring)
    sessions: list[WxSession] = []

    def log_in(alice: Identity) -> None:
        sessions.append(store.create(alice)[1])

    for number in range(times):
        alice = identity(1000 + number)
        run_in_parallel(*(retry_once(partial(log_in, alice)) for _ in range(MAX_SESSIONS + 2)))
        listed = store.sessions_of(alice.user)
        too_many += len(listed) > MAX_SESSIONS or bool(unlisted_sessions(store, admin, ring, alice.user))
        progress(f"logins at once: {number + 1} of {times}, above the limit: {too_many}")
    fault = f"logins at once, part {part + 1} of {PARTS}"
    run.figure(fault, f"users above the limit, {times} times", too_many, 0)
    assert too_many == 0
    assert len(sessions) == times * (MAX_SESSIONS + 2)
    retry_once.judge(run, fault)


def unlisted_sessions(store: SessionStore, admin: redis.Redis, ring: KeyRing, user: User) -> set[str]:
    """Return the ids that are in Redis or in the user's list, but not in both."""
    kept = session_fields(admin, UserHash.of(ring.newest, user).name)
    return {id.decode() for id in kept} ^ {entry.id for entry in store.sessions_of(user)}
