"""The store's contract, on every kind of Redis: a fake, a server, one behind sentinels, a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
import redis

from tests.conftest import ALICE, APPID, KINDS, RING_KEY, SESSION_KEY
from tests.support.compatibility import check_row
from tests.support.scans import RunsTwice
from tests.support.servers import RedisServer
from wxauth.clock import Clock
from wxauth.errors import SessionNotFound, StoreUnavailable, TokenInvalid, UserBanned
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.records import hash_name
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

kinds = tuple(KINDS)
#: The name of each kind in docs/compatibility.md.
ROWS = {
    "redis-server": "Redis",
    "redis-server-6.2": "Redis",
    "redis-server-8.2": "Redis",
    "sentinel": "Redis Sentinel",
    "cluster": "Redis Cluster",
    "valkey-server": "Valkey",
    "valkey-sentinel": "Valkey Sentinel",
    "valkey-cluster": "Valkey Cluster",
}

OTHER_KEY = "S" * 22 + "=="


def log_in(store: SessionStore, identity: Identity, device: str | None = None) -> tuple[str, WxSession]:
    token, session = store.create(identity, device)
    return token.reveal(), session


def is_alive(store: SessionStore, token: str) -> bool:
    try:
        store.resolve(token)
    except TokenInvalid:
        return False
    return True


def devices(store: SessionStore, user: User = ALICE) -> list[str | None]:
    return [entry.device for entry in store.sessions_of(user)]


def hash_of(raw: redis.Redis, session: WxSession) -> bytes:
    return next(key for key in keys_of(raw) if b"{" in key and raw.hexists(key, session.id))


def value_of(raw: redis.Redis, session: WxSession) -> bytes:
    return cast(bytes, raw.hget(hash_of(raw, session), session.id))


def keys_of(raw: redis.Redis) -> list[bytes]:
    return cast(list[bytes], raw.keys())


def fields_of(raw: redis.Redis) -> list[list[bytes]]:
    """The fields of each hash. A hash without sessions has only the reasons why they ended."""
    return [cast(list[bytes], raw.hkeys(key)) for key in keys_of(raw)]


def test_resolve_returns_the_session_that_create_made(store: SessionStore, alice: Identity) -> None:
    token, session = log_in(store, alice, "iPhone")
    found = store.resolve(token)
    assert (found.id, found.user) == (session.id, session.user)
    assert (session.openid, session.unionid, session.device) == (ALICE.openid, alice.unionid, "iPhone")


def test_resolve_of_a_signed_token_without_a_session_raises_token_invalid(store: SessionStore, ring: KeyRing) -> None:
    with pytest.raises(TokenInvalid):
        store.resolve(ring.issue(ALICE).text)


def test_resolve_of_a_forged_token_sends_no_command(ring: KeyRing, policy: SessionPolicy) -> None:

    def no_redis() -> redis.Redis:
        raise AssertionError("Redis was asked")

    with pytest.raises(TokenInvalid):
        SessionStore(RedisClient(no_redis), ring, policy).resolve(f"{ring.issue(ALICE).text[:-1]}!")


def test_revoke_ends_only_this_session(store: SessionStore, alice: Identity) -> None:
    (first, session), (second, _) = log_in(store, alice), log_in(store, alice)
    store.revoke(session)
    assert (is_alive(store, first), is_alive(store, second)) == (False, True)


def test_end_all_leaves_only_the_reasons(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    for _ in range(3):
        log_in(store, alice)
    store.end_all(ALICE)
    assert fields_of(raw_redis) == [[b"r"]]


def test_purge_leaves_only_the_reasons(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """A second purge is no error."""
    for _ in range(2):
        log_in(store, alice)
    for _ in range(2):
        store.end_all(ALICE, "purge")
    assert fields_of(raw_redis) == [[b"r"]]


def test_end_others_keeps_the_current_session(store: SessionStore, alice: Identity) -> None:
    log_in(store, alice, "old phone")
    _, session = log_in(store, alice, "new phone")
    store.end_others(session)
    assert devices(store) == ["new phone"]


def test_end_by_id_ends_that_session(store: SessionStore, alice: Identity) -> None:
    log_in(store, alice, "stays")
    _, session = log_in(store, alice, "goes")
    store.end(ALICE, session.id)
    assert devices(store) == ["stays"]


def test_end_of_another_users_session_raises_session_not_found(store: SessionStore, alice: Identity) -> None:
    bob = User(APPID, "oBOB")
    token, session = log_in(store, alice)
    with pytest.raises(SessionNotFound):
        store.end(bob, session.id)
    assert is_alive(store, token)


def test_login_above_the_limit_ends_the_oldest(store: SessionStore, alice: Identity) -> None:
    """The order of logins counts, also within one second."""
    tokens = [log_in(store, alice, str(number))[0] for number in range(5)]
    assert devices(store) == ["2", "3", "4"]
    assert [is_alive(store, token) for token in tokens] == [False, False, True, True, True]


def test_login_that_replaces_a_session_ends_no_other(store: SessionStore, alice: Identity) -> None:
    tokens = [log_in(store, alice, str(number))[0] for number in range(3)]
    told: list[str] = []
    store.on_ended = lambda ids: told.extend(ids or ["all"])
    replaced = store.resolve(tokens[1])
    store.create(alice, "new", replaced)
    assert devices(store) == ["0", "2", "new"]
    assert [is_alive(store, token) for token in tokens] == [True, False, True]
    assert told == [replaced.id]


def test_expired_session_is_not_listed(store: SessionStore, alice: Identity, clock: Clock) -> None:
    log_in(store, alice, "dead")
    clock.advance(604801)
    log_in(store, alice, "alive")
    assert devices(store) == ["alive"]


def test_expired_sessions_do_not_count_for_the_limit(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice, "alive")
    log_in(store, alice, "dead")
    log_in(store, alice, "dead, too")
    clock.advance(400000)
    store.resolve(token)
    clock.advance(300000)
    log_in(store, alice, "new")
    assert devices(store) == ["alive", "new"]
    assert is_alive(store, token)


def test_session_expires_after_its_idle_life(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice)
    clock.advance(604801)
    assert not is_alive(store, token)


def test_resolve_prolongs_the_idle_life(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice)
    for _ in range(3):
        clock.advance(500000)
        assert is_alive(store, token)


def test_resolve_without_touch_prolongs_nothing(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice)
    clock.advance(500000)
    store.resolve(token, touch=False)
    clock.advance(200000)
    assert not is_alive(store, token)


def test_session_expires_after_its_absolute_life(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice)
    for _ in range(5):
        clock.advance(500000)
        assert is_alive(store, token)
    clock.advance(100000)
    assert not is_alive(store, token)


def test_every_key_has_a_ttl(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    log_in(store, alice)
    store.ban(User(APPID, "oBOB"))
    assert min(int(raw_redis.ttl(key)) for key in keys_of(raw_redis)) > 0


def test_session_key_is_the_newest_of_the_user_and_not_in_the_repr(store: SessionStore, alice: Identity) -> None:
    _, session = log_in(store, alice)
    log_in(store, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
    assert SESSION_KEY not in repr(session)
    assert session.session_key == OTHER_KEY


def test_login_with_a_new_session_key_keeps_the_previous_one(store: SessionStore, alice: Identity) -> None:
    log_in(store, alice)
    log_in(store, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
    keys = store.session_keys(ALICE)
    assert keys is not None
    assert keys.previous == Secret(SESSION_KEY)


def test_session_keys_go_with_the_last_live_session(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """An expired session does not keep them."""
    log_in(store, alice)
    clock.advance(400000)
    _, session = log_in(store, alice)
    clock.advance(300000)
    store.revoke(session)
    assert store.session_keys(ALICE) is None


class TestRepeatedScripts:
    """Each script runs twice, as after a lost connection."""

    @pytest.fixture
    def store(self, raw_redis: redis.Redis, ring: KeyRing, policy: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(RunsTwice(lambda: raw_redis), ring, policy, clock)

    @pytest.fixture
    def told(self, store: SessionStore) -> list[str]:
        found: list[str] = []
        store.on_ended = lambda ids: found.extend(ids or ["all"])
        return found

    def test_end_all_reports_to_the_cache(self, store: SessionStore, alice: Identity, told: list[str]) -> None:
        ids = {log_in(store, alice)[1].id for _ in range(2)}
        store.end_all(ALICE)
        assert "all" in told or ids <= set(told)

    def test_login_reports_to_the_cache(self, store: SessionStore, alice: Identity, told: list[str]) -> None:
        _, first = log_in(store, alice, "first")
        for number in range(3):
            log_in(store, alice, str(number))
        assert devices(store) == ["0", "1", "2"]
        assert "all" in told or first.id in told

    def test_end_by_id_does_not_raise(self, store: SessionStore, alice: Identity) -> None:
        _, session = log_in(store, alice)
        log_in(store, alice, "other")
        store.end(ALICE, session.id)
        assert devices(store) == ["other"]

    def test_touch_moves_the_idle_end_once(self, store: SessionStore, alice: Identity, clock: Clock) -> None:
        token, session = log_in(store, alice)
        clock.advance(store.policy.touch_after + 2)
        moved = store.resolve(token).expires_at - session.expires_at
        assert 0 < moved <= store.policy.touch_after + 3

    def test_rekey_keeps_only_the_new_session_key(self, store: SessionStore, alice: Identity) -> None:
        log_in(store, alice)
        store.replace_session_key(ALICE, Secret("new"))
        keys = store.session_keys(ALICE)
        assert keys is not None
        assert (keys.newest, keys.previous) == (Secret("new"), None)


def test_login_without_enough_replicas_raises_and_ends_no_session(
    redis_server: RedisServer, alice: Identity, ring: KeyRing
) -> None:
    policy = SessionPolicy(idle_ttl=604800, max_ttl=2592000, max_sessions=1)
    connect = connector(redis_server.url, "verify")
    store = SessionStore(RedisClient(connect), ring, policy)
    token, session = log_in(store, alice)
    with pytest.raises(StoreUnavailable, match="not_replicated"):
        SessionStore(RedisClient(connect, wait_replicas=1), ring, policy).create(alice, replacing=session)
    assert is_alive(store, token)


def test_ban_ends_all_sessions_and_refuses_the_next_login(store: SessionStore, alice: Identity) -> None:
    token, _ = log_in(store, alice)
    store.ban(ALICE)
    with pytest.raises(UserBanned):
        store.create(alice)
    assert not is_alive(store, token)


def test_unban_allows_the_next_login(store: SessionStore, alice: Identity) -> None:
    store.ban(ALICE)
    store.unban(ALICE)
    token, _ = log_in(store, alice)
    assert is_alive(store, token)


class TestKeyRotation:
    """A new ring key is put first, and the old one is dropped later."""

    @pytest.fixture
    def rotated(self, redis_client: RedisClient, policy: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(redis_client, KeyRing([Secret("n" * 32), Secret(RING_KEY)]), policy, clock)

    @pytest.fixture
    def dropped(self, redis_client: RedisClient, policy: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(redis_client, KeyRing([Secret("n" * 32)]), policy, clock)

    def test_older_tokens_stay_valid_and_are_listed(
        self, store: SessionStore, rotated: SessionStore, alice: Identity
    ) -> None:
        token, _ = log_in(store, alice, "before")
        log_in(rotated, alice, "after")
        assert is_alive(rotated, token)
        assert devices(rotated) == ["before", "after"]

    def test_dropping_a_key_ends_only_its_sessions(
        self, store: SessionStore, rotated: SessionStore, dropped: SessionStore, alice: Identity
    ) -> None:
        (before, _), (after, _) = log_in(store, alice), log_in(rotated, alice)
        assert (is_alive(dropped, before), is_alive(dropped, after)) == (False, True)

    def test_limit_holds_across_keys(self, store: SessionStore, rotated: SessionStore, alice: Identity) -> None:
        for number in range(3):
            log_in(store, alice, f"before {number}")
        log_in(rotated, alice, "after")
        assert devices(rotated) == ["before 1", "before 2", "after"]

    def test_end_all_reaches_both_keys(
        self, store: SessionStore, rotated: SessionStore, alice: Identity, raw_redis: redis.Redis
    ) -> None:
        log_in(store, alice)
        log_in(rotated, alice)
        rotated.end_all(ALICE)
        assert fields_of(raw_redis) == [[b"r"], [b"r"]]

    def test_purge_reaches_both_keys(
        self, store: SessionStore, rotated: SessionStore, alice: Identity, raw_redis: redis.Redis
    ) -> None:
        log_in(store, alice)
        log_in(rotated, alice)
        rotated.end_all(ALICE, "purge")
        assert fields_of(raw_redis) == [[b"r"], [b"r"]]

    def test_revoke_reaches_the_older_key(self, store: SessionStore, rotated: SessionStore, alice: Identity) -> None:
        token, _ = log_in(store, alice)
        rotated.revoke(rotated.resolve(token))
        assert not is_alive(store, token)

    def test_ban_survives_the_rotation(
        self, store: SessionStore, rotated: SessionStore, dropped: SessionStore, alice: Identity
    ) -> None:
        store.ban(ALICE)
        for later in (rotated, dropped):
            with pytest.raises(UserBanned):
                later.create(alice)

    def test_orphans_are_the_hashes_of_dropped_keys(
        self,
        store: SessionStore,
        rotated: SessionStore,
        dropped: SessionStore,
        alice: Identity,
        raw_redis: redis.Redis,
    ) -> None:
        """Bans, access tokens and the counters of limits are none."""
        (_, old), _ = log_in(store, alice), log_in(rotated, alice)
        orphan = hash_of(raw_redis, old).decode()
        rotated.ban(User(APPID, "oBOB"))
        for name in (f"wxa:{{{APPID}}}:t:1", f"wxa:{{{APPID}}}:lock", "wxa:l:1", "wxa:{ready}:p"):
            raw_redis.set(name, b"", ex=10)
        assert set(rotated.orphans()) == set()
        assert set(dropped.orphans()) == {orphan}

    def test_orphans_are_found_among_many_keys(
        self, ring: KeyRing, store: SessionStore, dropped: SessionStore, raw_redis: redis.Redis
    ) -> None:
        """One SCAN looks at 1,000 keys."""
        users = [User(APPID, f"o{number}") for number in range(1500)]
        names = {hash_name(ring.newest.for_user(user).hash_tag) for user in users}
        for name in names:
            raw_redis.hset(name, "k", b"")
        assert (set(dropped.orphans()), set(store.orphans())) == (names, set())

    def test_older_session_key_becomes_the_previous_one(
        self, store: SessionStore, rotated: SessionStore, alice: Identity
    ) -> None:
        log_in(store, alice)
        log_in(rotated, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
        keys = rotated.session_keys(ALICE)
        assert keys is not None
        assert (keys.newest, keys.previous) == (Secret(OTHER_KEY), Secret(SESSION_KEY))


def test_racing_logins_keep_the_limit(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:

    def log_in_often() -> None:
        for _ in range(5):
            # That too many come at once is an answer, too; what counts is what is left in the end.
            with contextlib.suppress(StoreUnavailable):
                store.create(alice)

    threads = [threading.Thread(target=log_in_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.sessions_of(ALICE)) == 3


class Counted(RedisClient):
    """Counts round trips."""

    def __init__(self, raw: redis.Redis) -> None:
        super().__init__(lambda: raw)
        self.round_trips = 0

    def _call(self, *arguments: Any, **options: Any) -> Any:
        self.round_trips += 1
        return super()._call(*arguments, **options)


def test_each_operation_takes_one_round_trip(
    raw_redis: redis.Redis, ring: KeyRing, policy: SessionPolicy, alice: Identity
) -> None:
    """A login takes two on a cluster, where the ban may lie on another node."""
    counted = Counted(raw_redis)
    store = SessionStore(counted, ring, policy)
    spent = []
    operations: list[Callable[[], object]] = [
        lambda: log_in(store, alice),
        lambda: store.resolve(token),
        lambda: store.revoke(session),
        lambda: store.end_all(ALICE),
    ]
    token, session = log_in(store, alice)
    for operation in operations:
        before = counted.round_trips
        operation()
        spent.append(counted.round_trips - before)
    assert spent == [2 if counted.is_cluster else 1, 1, 1, 1]


def test_login_replaces_a_session_in_its_own_round_trip(
    raw_redis: redis.Redis, ring: KeyRing, policy: SessionPolicy, alice: Identity
) -> None:
    """Between two round trips both sessions would be alive."""
    counted = Counted(raw_redis)
    store = SessionStore(counted, ring, policy)
    token, session = log_in(store, alice)
    before = counted.round_trips
    store.create(alice, replacing=session)
    assert counted.round_trips - before == (2 if counted.is_cluster else 1)
    assert not is_alive(store, token)


def test_login_that_replaces_another_users_session_ends_it(store: SessionStore, alice: Identity) -> None:
    token, session = log_in(store, dataclasses.replace(alice, user=User(APPID, "oBOB")))
    store.create(alice, replacing=session)
    assert not is_alive(store, token)


def test_resolve_soon_after_a_use_writes_nothing(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    token, session = log_in(store, alice)
    before = value_of(raw_redis, session)
    clock.advance(1000)
    store.resolve(token)
    assert value_of(raw_redis, session) == before
    clock.advance(100000)
    store.resolve(token)
    assert value_of(raw_redis, session) != before


def test_touch_brings_no_ended_session_back(
    store: SessionStore, ring: KeyRing, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    """The session is ended between the read and the touch."""
    token, session = log_in(store, alice)
    clock.advance(300000)
    racing = SessionStore(EndsAfterRead(raw_redis, session), ring, store.policy, clock)
    with pytest.raises(TokenInvalid):
        racing.resolve(token)
    assert store.sessions_of(ALICE) == []


class EndsAfterRead(RedisClient):
    """Ends the session after each read."""

    def __init__(self, raw: redis.Redis, session: WxSession) -> None:
        super().__init__(lambda: raw)
        self._raw = raw
        self._session = session

    def ask(self, key: str, *command: Any, **options: Any) -> Any:
        reply = super().ask(key, *command, **options)
        self._raw.hdel(key, self._session.id)
        return reply


def test_record_under_another_session_does_not_open(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    mine, my_session = log_in(store, alice)
    _, other_session = log_in(store, dataclasses.replace(alice, user=User(APPID, "oBOB")))
    raw_redis.hset(hash_of(raw_redis, my_session), my_session.id, value_of(raw_redis, other_session))
    assert not is_alive(store, mine)


@pytest.mark.parametrize("position", [19, 27, 28, 40, -1], ids=["version", "end", "nonce", "ciphertext", "tag"])
def test_edited_record_does_not_open(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, position: int
) -> None:
    token, session = log_in(store, alice)
    edited = bytearray(value_of(raw_redis, session))
    edited[position] ^= 1
    raw_redis.hset(hash_of(raw_redis, session), session.id, bytes(edited))
    assert not is_alive(store, token)


def test_idle_end_moved_by_hand_does_not_prolong_the_absolute_life(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    token, session = log_in(store, alice)
    moved = struct.pack(">Q", int((clock() + 10 * 2592000) * 1_000_000)) + value_of(raw_redis, session)[8:]
    raw_redis.hset(hash_of(raw_redis, session), session.id, moved)
    clock.advance(2592001)
    assert not is_alive(store, token)


@pytest.mark.parametrize("damage", [b"", b"short", bytes(19), b"\xff" * 200], ids=["empty", "short", "zero", "far"])
def test_damaged_field_neither_blocks_login_nor_logout(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, damage: bytes
) -> None:
    """The scripts remove it: its end is in the past, or beyond WXAUTH_MAX_TTL."""
    token, session = log_in(store, alice)
    raw_redis.hset(hash_of(raw_redis, session), session.id, damage)
    for number in range(3):
        log_in(store, alice, str(number))
    assert devices(store) == ["0", "1", "2"]
    assert not is_alive(store, token)
    store.end_all(ALICE)
    assert fields_of(raw_redis) == [[b"r"]]


def test_redis_holds_no_token_openid_or_session_key_in_the_clear(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    token, session = log_in(store, alice, "iPhone")
    fields = cast(dict[bytes, bytes], raw_redis.hgetall(hash_of(raw_redis, session)))
    stored = b"".join([*keys_of(raw_redis), *fields.keys(), *fields.values()])
    planted = [token, token[26:69], ALICE.openid, cast(str, alice.unionid), SESSION_KEY, "iPhone"]
    assert [text for text in planted if text.encode() in stored] == []


@pytest.mark.parametrize("days", [8, -8], ids=["ahead", "behind"])
def test_worker_with_a_wrong_clock_ends_and_refuses_no_session(
    redis_client: RedisClient, ring: KeyRing, policy: SessionPolicy, alice: Identity, days: int
) -> None:
    """What has expired is decided by Redis' clock."""
    right = SessionStore(redis_client, ring, policy)
    wrong = SessionStore(redis_client, ring, policy, WrongClock(days * 86400))
    (first, _), (second, _) = log_in(right, alice, "right"), log_in(wrong, alice, "wrong")
    for store in (wrong, right):
        assert (is_alive(store, first), is_alive(store, second)) == (True, True)
        assert devices(store) == ["right", "wrong"]
    log_in(right, alice, "later")
    log_in(right, alice, "last")
    assert devices(wrong) == ["wrong", "later", "last"]


