"""The store's contract, on every kind of Redis: a fake, a server, one behind sentinels, a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import Any, cast

import pytest
import redis

from tests.conftest import ALICE, APPID, KINDS, RING_KEY, SESSION_KEY, Clock
from tests.servers import RedisServer
from wxauth.errors import SessionNotFound, StoreUnavailable, TokenInvalid, UserBanned
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

kinds = tuple(KINDS)

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


def keys_of(raw: redis.Redis) -> list[bytes]:
    return cast(list[bytes], raw.keys())


def record_of(raw: redis.Redis, session: WxSession) -> bytes:
    return next(key for key in keys_of(raw) if key.endswith(b":s:" + session.id.encode()))


def test_a_token_resolves_to_the_session_it_was_made_for(store: SessionStore, alice: Identity) -> None:
    """What resolve answers is what create answered."""
    token, session = log_in(store, alice, "iPhone")
    found = store.resolve(token)
    assert (found.id, found.user) == (session.id, session.user)
    assert (session.openid, session.unionid, session.device) == (ALICE.openid, alice.unionid, "iPhone")


def test_a_token_that_was_never_given_out_resolves_to_nothing(store: SessionStore, ring: KeyRing) -> None:
    """A signature alone makes no session."""
    with pytest.raises(TokenInvalid):
        store.resolve(ring.issue(ALICE).text)


def test_a_forged_token_costs_no_command(ring: KeyRing, limits: SessionPolicy) -> None:
    """A store without any Redis at all refuses it just the same."""

    def no_redis() -> redis.Redis:
        raise AssertionError("Redis was asked")

    with pytest.raises(TokenInvalid):
        SessionStore(RedisClient(no_redis), ring, limits).resolve(f"{ring.issue(ALICE).text[:-1]}!")


def test_logout_ends_this_session_alone(store: SessionStore, alice: Identity) -> None:
    """The user's other sessions stay."""
    (first, session), (second, _) = log_in(store, alice), log_in(store, alice)
    store.revoke(session)
    assert (is_alive(store, first), is_alive(store, second)) == (False, True)


