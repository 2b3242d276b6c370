"""The cache and the revocation feed, over a real Redis; a worker is a store that knows nothing of the others."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.conftest import ALICE, RING_KEY
from tests.faults.relay import Relay
from tests.servers import RedisServer, wait_until
from wxauth.clock import Clock
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.metrics import CHECKS
from wxauth.models import Identity, Secret
from wxauth.sessions.cache import BELIEVED_FOR, SessionCache
from wxauth.sessions.revocations import RevocationListener
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import AnyClient, connector

#: Seconds that `SECURITY.md` promises for a cut network.
BOUND = 3.0
LIMITS = SessionPolicy(idle_ttl=604800, max_ttl=2592000, max_sessions=3)


@pytest.fixture
def raw_redis(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        client.flushall()
        yield client


class Worker:
    """A store with its cache, as a worker process has them; `asked` counts what Redis was asked to read."""

    def __init__(self, url: str, clock: Callable[[], float], size: int = 10) -> None:
        self.asked = 0
        self.redis = CountingRedis(connector(url, "verify"), self)
        self.store = SessionStore(self.redis, KeyRing([Secret(RING_KEY)]), LIMITS, clock)
        self.feed = RevocationListener(self.redis)
        self.cache = SessionCache(self.store, self.feed, size)

    def warm(self, token: str) -> WxSession:
        """Resolve until the answer comes from the cache."""

        def from_cache() -> bool:
            before = self.asked
            self.cache.resolve(token)
            return self.asked == before

        wait_until(from_cache, "the cache answers")
        return self.cache.resolve(token)


class CountingRedis(RedisClient):
    def __init__(self, connect: Callable[[], AnyClient], worker: Worker) -> None:
        super().__init__(connect)
        self._worker = worker

    def read(self, key: str) -> tuple[bytes, float] | None:
        self._worker.asked += 1
        return super().read(key)


@pytest.fixture
def worker(redis_server: RedisServer, raw_redis: redis.Redis, clock: Clock) -> Worker:
    return Worker(redis_server.url, clock)


@pytest.fixture
def other(redis_server: RedisServer, clock: Clock) -> Worker:
    return Worker(redis_server.url, clock)


@pytest.fixture
def token(worker: Worker, alice: Identity) -> str:
    return worker.store.create(alice)[0].reveal()


def is_alive(worker: Worker, token: str) -> bool:
    try:
        worker.cache.resolve(token)
    except TokenInvalid:
        return False
    return True


def test_a_session_at_hand_is_the_session(worker: Worker, token: str) -> None:
    """The cache answers what the store would."""
    assert worker.warm(token) == worker.store.resolve(token)


def test_a_logout_holds_at_once_on_the_worker_that_did_it(worker: Worker, token: str) -> None:
    """Without waiting for the feed."""
    worker.store.revoke(worker.warm(token))
    assert not is_alive(worker, token)


ENDS: dict[str, Callable[[SessionStore, WxSession], None]] = {
    "logout": lambda store, session: store.revoke(session),
    "by id": lambda store, session: store.end(session.user, session.id),
    "everywhere": lambda store, session: store.end_all(session.user),
    "ban": lambda store, session: store.ban(session.user),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_an_end_is_heard_by_the_others(
    worker: Worker, other: Worker, token: str, end: Callable[[SessionStore, WxSession], None]
) -> None:
    """However a session ends, a worker that had it at hand hears of it."""
    session = other.warm(token)
    end(worker.store, session)
    wait_until(lambda: not is_alive(other, token), "the other worker hears of it", BELIEVED_FOR / 2)


def test_an_eviction_is_heard_by_the_others(worker: Worker, other: Worker, token: str, alice: Identity) -> None:
    """The cap ends sessions too."""
    other.warm(token)
    for _ in range(LIMITS.max_sessions):
        worker.store.create(alice)
    wait_until(lambda: not is_alive(other, token), "the other worker hears of it", BELIEVED_FOR / 2)


def test_a_dead_token_is_never_kept(worker: Worker, token: str) -> None:
    """What was refused is asked for each time."""
    worker.store.revoke(worker.cache.resolve(token))
    before = worker.asked
    assert [is_alive(worker, token) for _ in range(3)] == [False] * 3
    assert worker.asked == before + 3


def test_idle_life_ends_in_the_cache_too(worker: Worker, token: str, clock: Clock) -> None:
    """Nothing outlives its time for being at hand."""
    worker.warm(token)
    clock.advance(604801)
    assert not is_alive(worker, token)


def test_use_at_hand_keeps_a_session_from_idling_out(worker: Worker, token: str, clock: Clock) -> None:
    """A use that is due to be recorded goes to Redis."""
    for _ in range(3):
        worker.warm(token)
        clock.advance(400000)
    assert is_alive(worker, token)


def test_the_least_recently_used_goes_first(redis_server: RedisServer, worker: Worker, clock: Clock) -> None:
    """No more than `size` are kept."""
    small = Worker(redis_server.url, clock, size=2)
    tokens = [small.store.create(Identity(ALICE, Secret("k")))[0].reveal() for _ in range(3)]
    for token in tokens[:2]:
        small.warm(token)
    small.cache.resolve(tokens[0])
    small.warm(tokens[2])
    before = small.asked
    small.cache.resolve(tokens[0])
    assert small.asked == before
    small.cache.resolve(tokens[1])
    assert small.asked == before + 1


def test_a_cache_of_no_size_keeps_nothing(redis_server: RedisServer, token: str, clock: Clock) -> None:
    """0 turns it off, thread and all."""
    off = Worker(redis_server.url, clock, size=0)
    for _ in range(3):
        off.cache.resolve(token)
    assert (off.asked, off.feed.last_heartbeat) == (3, float("-inf"))


def test_a_read_that_raced_a_revocation_is_not_kept(worker: Worker, other: Worker, token: str) -> None:
    """The record was read before the logout and answered after it: the answer stands, but is not kept."""
    session = worker.warm(token)
    # So that it is read once more; that it has ended is for the feed alone to tell.
    worker.cache.clear()
    worker.store.load = revoked_meanwhile(worker, other, session)  # type: ignore[method-assign]
    worker.cache.resolve(token)
    del worker.store.load
    assert not is_alive(worker, token)


def revoked_meanwhile(worker: Worker, other: Worker, session: WxSession) -> Callable[..., tuple[WxSession, float]]:
    """A look-up in the midst of which another worker ends the session."""

    def load(text: str, *, touch: bool = True) -> tuple[WxSession, float]:
        found = SessionStore.load(worker.store, text, touch=touch)
        other.store.revoke(session)
        wait_until(lambda: session.id in worker.cache._ended, "the feed has told of it")
        return found

    return load


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    with Relay(redis_server.port) as relay:
        yield relay


@pytest.fixture
def far(relay: Relay, clock: Clock) -> Worker:
    """A worker whose way to Redis can be cut."""
    return Worker(f"redis://127.0.0.1:{relay.port}/0", clock)


def test_a_silent_feed_is_not_believed(far: Worker, relay: Relay, worker: Worker, token: str) -> None:
    """Across a network that swallows everything, a revoked token passes no longer than the bound."""
    session = far.warm(token)
    relay.stalled = True
    worker.store.revoke(session)
    ended_at = time.monotonic()
    while time.monotonic() < ended_at + BOUND:
        try:
            far.cache.resolve(token)
        except StoreUnavailable:
            break
    assert time.monotonic() - ended_at < BOUND


def test_a_feed_that_was_cut_begins_with_an_empty_cache(
    far: Worker, relay: Relay, worker: Worker, token: str
) -> None:
    """What was ended while nobody listened is not believed once the feed is back."""
    session = far.warm(token)
    run = far.feed.run
    relay.refuse()
    relay.cut()
    worker.store.revoke(session)
    wait_until(lambda: far.feed.run > run, "the feed has noticed")
    relay.accept()
    wait_until(lambda: far.feed.last_heartbeat > time.monotonic() - 1, "the feed is back")
    wait_until(lambda: not is_alive_or_unknown(far, token), "the token is refused")


def is_alive_or_unknown(worker: Worker, token: str) -> bool:
    try:
        return is_alive(worker, token)
    except StoreUnavailable:
        return True


def test_a_forked_worker_listens_for_itself(worker: Worker, other: Worker, token: str) -> None:
    """A child has neither its parent's cache nor its parent's feed, and hears of a logout all the same."""
    session = worker.warm(token)
    reader, writer = os.pipe()
    # Another thread of the parent may be in the midst of anything.
    for lock in (worker.redis.nodes._lock, worker.redis.nodes._refreshing, worker.cache._lock):
        lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1" if hears_of_the_end(worker, token) else b"0")
        os._exit(0)
    for lock in (worker.redis.nodes._lock, worker.redis.nodes._refreshing, worker.cache._lock):
        lock.release()
    time.sleep(1)
    other.store.revoke(session)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)


def hears_of_the_end(worker: Worker, token: str) -> bool:
    try:
        worker.warm(token)
        wait_until(lambda: not is_alive(worker, token), "the child hears of it", 5)
    except (TimeoutError, TokenInvalid):
        return False
    return True


def test_what_redis_has_no_more_is_not_kept(worker: Worker, raw_redis: redis.Redis, token: str, clock: Clock) -> None:
    """Removed by hand, so that nobody was told: once one request has learnt it, no other believes it is there."""
    worker.warm(token)
    raw_redis.flushall()
    clock.advance(LIMITS.touch_after + 1)
    assert is_alive_untouched(worker, token)
    assert not is_alive(worker, token)
    assert not is_alive_untouched(worker, token)


def is_alive_untouched(worker: Worker, token: str) -> bool:
    try:
        worker.cache.resolve(token, touch=False)
    except TokenInvalid:
        return False
    return True


def hits() -> float:
    count: float = CHECKS.labels("ok", "cache")._value.get()
    return count


def test_every_hit_is_counted(worker: Worker, token: str) -> None:
    """Not at once, for that would cost more than the hit, but by the time that the feed is heard next."""
    worker.warm(token)
    worker.cache.on_revoked([])
    before = hits()
    threads = [threading.Thread(target=lambda: [worker.cache.resolve(token) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: hits() == before + 2000, "the feed is heard")


def test_a_feed_ends_with_its_cache(redis_server: RedisServer, raw_redis: redis.Redis, clock: Clock) -> None:
    """An application that is dropped leaves no thread and no connection behind."""
    before = set(threading.enumerate())
    client = RedisClient(connector(redis_server.url, "verify"))
    store = SessionStore(client, KeyRing([Secret(RING_KEY)]), LIMITS, clock)
    cache = SessionCache(store, RevocationListener(client), 10)
    cache.resolve(store.create(Identity(ALICE, Secret("k")))[0].reveal())
    (thread,) = set(threading.enumerate()) - before
    del store, cache
    gc.collect()
    wait_until(lambda: not thread.is_alive(), "the feed has ended")


def test_the_cache_prints_no_token(worker: Worker, token: str) -> None:
    """Neither it nor what it keeps."""
    session = worker.warm(token)
    assert token not in repr(worker.cache) + repr(worker.cache._kept[token]) + repr(session)
    assert session.openid not in repr(session)


def test_a_feed_that_may_not_listen_says_so_once(
    raw_redis: redis.Redis, redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """All else works, so nothing else would tell why the cache stays empty."""
    rights = ("~wxa:*", "&*", "+@all", "-subscribe")
    raw_redis.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", *rights)  # type: ignore[no-untyped-call]
    deaf = Worker(f"redis://deaf:pw@127.0.0.1:{redis_server.port}/0", clock)
    token = deaf.store.create(Identity(ALICE, Secret("k")))[0].reveal()
    deaf.cache.resolve(token)
    wait_until(lambda: deaf.feed.run > 2, "three attempts")
    said = [vars(record)["reason"] for record in caplog.records if record.message == "feed_interrupted"]
    assert said == ["noperm"]