class WrongClock(Clock):
    """The clock of a worker only; Redis' clock is right."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._error = seconds

    def __call__(self) -> float:
        return super().__call__() + self._error


def test_script_is_loaded_again_after_a_restart_of_redis(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """SCRIPT FLUSH forgets the scripts, as a restart or a failover does."""
    log_in(store, alice, "before")
    raw_redis.script_flush()
    log_in(store, alice, "after")
    assert devices(store) == ["before", "after"]


def test_user_with_one_session_takes_at_most_520_bytes(
    redis_server: RedisServer, ring: KeyRing, policy: SessionPolicy
) -> None:
    """MEMORY USAGE of a real server: one session and one session_key."""
    client = redis_server.client()
    client.flushall()
    store = SessionStore(RedisClient(connector(redis_server.url, "verify")), ring, policy)
    store.create(Identity(User(APPID, "o" * 28), Secret(SESSION_KEY), None))
    (name,) = keys_of(client)
    assert cast(int, client.memory_usage(name)) <= 520
    client.close()


def test_clock_of_redis_that_steps_back_ends_no_session(
    redis_client: RedisClient, ring: KeyRing, alice: Identity, clock: Clock
) -> None:
    """The idle end is then more than the whole life away, which is no damage."""
    store = SessionStore(redis_client, ring, SessionPolicy(2592000, 2592000, 3), clock)
    token, _ = log_in(store, alice)
    clock.advance(-2)
    assert len(store.sessions_of(ALICE)) == 1
    assert is_alive(store, token)


@pytest.mark.parametrize(("idle_ttl", "max_ttl"), [(12, 20), (3, 9), (604800, 2592000)])
def test_session_in_constant_use_ends_at_its_absolute_end(
    redis_client: RedisClient, ring: KeyRing, alice: Identity, clock: Clock, idle_ttl: int, max_ttl: int
) -> None:
    store = SessionStore(redis_client, ring, SessionPolicy(idle_ttl, max_ttl, 3), clock)
    token, session = log_in(store, alice)
    step = store.policy.touch_after / 11
    while clock() + step < session.created_at + max_ttl - 1:
        clock.advance(step)
        assert is_alive(store, token)
    clock.advance(session.created_at + max_ttl - 1 - clock())
    assert is_alive(store, token)
    clock.advance(1.1)
    assert not is_alive(store, token)


def test_idle_session_ends_before_its_absolute_end(
    redis_client: RedisClient, ring: KeyRing, alice: Identity, clock: Clock
) -> None:
    store = SessionStore(redis_client, ring, SessionPolicy(12, 20, 3), clock)
    token, _ = log_in(store, alice)
    clock.advance(7)
    assert is_alive(store, token)
    clock.advance(12.5)
    assert not is_alive(store, token)


def test_shorter_life_in_the_settings_keeps_a_fresh_session(
    store: SessionStore, redis_client: RedisClient, ring: KeyRing, alice: Identity, clock: Clock
) -> None:
    """It ends the new life after the login, or after its last use."""
    token, _ = log_in(store, alice)
    shorter = SessionStore(redis_client, ring, SessionPolicy(86400, 3 * 86400, 3), clock)
    assert len(shorter.sessions_of(ALICE)) == 1
    assert is_alive(shorter, token)
    clock.advance(86401)
    assert not is_alive(shorter, token)


class TestShorterAbsoluteLife:
    """WXAUTH_MAX_TTL is set to three days, with sessions that were made under thirty."""

    LIFE = 3 * 86400

    @pytest.fixture
    def shorter(self, redis_client: RedisClient, ring: KeyRing, clock: Clock) -> SessionStore:
        return SessionStore(redis_client, ring, SessionPolicy(604800, self.LIFE, 2), clock)

    def test_session_lives_until_the_new_end(
        self, store: SessionStore, shorter: SessionStore, alice: Identity, clock: Clock
    ) -> None:
        token, _ = log_in(store, alice, "phone")
        clock.advance(self.LIFE - 60)
        assert shorter.resolve(token, touch=False).device == "phone"
        assert devices(shorter) == ["phone"]
        clock.advance(61)
        assert (devices(shorter), is_alive(shorter, token)) == ([], False)
        assert shorter.session_keys(ALICE) is None

    def test_ended_sessions_do_not_count_for_the_limit(
        self, store: SessionStore, shorter: SessionStore, alice: Identity, clock: Clock, raw_redis: redis.Redis
    ) -> None:
        """The limit is 2: the login ends none, because none of them is replaced."""
        _, ended = log_in(store, alice, "ended")
        clock.advance(self.LIFE + 1)
        log_in(store, alice, "fresh")
        told: list[object] = []
        shorter.on_ended = told.append
        _, newest = log_in(shorter, alice, "newest")
        assert (devices(shorter), told) == (["fresh", "newest"], [[]])
        assert not raw_redis.hexists(hash_of(raw_redis, newest), ended.id)

    def test_ended_session_is_not_found(
        self, store: SessionStore, shorter: SessionStore, alice: Identity, clock: Clock
    ) -> None:
        _, ended = log_in(store, alice)
        clock.advance(self.LIFE + 1)
        with pytest.raises(SessionNotFound):
            shorter.end(ALICE, ended.id)

    def test_session_key_is_not_replaced_without_a_live_session(
        self, store: SessionStore, shorter: SessionStore, alice: Identity, clock: Clock
    ) -> None:
        log_in(store, alice)
        clock.advance(self.LIFE + 1)
        shorter.replace_session_key(ALICE, Secret(OTHER_KEY))
        keys = store.session_keys(ALICE)
        assert keys is None or keys.newest != Secret(OTHER_KEY)


def test_login_repairs_a_damaged_session_key(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """Also when WeChat gave the same session_key again, with the same fingerprint."""
    _, session = log_in(store, alice)
    name = hash_of(raw_redis, session)
    damaged = bytearray(cast(bytes, raw_redis.hget(name, "k")))
    damaged[-1] ^= 1
    raw_redis.hset(name, "k", bytes(damaged))
    assert store.session_keys(ALICE) is None
    log_in(store, alice)
    assert session.session_key == SESSION_KEY


def test_newest_session_key_is_that_of_the_last_login_despite_a_wrong_clock(
    redis_client: RedisClient, ring: KeyRing, policy: SessionPolicy, alice: Identity
) -> None:
    right = SessionStore(redis_client, ring, policy)
    log_in(SessionStore(redis_client, ring, policy, WrongClock(8 * 86400)), alice)
    log_in(right, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
    keys = right.session_keys(ALICE)
    assert keys is not None
    assert (keys.newest, keys.previous) == (Secret(OTHER_KEY), Secret(SESSION_KEY))


def test_check_of_an_expired_session_removes_its_field(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    """The next check finds nothing, and needs no second command."""
    token, session = log_in(store, alice)
    clock.advance(400000)
    _, other = log_in(store, alice)
    clock.advance(300000)
    assert not is_alive(store, token)
    assert raw_redis.hkeys(hash_of(raw_redis, other)).count(session.id.encode()) == 0


def test_list_of_sessions_writes_nothing(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    """It works on a Redis that refuses writes, also if a session has expired."""
    _, session = log_in(store, alice, "expired")
    clock.advance(400000)
    log_in(store, alice, "live")
    clock.advance(300000)
    before = raw_redis.hgetall(hash_of(raw_redis, session))
    assert devices(store) == ["live"]
    assert raw_redis.hgetall(hash_of(raw_redis, session)) == before


def test_10_000_fields_block_neither_logout_nor_login(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """Only a writer to Redis can add them."""
    token, session = log_in(store, alice)
    name, value = hash_of(raw_redis, session), value_of(raw_redis, session)
    raw_redis.hset(name, mapping={f"copy-{number}": value for number in range(10_000)})
    log_in(store, alice)
    assert len(store.sessions_of(ALICE)) == 3
    store.end_all(ALICE)
    assert fields_of(raw_redis) == [[b"r"]]
    assert not is_alive(store, token)


def test_damaged_login_time_does_not_change_the_order(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    _, session = log_in(store, alice, "damaged")
    damaged = value_of(raw_redis, session)[:8] + b"\xff" * 8 + value_of(raw_redis, session)[16:]
    raw_redis.hset(hash_of(raw_redis, session), session.id, damaged)
    for number in range(4):
        log_in(store, alice, str(number))
    assert devices(store) == ["1", "2", "3"]
    assert min(entry.created_at for entry in store.sessions_of(ALICE)) > 1_700_000_000


@pytest.mark.parametrize("kind", [kind for kind in ROWS if kind in KINDS])
def test_documentation_has_the_version_that_the_contract_ran_on(request: pytest.FixtureRequest, kind: str) -> None:
    server: Any = request.getfixturevalue(KINDS[kind])
    with getattr(server, "nodes", [server])[0].client() as admin:
        facts = admin.info("server")
    # Valkey calls itself Redis 7.2 too.
    version = facts.get("valkey_version") or facts["redis_version"]
    check_row(ROWS[kind], version, versions=list(ROWS.values()).count(ROWS[kind]))