def test_logout_holds_even_where_the_list_was_lost(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """The record goes whether or not the user's hash knows of it."""
    token, session = log_in(store, alice)
    raw_redis.delete(*(key for key in keys_of(raw_redis) if b":u:" in key))
    store.revoke(session)
    assert not is_alive(store, token)


def test_logout_everywhere_ends_all_and_leaves_nothing(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """No key of the user is left behind, session_key included."""
    for _ in range(3):
        log_in(store, alice)
    store.end_all(ALICE)
    assert keys_of(raw_redis) == []


def test_a_purge_leaves_nothing(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """No session, no list and no session_key; of a user who has none of them it is no error."""
    for _ in range(2):
        log_in(store, alice)
    for _ in range(2):
        store.purge(ALICE)
    assert keys_of(raw_redis) == []


def test_logout_everywhere_can_keep_one(store: SessionStore, alice: Identity) -> None:
    """The one that is kept is the only one left."""
    log_in(store, alice, "old phone")
    _, session = log_in(store, alice, "new phone")
    store.end_others(session)
    assert devices(store) == ["new phone"]


def test_one_session_can_be_ended_by_its_id(store: SessionStore, alice: Identity) -> None:
    """An id from the user's own list is enough."""
    log_in(store, alice, "stays")
    _, session = log_in(store, alice, "goes")
    store.end(ALICE, session.id)
    assert devices(store) == ["stays"]


def test_somebody_elses_session_can_not_be_ended(store: SessionStore, alice: Identity) -> None:
    """To know an id is not to own it."""
    bob = User(APPID, "oBOB")
    token, session = log_in(store, alice)
    with pytest.raises(SessionNotFound):
        store.end(bob, session.id)
    assert is_alive(store, token)


def test_the_oldest_goes_when_there_are_too_many(store: SessionStore, alice: Identity) -> None:
    """The cap holds, and in the order of logins, though all were made in the same second."""
    tokens = [log_in(store, alice, str(number))[0] for number in range(5)]
    assert devices(store) == ["2", "3", "4"]
    assert [is_alive(store, token) for token in tokens] == [False, False, True, True, True]


def test_logout_everywhere_holds_even_where_the_list_was_lost(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """The session that asks for it has been shown."""
    token, session = log_in(store, alice)
    raw_redis.delete(*(key for key in keys_of(raw_redis) if b":u:" in key))
    store.end_all(ALICE, session)
    assert not is_alive(store, token)


def test_a_login_that_replaces_a_session_takes_its_place(store: SessionStore, alice: Identity) -> None:
    """One goes and one comes, so the cap ends nobody else; whoever keeps sessions at hand is told."""
    tokens = [log_in(store, alice, str(number))[0] for number in range(3)]
    told: list[str] = []
    store.shelves.on_ended = told.extend
    replaced = store.resolve(tokens[1])
    store.create(alice, "new", replaced)
    assert devices(store) == ["0", "2", "new"]
    assert [is_alive(store, token) for token in tokens] == [True, False, True]
    assert told == [replaced.id]


def test_a_replaced_session_ends_in_the_transaction_of_the_login(
    store: SessionStore, alice: Identity, limits: SessionPolicy, raw_redis: redis.Redis
) -> None:
    """Each transaction is round trips on the way to Redis, and between two of them both sessions would be alive."""
    counted = CountedTransactions(raw_redis)
    counting = SessionStore(counted, store._ring, limits, store.now)
    token, session = log_in(counting, alice)
    before = counted.transactions
    counting.create(alice, replacing=session)
    assert not is_alive(store, token)
    assert counted.transactions == before + 1


class CountedTransactions(RedisClient):
    """The same Redis, and how often something was changed in it."""

    def __init__(self, raw: redis.Redis) -> None:
        super().__init__(lambda: raw)
        self.transactions = 0

    def transact(self, *args: Any, **options: Any) -> None:
        self.transactions += 1
        super().transact(*args, **options)


@pytest.mark.parametrize("whose", [ALICE, User(APPID, "oBOB")], ids=["of the same user", "of another"])
def test_a_replaced_session_ends_even_where_the_list_was_lost(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, whose: User
) -> None:
    """The phone that logs in has shown it, whoever was logged in there before."""
    token, session = log_in(store, dataclasses.replace(alice, user=whose))
    raw_redis.delete(*(key for key in keys_of(raw_redis) if b":u:" in key))
    store.create(alice, replacing=session)
    assert not is_alive(store, token)


def test_a_session_whose_entry_does_not_open_outlives_the_next_login(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """What can't be read is no proof that nobody is logged in; but logging out everywhere ends it, too."""
    token, session = log_in(store, alice)
    (hash,) = (key for key in keys_of(raw_redis) if b":u:" in key)
    raw_redis.hset(hash, session.id, b"spoilt")
    log_in(store, alice)
    assert is_alive(store, token)
    store.end_all(ALICE)
    assert not is_alive(store, token)


def test_a_session_that_died_of_idleness_takes_no_place(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """Only live sessions are listed and counted."""
    log_in(store, alice, "dead")
    clock.advance(604801)
    log_in(store, alice, "alive")
    assert devices(store) == ["alive"]


def test_the_dead_push_nobody_out(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """Where the list is full, the cap still counts only who is alive."""
    token, _ = log_in(store, alice, "alive")
    log_in(store, alice, "dead")
    log_in(store, alice, "dead, too")
    clock.advance(400000)
    store.resolve(token)
    clock.advance(300000)
    log_in(store, alice, "new")
    assert devices(store) == ["alive", "new"]
    assert is_alive(store, token)


def test_idle_life_ends(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """A session that nobody uses for the idle limit is over."""
    token, _ = log_in(store, alice)
    clock.advance(604801)
    assert not is_alive(store, token)


def test_use_prolongs_idle_life(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """Three uses, each within the limit, carry it past the limit."""
    token, _ = log_in(store, alice)
    for _ in range(3):
        clock.advance(500000)
        assert is_alive(store, token)


def test_use_without_touch_prolongs_nothing(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """What only looks does not keep alive."""
    token, _ = log_in(store, alice)
    clock.advance(500000)
    store.resolve(token, touch=False)
    clock.advance(200000)
    assert not is_alive(store, token)


def test_absolute_life_ends_however_often_it_is_used(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """No use carries a session past the absolute limit."""
    token, _ = log_in(store, alice)
    for _ in range(5):
        clock.advance(500000)
        assert is_alive(store, token)
    clock.advance(100000)
    assert not is_alive(store, token)


def test_a_record_whose_ttl_was_removed_still_ends(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    """Absolute life stands inside the seal, not only in Redis."""
    token, session = log_in(store, alice)
    raw_redis.persist(record_of(raw_redis, session))
    clock.advance(2592001)
    assert not is_alive(store, token)


def test_a_use_within_a_moment_writes_nothing(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """Use is recorded once in a while, so a second one leaves the TTL alone."""
    token, session = log_in(store, alice)
    raw_redis.expire(record_of(raw_redis, session), 604800 - 1000)
    store.resolve(token)
    assert int(raw_redis.ttl(record_of(raw_redis, session))) <= 604800 - 1000


class Misheard(RedisClient):
    """The 1 of EXPIRE becomes a 0 on its way."""

    def expire(self, key: str, seconds: int) -> bool:
        return not super().expire(key, seconds)


def test_a_use_that_seems_to_find_nothing_is_looked_into(
    store: SessionStore, alice: Identity, redis_server: RedisServer, clock: Clock
) -> None:
    """The session is there all the same."""
    redis_server.client().flushall()
    misheard = Misheard(connector(redis_server.url, "verify"))
    hard_of_hearing = SessionStore(misheard, store._ring, store._limits, clock)
    token, session = log_in(hard_of_hearing, alice)
    clock.advance(300000)
    assert is_alive(hard_of_hearing, token)
    hard_of_hearing.revoke(session)
    assert not is_alive(hard_of_hearing, token)


def test_a_refresh_brings_no_session_back(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    """A record that vanishes between the read and the refresh stays gone, and the caller is told so."""
    token, session = log_in(store, alice)
    clock.advance(300000)
    record = record_of(raw_redis, session)
    racing = SessionStore(RacedRedis(raw_redis, record), store._ring, store._limits, clock)
    with pytest.raises(TokenInvalid):
        racing.resolve(token)
    assert not raw_redis.exists(record)


class RacedRedis(RedisClient):
    """A Redis in which a logout comes right after each read."""

    def __init__(self, client: redis.Redis, record: bytes) -> None:
        super().__init__(lambda: client)
        self._raw = client
        self._record = record

    def read(self, key: str) -> tuple[bytes, float] | None:
        found = super().read(key)
        self._raw.delete(self._record)
        return found


def test_a_record_that_was_moved_opens_for_nobody(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """Another user's record under my name is not mine."""
    mine, my_session = log_in(store, alice)
    _, other_session = log_in(store, dataclasses.replace(alice, user=User(APPID, "oBOB")))
    stolen = cast(bytes, raw_redis.get(record_of(raw_redis, other_session)))
    raw_redis.set(record_of(raw_redis, my_session), stolen, ex=1000)
    assert not is_alive(store, mine)


@pytest.mark.parametrize("position", [0, 8, 9, 21, -1], ids=["version", "expiry", "nonce", "ciphertext", "tag"])
def test_a_record_that_was_edited_opens_for_nobody(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, position: int
) -> None:
    """One bit is enough."""
    token, session = log_in(store, alice)
    sealed = bytearray(cast(bytes, raw_redis.get(record_of(raw_redis, session))))
    sealed[position] ^= 1
    raw_redis.set(record_of(raw_redis, session), bytes(sealed), ex=1000)
    assert not is_alive(store, token)


def test_redis_holds_nothing_worth_stealing(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """No token, openid, unionid or session_key stands in any key or value."""
    token, _ = log_in(store, alice, "iPhone")
    stored = b"".join(
        key + (cast(bytes, raw_redis.get(key)) if b":u:" not in key else repr(raw_redis.hgetall(key)).encode())
        for key in keys_of(raw_redis)
    )
    planted = [token, token[8:51], ALICE.openid, cast(str, alice.unionid), SESSION_KEY]
    assert [text for text in planted if text.encode() in stored] == []


def test_every_key_has_a_ttl(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """Nothing lives for ever, a ban included."""
    log_in(store, alice)
    store.ban(User(APPID, "oBOB"))
    assert min(int(raw_redis.ttl(key)) for key in keys_of(raw_redis)) > 0


def test_all_keys_of_a_user_share_a_slot(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    """One hash tag stands in all of them."""
    for _ in range(3):
        log_in(store, alice)
    store.ban(ALICE)
    log_in(store, dataclasses.replace(alice, user=User(APPID, "oBOB")))
    tags = [key.split(b"{")[1].split(b"}")[0] for key in keys_of(raw_redis) if b"{" in key]
    assert sorted(tags.count(tag) for tag in set(tags)) == [1, 2]


def test_the_session_key_is_asked_for_only_when_needed(store: SessionStore, alice: Identity) -> None:
    """It is no part of the session, and any of the user's sessions gets the newest."""
    _, session = log_in(store, alice)
    log_in(store, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
    assert SESSION_KEY not in repr(session)
    assert session.session_key == OTHER_KEY


def test_the_previous_session_key_is_kept(store: SessionStore, alice: Identity) -> None:
    """Data that was sealed before the newest login can still be opened."""
    log_in(store, alice)
    log_in(store, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
    keys = store.session_keys(ALICE)
    assert keys is not None
    assert keys.previous == Secret(SESSION_KEY)


def test_the_session_key_goes_with_the_last_live_session(store: SessionStore, alice: Identity, clock: Clock) -> None:
    """One that died of idleness meanwhile does not keep it."""
    log_in(store, alice)
    clock.advance(400000)
    _, session = log_in(store, alice)
    clock.advance(300000)
    store.revoke(session)
    assert store.session_keys(ALICE) is None


class TestLostAnswers:
    """A transaction that was carried out, and is carried out again because its answer got lost."""

    @pytest.fixture
    def store(self, raw_redis: redis.Redis, ring: KeyRing, limits: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(TwiceDone(lambda: raw_redis), ring, limits, clock)

    @pytest.fixture
    def told(self, store: SessionStore) -> list[str]:
        found: list[str] = []
        store.shelves.on_ended = found.extend
        return found

    def test_who_was_logged_out_is_told(self, store: SessionStore, alice: Identity, told: list[str]) -> None:
        """Or this worker would go on believing what it keeps at hand."""
        ids = {log_in(store, alice)[1].id for _ in range(2)}
        store.end_all(ALICE)
        assert ids <= set(told)

    def test_whom_the_cap_ended_is_told(self, store: SessionStore, alice: Identity, told: list[str]) -> None:
        """The second attempt finds nobody too many."""
        _, first = log_in(store, alice, "first")
        for number in range(3):
            log_in(store, alice, str(number))
        assert devices(store) == ["0", "1", "2"]
        assert first.id in told

    def test_ending_one_is_no_failure(self, store: SessionStore, alice: Identity) -> None:
        """That it is gone by then does not mean that there was none."""
        _, session = log_in(store, alice)
        log_in(store, alice, "other")
        store.end(ALICE, session.id)
        assert devices(store) == ["other"]


class TwiceDone(RedisClient):
    """A Redis whose every transaction is done twice."""

    def transact(self, *args: Any, **options: Any) -> None:
        super().transact(*args, **options)
        super().transact(*args, **options)


def test_a_login_that_no_replica_confirms_ends_nobody(
    redis_server: RedisServer, alice: Identity, ring: KeyRing
) -> None:
    """With WXAUTH_WAIT_REPLICAS and no replica it is refused, and whoever is logged in stays so."""
    limits = SessionPolicy(idle_ttl=604800, max_ttl=2592000, max_sessions=1)
    connect = connector(redis_server.url, "verify")
    store = SessionStore(RedisClient(connect), ring, limits)
    token, session = log_in(store, alice)
    with pytest.raises(StoreUnavailable, match="not_replicated"):
        SessionStore(RedisClient(connect, wait_replicas=1), ring, limits).create(alice, replacing=session)
    assert is_alive(store, token)


def test_a_ban_ends_all_sessions_and_refuses_the_next_login(store: SessionStore, alice: Identity) -> None:
    """A banned user does not come back by logging in again."""
    token, _ = log_in(store, alice)
    store.ban(ALICE)
    with pytest.raises(UserBanned):
        store.create(alice)
    assert not is_alive(store, token)


def test_a_ban_can_be_lifted(store: SessionStore, alice: Identity) -> None:
    """Afterwards the user logs in as ever."""
    store.ban(ALICE)
    store.unban(ALICE)
    token, _ = log_in(store, alice)
    assert is_alive(store, token)


class TestRotation:
    """A new ring key is put first, and the old one is dropped later."""

    @pytest.fixture
    def rotated(self, redis_door: RedisClient, limits: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(redis_door, KeyRing([Secret("n" * 32), Secret(RING_KEY)]), limits, clock)

    @pytest.fixture
    def dropped(self, redis_door: RedisClient, limits: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(redis_door, KeyRing([Secret("n" * 32)]), limits, clock)

    def test_nobody_is_logged_out(self, store: SessionStore, rotated: SessionStore, alice: Identity) -> None:
        """Tokens of the older key go on, and are listed with the new ones in the order of logins."""
        token, _ = log_in(store, alice, "before")
        log_in(rotated, alice, "after")
        assert is_alive(rotated, token)
        assert devices(rotated) == ["before", "after"]

    def test_dropping_a_key_ends_exactly_its_sessions(
        self, store: SessionStore, rotated: SessionStore, dropped: SessionStore, alice: Identity
    ) -> None:
        """Those of the new key stay."""
        (before, _), (after, _) = log_in(store, alice), log_in(rotated, alice)
        assert (is_alive(dropped, before), is_alive(dropped, after)) == (False, True)

    def test_the_cap_holds_across_keys(self, store: SessionStore, rotated: SessionStore, alice: Identity) -> None:
        """The oldest goes, whichever key it was signed with."""
        for number in range(3):
            log_in(store, alice, f"before {number}")
        log_in(rotated, alice, "after")
        assert devices(rotated) == ["before 1", "before 2", "after"]

    def test_logout_everywhere_reaches_both(
        self, store: SessionStore, rotated: SessionStore, alice: Identity, raw_redis: redis.Redis
    ) -> None:
        """Nothing of the user is left under either key."""
        log_in(store, alice)
        log_in(rotated, alice)
        rotated.end_all(ALICE)
        assert keys_of(raw_redis) == []

    def test_a_purge_reaches_both(
        self, store: SessionStore, rotated: SessionStore, alice: Identity, raw_redis: redis.Redis
    ) -> None:
        """Whoever has closed the account is gone, whichever key the sessions were made under."""
        log_in(store, alice)
        log_in(rotated, alice)
        rotated.purge(ALICE)
        assert keys_of(raw_redis) == []

    def test_a_single_logout_reaches_the_older_key(
        self, store: SessionStore, rotated: SessionStore, alice: Identity
    ) -> None:
        """A session is ended whichever key its token was signed with."""
        token, _ = log_in(store, alice)
        rotated.revoke(rotated.resolve(token))
        assert not is_alive(store, token)

    def test_a_ban_outlives_the_rotation(
        self, store: SessionStore, rotated: SessionStore, dropped: SessionStore, alice: Identity
    ) -> None:
        """Whichever keys come and go, and though the user did not try meanwhile."""
        store.ban(ALICE)
        for later in (rotated, dropped):
            with pytest.raises(UserBanned):
                later.create(alice)

    def test_the_session_key_survives(self, store: SessionStore, rotated: SessionStore, alice: Identity) -> None:
        """The key that the user had before the rotation becomes the previous one."""
        log_in(store, alice)
        log_in(rotated, dataclasses.replace(alice, session_key=Secret(OTHER_KEY)))
        keys = rotated.session_keys(ALICE)
        assert keys is not None
        assert (keys.newest, keys.previous) == (Secret(OTHER_KEY), Secret(SESSION_KEY))


def test_logins_at_once_keep_the_cap_and_the_list(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """However they interleave: as many records as the list shows, and no more than the cap."""

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
    records = [key for key in keys_of(raw_redis) if b":s:" in key]
    assert len(records) == len(store.sessions_of(ALICE)) == 3
