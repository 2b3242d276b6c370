"""The cache and the revocation channel over a real Redis. Each worker has a store of its own."""

from __future__ import annotations

import dataclasses
import gc
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import redis

from tests.conftest import ALICE, RING_KEY
from tests.faults.support.relay import Relay
from tests.support.servers import RedisServer, wait_until
from wxauth.clock import Clock
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.metrics import CHECKS
from wxauth.models import Identity, Secret
from wxauth.sessions.cache import MAX_HEARTBEAT_AGE, SessionCache
from wxauth.sessions.revocations import RETRY_PAUSE, RevocationListener
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.settings import Settings
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import AnyClient, connector
from wxauth.web.services import Services

#: Seconds that `SECURITY.md` promises for a cut network.
BOUND = 3.0
POLICY = SessionPolicy(idle_ttl=604800, max_ttl=2592000, max_sessions=3)


@pytest.fixture
def raw_redis(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        client.flushall()
        yield client


class Worker:
    """A store with its cache, as in a worker process. `asked` counts the reads."""

    def __init__(self, url: str, clock: Clock, size: int = 10) -> None:
        self.asked = 0
        self.redis = CountingRedis(connector(url, "verify"), self)
        self.store = SessionStore(self.redis, KeyRing([Secret(RING_KEY)]), POLICY, clock)
        self.listener = RevocationListener(self.redis)
        self.cache = SessionCache(self.store, self.listener, size)

    def warm(self, token: str) -> WxSession:
        """Resolve until the answer comes from the cache."""

        def answered_from_cache() -> bool:
            before = self.asked
            self.cache.resolve(token)
            return self.asked == before

        wait_until(answered_from_cache, "the cache answers")
        return self.cache.resolve(token)


class CountingRedis(RedisClient):
    def __init__(self, connect: Callable[[], AnyClient], worker: Worker) -> None:
        super().__init__(connect)
        self._worker = worker

    def ask(self, key: str, *command: Any, **options: Any) -> Any:
        self._worker.asked += command[0] == "HMGET"
        return super().ask(key, *command, **options)


class AlwaysAlive:
    """A revocation channel that is heard."""

    last_heartbeat = float("inf")

    def start(self, _: object) -> None:
        pass

    def reset(self) -> None:
        pass


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


def test_cached_session_equals_the_stored_one(worker: Worker, token: str) -> None:
    assert worker.warm(token) == worker.store.resolve(token)


def test_revoke_evicts_at_once_on_the_same_worker(worker: Worker, token: str) -> None:
    worker.store.revoke(worker.warm(token))
    assert not is_alive(worker, token)


def test_logout_evicts_a_session_with_a_damaged_login_time(
    worker: Worker, other: Worker, token: str, raw_redis: redis.Redis
) -> None:
    """A check does not look at the login time, so the session may be in a cache."""
    session = worker.warm(token)
    (name,) = cast(list[bytes], raw_redis.keys("wxa:{*}"))
    value = cast(bytes, raw_redis.hget(name, session.id))
    raw_redis.hset(name, session.id, value[:8] + b"\xff" * 8 + value[16:])
    other.store.end_all(session.user)
    wait_until(lambda: not is_alive(worker, token), "evicted")


def test_revocation_channel_is_none_of_the_pools_connections(worker: Worker, token: str) -> None:
    worker.warm(token)
    ((_, pool),) = worker.redis.pools()
    taken = [pool.get_connection() for _ in range(pool.max_connections)]
    for connection in taken:
        pool.release(connection)
    assert worker.listener.last_heartbeat > 0


ENDS: dict[str, Callable[[SessionStore, WxSession], None]] = {
    "logout": lambda store, session: store.revoke(session),
    "by id": lambda store, session: store.end(session.user, session.id),
    "everywhere": lambda store, session: store.end_all(session.user),
    "ban": lambda store, session: store.ban(session.user),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_end_of_a_session_evicts_it_on_other_workers(
    worker: Worker, other: Worker, token: str, end: Callable[[SessionStore, WxSession], None]
) -> None:
    session = other.warm(token)
    end(worker.store, session)
    wait_until(lambda: not is_alive(other, token), "the other worker evicts it", MAX_HEARTBEAT_AGE / 2)


def test_session_above_the_limit_is_evicted_elsewhere(
    worker: Worker, other: Worker, token: str, alice: Identity
) -> None:
    other.warm(token)
    for _ in range(POLICY.max_sessions):
        worker.store.create(alice)
    wait_until(lambda: not is_alive(other, token), "the other worker evicts it", MAX_HEARTBEAT_AGE / 2)


def test_refused_token_is_not_cached(worker: Worker, token: str) -> None:
    worker.store.revoke(worker.cache.resolve(token))
    before = worker.asked
    assert [is_alive(worker, token) for _ in range(3)] == [False] * 3
    # Each check asks twice: a reply that came with those to other threads never refuses a token.
    assert worker.asked == before + 6


def test_cached_session_expires_after_its_idle_life(worker: Worker, token: str, clock: Clock) -> None:
    worker.warm(token)
    clock.advance(604801)
    assert not is_alive(worker, token)


def test_use_of_a_cached_session_prolongs_its_idle_life(worker: Worker, token: str, clock: Clock) -> None:
    for _ in range(3):
        worker.warm(token)
        clock.advance(400000)
    assert is_alive(worker, token)


def test_full_cache_evicts_what_was_read_first(redis_server: RedisServer, worker: Worker, clock: Clock) -> None:
    small = Worker(redis_server.url, clock, size=2)
    tokens = [small.store.create(Identity(ALICE, Secret("k")))[0].reveal() for _ in range(3)]
    for token in tokens:
        small.warm(token)
    before = small.asked
    small.cache.resolve(tokens[1])
    assert small.asked == before
    small.cache.resolve(tokens[0])
    assert small.asked == before + 1


def test_session_that_is_read_again_stays_longest_in_a_full_cache(
    redis_server: RedisServer, worker: Worker, clock: Clock
) -> None:
    small = Worker(redis_server.url, clock, size=2)
    first, *others = [small.store.create(Identity(ALICE, Secret("k")))[0].reveal() for _ in range(3)]
    small.warm(first)
    small.warm(others[0])
    clock.advance(POLICY.touch_after + 1)
    small.warm(first)
    small.warm(others[1])
    before = small.asked
    small.cache.resolve(first)
    assert small.asked == before


def test_size_0_turns_cache_and_listener_off(redis_server: RedisServer, token: str, clock: Clock) -> None:
    off = Worker(redis_server.url, clock, size=0)
    for _ in range(3):
        off.cache.resolve(token)
    assert (off.asked, off.listener.last_heartbeat) == (3, float("-inf"))


def test_read_that_raced_a_revocation_is_not_cached(worker: Worker, other: Worker, token: str) -> None:
    """The record was read before the logout: the answer stands, but is not cached."""
    session = worker.warm(token)
    # The session is read once more. Only the channel reports its end.
    worker.cache.clear()
    worker.store.load = revoked_during_load(worker, other, session)  # type: ignore[method-assign]
    worker.cache.resolve(token)
    del worker.store.load
    assert not is_alive(worker, token)


def revoked_during_load(worker: Worker, other: Worker, session: WxSession) -> Callable[..., tuple[WxSession, float]]:
    """Return a `load` during which another worker ends the session."""

    def load(text: str, *, touch: bool = True) -> tuple[WxSession, float]:
        found = SessionStore.load(worker.store, text, touch=touch)
        other.store.revoke(session)
        wait_until(lambda: session.id in worker.cache._known.ended, "the channel reports it")
        return found

    return load


def test_check_that_meets_an_interruption_does_not_forget_which_sessions_ended(worker: Worker, token: str) -> None:
    """Between its look at the entries and its look at the ended sessions, both are dropped."""
    session = worker.warm(token)
    cache = worker.cache

    class Entries(OrderedDict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            cache.clear()
            return super().get(key, default)

    cache._known.entries = Entries(cache._known.entries)
    worker.store.revoke(session)
    assert not is_alive(worker, token)


def test_check_that_meets_the_end_of_an_interruption_uses_no_entry_from_before(worker: Worker, token: str) -> None:
    """The channel comes back when the check looks at its heartbeat. A logout in between was not heard."""
    session = worker.warm(token)
    cache = worker.cache

    class BackAgain(AlwaysAlive):
        @property
        def last_heartbeat(self) -> float:  # type: ignore[override]
            cache.clear()
            return float("inf")

    cache._listener = BackAgain()  # type: ignore[assignment]
    unheard(worker).revoke(session)
    assert not is_alive(worker, token)


def unheard(worker: Worker) -> SessionStore:
    """Return a store whose logouts the cache of `worker` does not hear of."""
    return SessionStore(worker.redis, KeyRing([Secret(RING_KEY)]), POLICY)


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    with Relay(redis_server.port) as relay:
        yield relay


@pytest.fixture
def far(relay: Relay, clock: Clock) -> Worker:
    """A worker with a connection to Redis that can be cut."""
    return Worker(f"redis://127.0.0.1:{relay.port}/0", clock)


def test_silent_channel_clears_the_cache_within_3_seconds(
    far: Worker, relay: Relay, worker: Worker, token: str
) -> None:
    """The network swallows everything, as a cut cable does."""
    session = far.warm(token)
    relay.stalled = True
    worker.store.revoke(session)
    ended_at = asked_at = time.monotonic()
    while is_known_alive(far, token):
        assert asked_at < ended_at + BOUND
        asked_at = time.monotonic()


def test_interrupted_channel_clears_the_cache(far: Worker, relay: Relay, worker: Worker, token: str) -> None:
    """What ended during the interruption is refused afterwards."""
    session = far.warm(token)
    relay.refuse()
    relay.cut()
    worker.store.revoke(session)
    wait_until(lambda: far.listener.last_heartbeat < 0, "the interruption")
    relay.accept()
    wait_until(lambda: far.listener.last_heartbeat > time.monotonic() - 1, "the listener is back")
    wait_until(lambda: not is_alive_or_unknown(far, token), "the token is refused")


def is_known_alive(worker: Worker, token: str) -> bool:
    try:
        return is_alive(worker, token)
    except StoreUnavailable:
        return False


def is_alive_or_unknown(worker: Worker, token: str) -> bool:
    try:
        return is_alive(worker, token)
    except StoreUnavailable:
        return True


def test_forked_child_has_its_own_listener(worker: Worker, other: Worker, token: str, settings: Settings) -> None:
    services = Services(dataclasses.replace(settings, cache_size=10), store=worker.store)
    worker.cache = services.cache
    session = worker.warm(token)
    reader, writer = os.pipe()
    # Another thread of the parent may hold any lock.
    for lock in (worker.redis._lock, worker.cache._lock):
        lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1" if evicts_the_end(worker, token) else b"0")
        os._exit(0)
    for lock in (worker.redis._lock, worker.cache._lock):
        lock.release()
    time.sleep(1)
    other.store.revoke(session)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)


def evicts_the_end(worker: Worker, token: str) -> bool:
    try:
        worker.warm(token)
        wait_until(lambda: not is_alive(worker, token), "the child evicts it", 5)
    except (TimeoutError, TokenInvalid):
        return False
    return True


def test_session_deleted_by_hand_is_refused(worker: Worker, raw_redis: redis.Redis, token: str, clock: Clock) -> None:
    worker.warm(token)
    raw_redis.flushall()
    clock.advance(POLICY.touch_after + 1)
    assert is_alive_untouched(worker, token)
    assert not is_alive(worker, token)
    assert not is_alive_untouched(worker, token)


def is_alive_untouched(worker: Worker, token: str) -> bool:
    try:
        worker.cache.resolve(token, touch=False)
    except TokenInvalid:
        return False
    return True


class WrongClock(Clock):
    """The clock of a worker that is ahead of Redis. Scripts do not add the difference."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self._ahead = ahead

    def __call__(self) -> float:
        return super().__call__() + self._ahead


@pytest.fixture(scope="module")
def own_redis() -> Iterator[RedisServer]:
    """A server whose commands can be counted: no listener of another test sends it a PING."""
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize(
    ("idle_ttl", "max_ttl", "logged_in_ahead", "ahead"),
    [
        (600, 2592000, 0, 61),
        (600, 2592000, 0, -61),
        (10, 2592000, 0, -6),
        (604800, 2592000, 0, 9 * 3600),
        (604800, 2592000, 0, -9 * 3600),
        (604800, 86400, 3, 3),
        (604800, 86400, 3600, 0),
    ],
)
def test_difference_between_the_clocks_makes_no_check_write_or_read_each_time(
    own_redis: RedisServer, alice: Identity, idle_ttl: int, max_ttl: int, logged_in_ahead: float, ahead: float
) -> None:
    client = RedisClient(connector(own_redis.url, "verify"))
    ring, policy = KeyRing([Secret(RING_KEY)]), SessionPolicy(idle_ttl, max_ttl, 3)
    token = SessionStore(client, ring, policy, WrongClock(logged_in_ahead)).create(alice)[0].reveal()
    cache = SessionCache(SessionStore(client, ring, policy, WrongClock(ahead)), AlwaysAlive(), 10)  # type: ignore[arg-type]
    cache.resolve(token)
    with own_redis.client() as raw:
        before = int(raw.info("stats")["total_commands_processed"])
        for _ in range(20):
            cache.resolve(token)
        assert int(raw.info("stats")["total_commands_processed"]) == before + 1


def hits() -> float:
    count: float = CHECKS.labels("ok", "cache")._value.get()
    return count


def test_every_hit_is_counted_at_the_next_heartbeat(worker: Worker, token: str) -> None:
    worker.warm(token)
    worker.cache.on_revoked([])
    before = hits()
    threads = [threading.Thread(target=lambda: [worker.cache.resolve(token) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Workers of other tests may count their own last hits.
    wait_until(lambda: before + 2000 <= hits() < before + 2500, "a heartbeat")


def test_listener_ends_with_its_cache(redis_server: RedisServer, raw_redis: redis.Redis, clock: Clock) -> None:
    """An application that is dropped leaves no thread and no connection."""
    before = set(threading.enumerate())
    client = RedisClient(connector(redis_server.url, "verify"))
    store = SessionStore(client, KeyRing([Secret(RING_KEY)]), POLICY, clock)
    cache = SessionCache(store, RevocationListener(client), 10)
    cache.resolve(store.create(Identity(ALICE, Secret("k")))[0].reveal())
    (thread,) = set(threading.enumerate()) - before
    del store, cache
    gc.collect()
    wait_until(lambda: not thread.is_alive(), "the thread has ended")


def test_repr_of_the_cache_holds_no_token(worker: Worker, token: str) -> None:
    session = worker.warm(token)
    assert token not in repr(worker.cache) + repr(worker.cache._known.entries[token]) + repr(session)
    assert session.openid not in repr(session)


def test_forbidden_subscription_is_logged_once(
    raw_redis: redis.Redis, redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else works, so nothing else tells why the cache stays empty."""
    rights = ("~wxa:*", "&*", "+@all", "-subscribe")
    raw_redis.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", *rights)  # type: ignore[no-untyped-call]
    deaf = Worker(f"redis://deaf:pw@127.0.0.1:{redis_server.port}/0", clock)
    token = deaf.store.create(Identity(ALICE, Secret("k")))[0].reveal()
    deaf.cache.resolve(token)
    wait_until(lambda: "noperm" in interruptions(caplog), "the line")
    time.sleep(3 * RETRY_PAUSE)
    # Listeners of other tests may log that their server is gone.
    assert interruptions(caplog).count("noperm") == 1


def test_silent_channel_is_logged(redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Relay(redis_server.port) as relay:
        worker = Worker(relay.url, clock)
        worker.warm(worker.store.create(Identity(ALICE, Secret("k")))[0].reveal())
        relay.stalled = True
        wait_until(lambda: "timeout" in interruptions(caplog), "the line")


def interruptions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["reason"] for record in caplog.records if record.message == "revocations_interrupted"]
