"""Why a session ended: what its token raises, on every kind of Redis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import pytest
import redis

from tests.conftest import ALICE, APPID, KINDS, RING_KEY
from wxauth.clock import Clock
from wxauth.errors import SessionBanned, SessionReplaced, SessionRevoked, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.records import ENTRY, reason_of
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient

kinds = tuple(KINDS)
DAY = 86400


def log_in(store: SessionStore, identity: Identity) -> tuple[str, WxSession]:
    token, session = store.create(identity)
    return token.reveal(), session


def field_of(raw: redis.Redis, name: Any, field: str = "r") -> bytes:
    return cast(bytes, raw.hget(name, field))


def error_of(store: SessionStore, token: str) -> type[TokenInvalid]:
    with pytest.raises(TokenInvalid) as raised:
        store.resolve(token)
    return raised.type


ENDS: dict[str, tuple[Callable[[SessionStore, WxSession, WxSession], None], type[TokenInvalid]]] = {
    "own logout": (lambda store, session, _: store.revoke(session), TokenInvalid),
    "own logout by id": (lambda store, session, _: store.end(ALICE, session.id, session.id), TokenInvalid),
    "own logout everywhere": (lambda store, session, _: store.end_all(ALICE, own=session.id), TokenInvalid),
    "another device, by id": (lambda store, session, other: store.end(ALICE, session.id, other.id), SessionRevoked),
    "another device, all others": (lambda store, _, other: store.end_others(other), SessionRevoked),
    "another device, everywhere": (lambda store, _, other: store.end_all(ALICE, own=other.id), SessionRevoked),
    "the operator, by token": (lambda store, session, _: store.revoke(session, "revoked"), SessionRevoked),
    "the operator, by id": (lambda store, session, _: store.end(ALICE, session.id), SessionRevoked),
    "the operator, everywhere": (lambda store, *_: store.end_all(ALICE), SessionRevoked),
    "a purge": (lambda store, *_: store.end_all(ALICE, "purge"), SessionRevoked),
    "a ban": (lambda store, *_: store.ban(ALICE), SessionBanned),
}


@pytest.mark.parametrize(("end", "error"), ENDS.values(), ids=ENDS.keys())
def test_token_of_an_ended_session_says_who_ended_it(
    store: SessionStore, alice: Identity, end: Callable[..., None], error: type[TokenInvalid]
) -> None:
    (token, session), (_, other) = log_in(store, alice), log_in(store, alice)
    end(store, session, other)
    assert error_of(store, token) is error


def test_login_above_the_limit_replaces_the_oldest_session(store: SessionStore, alice: Identity) -> None:
    tokens = [log_in(store, alice)[0] for _ in range(store.policy.max_sessions + 2)]
    assert [error_of(store, token) for token in tokens[:2]] == [SessionReplaced] * 2
    assert store.resolve(tokens[2]).user == ALICE


def test_login_with_the_own_token_gives_it_no_reason(store: SessionStore, alice: Identity) -> None:
    token, session = log_in(store, alice)
    store.create(alice, replacing=session)
    assert error_of(store, token) is TokenInvalid


def test_expired_session_has_no_reason(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice)
    clock.advance(8 * DAY)
    store.end_all(ALICE)
    assert error_of(store, token) is TokenInvalid


def test_reason_ends_when_the_session_would_have_expired(store: SessionStore, alice: Identity, clock: Clock) -> None:
    token, _ = log_in(store, alice)
    clock.advance(6 * DAY)
    store.end_all(ALICE)
    assert error_of(store, token) is SessionRevoked
    clock.advance(DAY + 1)
    assert error_of(store, token) is TokenInvalid


def test_reason_is_kept_for_at_most_seven_days(redis_client: RedisClient, ring: KeyRing, alice: Identity) -> None:
    clock = Clock()
    store = SessionStore(redis_client, ring, SessionPolicy(30 * DAY, 30 * DAY, 3), clock)
    token, _ = log_in(store, alice)
    log_in(store, alice)
    store.end_others(store.resolve(log_in(store, alice)[0]))
    clock.advance(7 * DAY - 60)
    assert error_of(store, token) is SessionRevoked
    clock.advance(120)
    assert error_of(store, token) is TokenInvalid


def test_key_with_reasons_alone_expires_with_them(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """And it holds nothing else: the session_keys go with the last session."""
    log_in(store, alice)
    store.end_all(ALICE)
    (name,) = raw_redis.keys()
    assert raw_redis.hkeys(name) == [b"r"]
    assert 0 < raw_redis.ttl(name) <= 7 * DAY


def test_only_the_newest_twenty_reasons_are_kept(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """Sixty replaced sessions leave less than 4 KiB."""
    tokens = [log_in(store, alice)[0] for _ in range(60 + store.policy.max_sessions)]
    told = [error_of(store, token) for token in tokens[:60]]
    assert told == [TokenInvalid] * 40 + [SessionReplaced] * 20
    (name,) = raw_redis.keys()
    assert sum(len(field) + len(value) for field, value in raw_redis.hgetall(name).items()) < 4096


def test_unban_removes_the_reasons_of_the_ban_alone(store: SessionStore, alice: Identity) -> None:
    (first, session), (second, _) = log_in(store, alice), log_in(store, alice)
    store.end(ALICE, session.id)
    store.ban(ALICE)
    assert error_of(store, second) is SessionBanned
    store.unban(ALICE)
    assert (error_of(store, first), error_of(store, second)) == (SessionRevoked, TokenInvalid)


def test_unban_leaves_no_key_in_redis(store: SessionStore, alice: Identity, raw_redis: redis.Redis) -> None:
    log_in(store, alice)
    store.ban(ALICE)
    store.unban(ALICE)
    assert raw_redis.keys() == []


def test_reason_survives_a_rotation_of_keys(
    store: SessionStore, redis_client: RedisClient, policy: SessionPolicy, alice: Identity
) -> None:
    rotated = SessionStore(redis_client, KeyRing([Secret("n" * 32), Secret(RING_KEY)]), policy)
    (before, _), (replaced, _) = log_in(store, alice), log_in(store, alice)
    rotated.end(ALICE, store.resolve(before).id)
    for _ in range(policy.max_sessions):
        log_in(rotated, alice)
    assert (error_of(rotated, before), error_of(rotated, replaced)) == (SessionRevoked, SessionReplaced)


def test_reason_is_told_if_the_session_ends_between_read_and_touch(
    store: SessionStore, alice: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = log_in(store, alice)
    clock.advance(store.policy.touch_after + 60)
    touch = SessionStore._touch

    def end_then_touch(*args: object, **options: object) -> object:
        store.end_all(ALICE)
        return touch(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SessionStore, "_touch", end_then_touch)
    assert error_of(store, token) is SessionRevoked


def test_reason_of_another_user_is_not_told(store: SessionStore, alice: Identity) -> None:
    bob = Identity(User(APPID, "oBOB"), Secret("k"))
    token, session = log_in(store, bob)
    log_in(store, alice)
    store.end_all(ALICE)
    store.revoke(session)
    assert error_of(store, token) is TokenInvalid


def test_key_lives_as_long_as_its_longest_reason(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """Also if a session is left that ends before."""
    old, _ = log_in(store, alice)
    store.policy = dataclasses.replace(store.policy, idle_ttl=DAY)
    _, other = log_in(store, alice)
    store.end_others(other)
    (name,) = raw_redis.keys()
    assert 6 * DAY < raw_redis.ttl(name) <= 7 * DAY
    assert error_of(store, old) is SessionRevoked


def test_session_keys_go_when_the_last_session_is_found_expired(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, clock: Clock
) -> None:
    """The reasons of others keep the key in Redis."""
    first, _ = log_in(store, alice)
    clock.advance(6 * DAY)
    _, second = log_in(store, alice)
    store.revoke(second, "revoked")
    clock.advance(DAY + 60)
    assert error_of(store, first) is TokenInvalid
    (name,) = raw_redis.keys()
    assert raw_redis.hkeys(name) == [b"r"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda name, entry: b"x" + entry, id="shifted"),
        pytest.param(lambda name, entry: b"\xff" * 8 + entry[8:], id="an end that is too far"),
        pytest.param(lambda name, entry: entry[:-1], id="cut"),
    ],
)
def test_damaged_reasons_are_removed_by_the_next_login(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis, damage: Callable[[str, bytes], bytes]
) -> None:
    token, _ = log_in(store, alice)
    store.end_all(ALICE)
    (name,) = raw_redis.keys()
    raw_redis.hset(name, "r", damage(token, field_of(raw_redis, name)))
    log_in(store, alice)
    assert not raw_redis.hexists(name, "r")
    assert error_of(store, token) is TokenInvalid


def test_field_with_a_name_of_another_length_leaves_no_reason(
    store: SessionStore, alice: Identity, raw_redis: redis.Redis
) -> None:
    """Only a writer to Redis can add it. It would shift the entries behind it."""
    token, session = log_in(store, alice)
    (name,) = raw_redis.keys()
    raw_redis.hset(name, session.id[:-1], field_of(raw_redis, name, session.id))
    store.end_all(ALICE)
    assert len(field_of(raw_redis, name)) == ENTRY.size
    assert error_of(store, token) is SessionRevoked


def test_newest_logins_are_told_if_more_than_twenty_sessions_end(
    redis_client: RedisClient, ring: KeyRing, alice: Identity
) -> None:
    store = SessionStore(redis_client, ring, SessionPolicy(DAY, DAY, 30))
    tokens = [log_in(store, alice)[0] for _ in range(25)]
    store.end_all(ALICE)
    assert [error_of(store, token) for token in tokens] == [TokenInvalid] * 5 + [SessionRevoked] * 20


def test_unban_between_the_mark_and_the_end_of_a_ban_leaves_no_banned_token(
    store: SessionStore, alice: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = log_in(store, alice)
    end = SessionStore._end

    def unban_then_end(self: SessionStore, *args: Any) -> list[str]:
        self.unban(ALICE)
        return end(self, *args)

    monkeypatch.setattr(SessionStore, "_end", unban_then_end)
    store.ban(ALICE)
    assert error_of(store, token) is TokenInvalid


@pytest.mark.parametrize("entries", [b"", b"x", b"\0" * 30, b"\xff" * 32, b"\xff" * 100])
def test_reason_of_in_damaged_entries_returns_none(entries: bytes) -> None:
    assert reason_of(entries, "i" * 22, 0) is None


def test_reason_of_returns_the_newest_entry_of_the_session() -> None:
    name, other = b"i" * 22, b"o" * 22
    entries = ENTRY.pack(2_000_000, b"c", name) + ENTRY.pack(2_000_000, b"b", other) + b"rest"
    assert [reason_of(entries, "i" * 22, now) for now in (1, 2)] == [b"c", None]
