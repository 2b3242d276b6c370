"""Tickets, and the sessions of each kind: limits, and how a session by ticket ends. On every kind of Redis."""

from __future__ import annotations

import dataclasses
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import redis

from tests.conftest import ALICE, APPID, KINDS, RING_KEY
from tests.sessions.test_store import WrongClock
from tests.support.scans import CONSOLE, RunsTwice, error_of, log_in_by_scan, log_in_by_ticket, outcome
from tests.support.servers import wait_until
from wxauth.clock import Clock
from wxauth.errors import TicketInvalid, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.records import hash_name
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.sessions.tickets import TICKET_LIFE, Tickets
from wxauth.storage.acl import REVOCATIONS
from wxauth.storage.client import RedisClient

kinds = tuple(KINDS)
DAY = 86400
MICROSECONDS = 1_000_000


@pytest.fixture
def tickets(store: SessionStore, ring: KeyRing) -> Tickets:
    return Tickets(store, ring)


@pytest.fixture
def phone(store: SessionStore, alice: Identity) -> WxSession:
    return store.create(alice, "phone")[1]


def devices(store: SessionStore) -> list[str | None]:
    return [entry.device for entry in store.sessions_of(ALICE)]


def hash_of(raw: redis.Redis, session: WxSession) -> str:
    return next(name.decode() for name in cast(list[bytes], raw.keys("wxa:{*}")) if raw.hexists(name, session.id))


def ticket_fields(raw: redis.Redis, name: str) -> dict[bytes, bytes]:
    found = cast(dict[bytes, bytes], raw.hgetall(name))
    return {field: value for field, value in found.items() if field.startswith(b"t:")}


# --- A ticket


def test_ticket_gives_a_session_of_its_user(store: SessionStore, tickets: Tickets, phone: WxSession) -> None:
    token, session = log_in_by_ticket(tickets, phone, "page")
    found = store.resolve(token)
    assert (found.user, found.unionid, found.device, found.kind) == (ALICE, phone.unionid, "page", "ticket")
    assert (found.id, found.id == phone.id) == (session.id, False)
    assert store.resolve(token).kind == session.kind == "ticket"


def test_session_by_ticket_without_a_device_is_labelled_web_view(
    store: SessionStore, tickets: Tickets, phone: WxSession
) -> None:
    log_in_by_ticket(tickets, phone)
    assert devices(store) == ["phone", "web-view"]


def test_session_by_ticket_brings_no_session_key(
    store: SessionStore, tickets: Tickets, alice: Identity, phone: WxSession
) -> None:
    before = store.session_keys(ALICE)
    _, session = log_in_by_ticket(tickets, phone)
    assert store.session_keys(ALICE) == before
    assert session.session_key == alice.session_key.reveal()


def test_ticket_works_once(tickets: Tickets, phone: WxSession) -> None:
    ticket = tickets.issue(phone).reveal()
    tickets.redeem(ticket)
    with pytest.raises(TicketInvalid):
        tickets.redeem(ticket)


def test_ticket_redeemed_by_many_at_once_gives_one_session(
    store: SessionStore, tickets: Tickets, phone: WxSession
) -> None:
    ticket, found = tickets.issue(phone).reveal(), list[str]()
    threads = [
        threading.Thread(target=lambda: found.append(outcome(lambda: tickets.redeem(ticket)))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["TicketInvalid"] * 5 + ["ok"]
    assert devices(store) == ["phone", "web-view"]


@pytest.mark.parametrize(("seconds", "expected"), [(TICKET_LIFE - 2, "ok"), (TICKET_LIFE + 1, "TicketInvalid")])
def test_ticket_is_good_for_60_seconds(
    tickets: Tickets, phone: WxSession, clock: Clock, seconds: int, expected: str
) -> None:
    ticket = tickets.issue(phone).reveal()
    clock.advance(seconds)
    assert outcome(lambda: tickets.redeem(ticket)) == expected


@pytest.mark.parametrize("text", ["", "x", "wxt_" + "A" * 65 + "." + "A" * 43, "wxt_\x00"])
def test_text_that_is_no_ticket_sends_no_command(ring: KeyRing, policy: SessionPolicy, text: str) -> None:
    def no_redis() -> redis.Redis:
        raise AssertionError("a command was sent")

    store = SessionStore(RedisClient(no_redis), ring, policy)
    with pytest.raises(TicketInvalid):
        Tickets(store, ring).redeem(text)


def test_token_and_device_code_are_no_tickets_and_the_other_way_round(
    store: SessionStore, tickets: Tickets, codes: DeviceCodes, alice: Identity, phone: WxSession
) -> None:
    token = store.create(alice)[0].reveal()
    ticket = tickets.issue(phone).reveal()
    device_code = codes.request(CONSOLE, APPID, "")[0].reveal()
    for text in (token, device_code, "wxt_" + token[4:], "wxt_" + device_code[4:]):
        assert outcome(partial(tickets.redeem, text)) == "TicketInvalid"
    for text in (ticket, device_code, "wxa_" + ticket[4:], "wxa_" + device_code[4:]):
        assert error_of(store, text) == "TokenInvalid"
    assert outcome(lambda: tickets.redeem(ticket)) == "ok"


def test_sixth_open_ticket_of_a_session_replaces_its_oldest(
    store: SessionStore, tickets: Tickets, phone: WxSession, alice: Identity, raw_redis: redis.Redis
) -> None:
    _, other = store.create(alice)
    of_other = tickets.issue(other).reveal()
    issued = [tickets.issue(phone).reveal() for _ in range(6)]
    assert len(ticket_fields(raw_redis, hash_of(raw_redis, phone))) == 6
    assert [outcome(partial(tickets.redeem, it)) for it in issued] == ["TicketInvalid"] + ["ok"] * 5
    assert outcome(partial(tickets.redeem, of_other)) == "ok"


def test_session_that_has_ended_gets_no_ticket(store: SessionStore, tickets: Tickets, phone: WxSession) -> None:
    store.revoke(phone)
    with pytest.raises(TokenInvalid):
        tickets.issue(phone)


def test_script_gives_no_ticket_to_a_session_by_scan_or_by_ticket(
    tickets: Tickets, codes: DeviceCodes, phone: WxSession
) -> None:
    """The routes refuse it before. So does the script, by the kind in the clear part."""
    for session in (log_in_by_scan(codes, phone)[1], log_in_by_ticket(tickets, phone)[1]):
        with pytest.raises(TokenInvalid):
            tickets.issue(session)


def test_ticket_does_not_open_with_the_user_of_another_ticket(
    store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis
) -> None:
    """A writer to Redis copies the field of one user's ticket to that of another."""
    other = store.create(Identity(User(APPID, "oBOB"), Secret("k")))[1]
    mine, _ = tickets.issue(phone).reveal(), tickets.issue(other)
    (name,) = ticket_fields(raw_redis, hash_of(raw_redis, phone))
    (value,) = ticket_fields(raw_redis, hash_of(raw_redis, other)).values()
    raw_redis.hset(hash_of(raw_redis, phone), name.decode(), value)
    with pytest.raises(TicketInvalid):
        tickets.redeem(mine)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda value: b"",
    "short": lambda value: value[:29],
    "clear part only": lambda value: value[:30],
    "an end that is too far": lambda value: b"\xff" * 8 + value[8:],
    "an end in the past": lambda value: bytes(8) + value[8:],
    "another parent": lambda value: value[:8] + b"A" * 22 + value[30:],
    "a flipped bit in the seal": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_ticket_is_refused_and_blocks_nothing(
    store: SessionStore,
    tickets: Tickets,
    alice: Identity,
    phone: WxSession,
    raw_redis: redis.Redis,
    damage: Callable[[bytes], bytes],
) -> None:
    ticket, name = tickets.issue(phone).reveal(), hash_of(raw_redis, phone)
    ((field, value),) = ticket_fields(raw_redis, name).items()
    raw_redis.hset(name, field.decode(), damage(value))
    assert outcome(lambda: tickets.redeem(ticket)) == "TicketInvalid"
    assert outcome(lambda: tickets.redeem(tickets.issue(phone).reveal())) == "ok"
    store.create(alice, "later")
    assert devices(store) == ["phone", "web-view", "later"]
    store.end_all(ALICE)
    assert devices(store) == []


def test_field_of_a_ticket_is_in_no_list_and_no_limit(
    store: SessionStore, tickets: Tickets, alice: Identity, phone: WxSession
) -> None:
    """Even if its end has passed, and even where its value is as long as that of a session."""
    for _ in range(3):
        tickets.issue(phone)
    for number in range(2):
        store.create(alice, str(number))
    assert devices(store) == ["phone", "0", "1"]


# --- How a ticket and a session by ticket end

#: The arguments: the parent, another session of its user, the user.
Ended = Callable[[SessionStore, WxSession, WxSession, Identity], object]
#: How the parent ends, and what the token of the session by ticket raises then.
ENDS: dict[str, tuple[Ended, str]] = {
    "own logout": (lambda store, phone, *_: store.revoke(phone), "TokenInvalid"),
    "own logout by id": (lambda store, phone, *_: store.end(ALICE, phone.id, phone.id), "TokenInvalid"),
    "own logout everywhere": (lambda store, phone, *_: store.end_all(ALICE, own=phone.id), "TokenInvalid"),
    "a login in its place": (lambda store, phone, _, alice: store.create(alice, replacing=phone), "TokenInvalid"),
    "another device, by id": (lambda store, phone, other, _: store.end(ALICE, phone.id, other.id), "SessionRevoked"),
    "another device, the others": (lambda store, phone, other, _: store.end_others(other), "SessionRevoked"),
    "another device, everywhere": (lambda store, _, other, __: store.end_all(ALICE, own=other.id), "SessionRevoked"),
    "the operator, by token": (lambda store, phone, *_: store.revoke(phone, "revoked"), "SessionRevoked"),
    "the operator, everywhere": (lambda store, *_: store.end_all(ALICE), "SessionRevoked"),
    "the limit": (lambda store, phone, other, alice: [store.create(alice) for _ in range(3)], "SessionReplaced"),
    "a ban": (lambda store, *_: store.ban(ALICE), "SessionBanned"),
    "idle expiry": (lambda store, *_: store.now.advance(store.policy.idle_ttl + 1), "TokenInvalid"),
    "absolute expiry": (lambda store, phone, *_: use_until_the_end(store, phone), "TokenInvalid"),
}


def use_until_the_end(store: SessionStore, phone: WxSession) -> None:
    """Let time pass to the absolute end, while the session is used."""
    for _ in range(6):
        store.now.advance(store.policy.max_ttl / 6)
        error_of_touching(store, TOKENS[phone.id])


#: The tokens of the parents, by id of the session.
TOKENS: dict[str, str] = {}


def error_of_touching(store: SessionStore, token: str) -> str:
    return outcome(lambda: store.resolve(token))


@pytest.fixture
def parent(store: SessionStore, alice: Identity) -> WxSession:
    token, session = store.create(alice, "parent")
    TOKENS[session.id] = token.reveal()
    return session


@pytest.mark.parametrize(("end", "error"), ENDS.values(), ids=ENDS.keys())
def test_session_by_ticket_ends_with_its_parent_and_for_its_reason(
    store: SessionStore, tickets: Tickets, alice: Identity, parent: WxSession, end: Ended, error: str
) -> None:
    token, _ = log_in_by_ticket(tickets, parent)
    _, other = store.create(alice, "other")
    end(store, parent, other, alice)
    assert error_of(store, token) == error
    assert "web-view" not in devices(store)


@pytest.mark.parametrize("end", [end for end, _ in ENDS.values()], ids=ENDS.keys())
def test_ticket_dies_with_its_session(
    store: SessionStore, tickets: Tickets, alice: Identity, parent: WxSession, end: Ended
) -> None:
    _, other = store.create(alice, "other")
    ticket = tickets.issue(parent).reveal()
    end(store, parent, other, alice)
    before = devices(store)
    assert outcome(lambda: tickets.redeem(ticket)) in ("TicketInvalid", "UserBanned")
    assert devices(store) == before


def test_ban_after_the_ticket_refuses_it(store: SessionStore, tickets: Tickets, phone: WxSession) -> None:
    ticket = tickets.issue(phone).reveal()
    store.ban(ALICE)
    store.unban(ALICE)
    assert outcome(lambda: tickets.redeem(ticket)) == "TicketInvalid"


def test_session_by_ticket_ends_at_the_idle_end_of_its_parent_though_it_is_used(
    store: SessionStore, tickets: Tickets, phone: WxSession, clock: Clock
) -> None:
    """It is used every hour. The parent is not used."""
    token, _ = log_in_by_ticket(tickets, phone)
    for _ in range(7 * 24 - 1):
        clock.advance(3600)
        assert error_of_touching(store, token) == "ok"
    clock.advance(3602)
    assert error_of_touching(store, token) == "TokenInvalid"


def test_session_by_ticket_lives_on_while_its_parent_is_used(
    store: SessionStore, tickets: Tickets, parent: WxSession, clock: Clock
) -> None:
    token, _ = log_in_by_ticket(tickets, parent)
    for _ in range(12):
        clock.advance(DAY)
        assert error_of_touching(store, TOKENS[parent.id]) == "ok"
        assert error_of_touching(store, token) == "ok"


def test_use_of_a_session_by_ticket_does_not_prolong_its_parent(
    store: SessionStore, tickets: Tickets, parent: WxSession, clock: Clock
) -> None:
    token, _ = log_in_by_ticket(tickets, parent)
    clock.advance(6 * DAY)
    assert error_of_touching(store, token) == "ok"
    clock.advance(DAY + 1)
    assert error_of(store, TOKENS[parent.id]) == "TokenInvalid"


def test_session_by_ticket_says_when_it_ends_at_the_latest(
    store: SessionStore, tickets: Tickets, parent: WxSession, clock: Clock
) -> None:
    """Its parent has a day left, less than the idle life."""
    for _ in range(29):
        clock.advance(DAY)
        error_of_touching(store, TOKENS[parent.id])
    token, session = log_in_by_ticket(tickets, store.resolve(TOKENS[parent.id]))
    assert session.expires_in <= DAY
    assert store.resolve(token).expires_in <= DAY


def test_login_by_ticket_says_when_its_parent_ends_if_it_is_not_used(
    store: SessionStore, tickets: Tickets, parent: WxSession, clock: Clock
) -> None:
    ticket = tickets.issue(parent)
    clock.advance(TICKET_LIFE - 2)
    _, session = tickets.redeem(ticket.reveal())
    # The end that Redis keeps. `parent` was made before the login script ran, perhaps in the second before.
    assert session.expires_at == store.resolve(TOKENS[parent.id], touch=False).expires_at


def test_own_logout_of_a_session_by_ticket_leaves_its_parent(
    store: SessionStore, tickets: Tickets, phone: WxSession
) -> None:
    token, session = log_in_by_ticket(tickets, phone)
    store.revoke(session)
    assert error_of(store, token) == "TokenInvalid"
    assert devices(store) == ["phone"]


def test_session_by_ticket_that_its_parent_ends_by_id_is_revoked(
    store: SessionStore, tickets: Tickets, phone: WxSession
) -> None:
    token, session = log_in_by_ticket(tickets, phone)
    store.end(ALICE, session.id, phone.id)
    assert error_of(store, token) == "SessionRevoked"
    assert devices(store) == ["phone"]


def test_sessions_by_ticket_of_another_parent_stay(
    store: SessionStore, tickets: Tickets, alice: Identity, phone: WxSession
) -> None:
    _, other = store.create(alice, "other")
    log_in_by_ticket(tickets, phone, "page of the phone")
    log_in_by_ticket(tickets, other, "page of the other")
    store.revoke(phone)
    assert devices(store) == ["other", "page of the other"]


def test_end_of_a_parent_reports_its_sessions_by_ticket_to_the_caches(
    store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis
) -> None:
    """This worker learns it by the reply of the script, the others by the channel."""
    _, session = log_in_by_ticket(tickets, phone)
    raw: Any = raw_redis
    channel = raw.pubsub()
    channel.subscribe(REVOCATIONS)
    # Until Redis has confirmed it, a message may be missed.
    wait_until(lambda: (channel.get_message() or {}).get("type") == "subscribe", "the subscription", 5)
    told: list[str] = []
    store.on_ended = lambda ids: told.extend(ids or ["all"])
    store.revoke(phone)
    published: list[str] = []

    def hears() -> bool:
        published.extend(message["data"].decode() for message in [channel.get_message()] if message)
        return bool(published)

    wait_until(hears, "the message", 5)
    channel.close()
    assert sorted(told) == sorted(published[0].split()) == sorted([phone.id, session.id])


def test_session_by_ticket_of_a_missing_parent_is_in_no_list_and_does_not_resolve(
    store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis
) -> None:
    """Only a writer to Redis can remove the parent alone. The list writes nothing, the next login removes it."""
    token, session = log_in_by_ticket(tickets, phone)
    name = hash_of(raw_redis, phone)
    raw_redis.hdel(name, phone.id)
    before = raw_redis.hgetall(name)
    assert devices(store) == []
    assert raw_redis.hgetall(name) == before
    assert error_of(store, token) == "TokenInvalid"
    store.create(Identity(ALICE, Secret("k")))
    assert not raw_redis.hexists(name, session.id)


def test_touch_of_a_session_by_ticket_removes_it_if_its_parent_is_gone(
    store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis, clock: Clock
) -> None:
    token, session = log_in_by_ticket(tickets, phone)
    name = hash_of(raw_redis, phone)
    raw_redis.hdel(name, phone.id)
    clock.advance(6 * DAY)
    assert error_of_touching(store, token) == "TokenInvalid"
    assert not raw_redis.hexists(name, session.id)


@pytest.mark.parametrize("kind", [b"w", b"s", b"x", b"\xff"])
def test_session_by_ticket_whose_kind_was_changed_in_redis_does_not_open(
    store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis, kind: bytes
) -> None:
    token, session = log_in_by_ticket(tickets, phone)
    name = hash_of(raw_redis, phone)
    value = cast(bytes, raw_redis.hget(name, session.id))
    raw_redis.hset(name, session.id, value[:16] + kind + value[17:])
    assert error_of(store, token) == "TokenInvalid"
    assert error_of(store, store.create(Identity(ALICE, Secret("k")))[0].reveal()) == "ok"


def test_scan_that_was_changed_to_a_login_in_redis_stays_a_scan(
    store: SessionStore, codes: DeviceCodes, phone: WxSession, raw_redis: redis.Redis
) -> None:
    """The record says the kind too, under the seal."""
    token, session = log_in_by_scan(codes, phone)
    name = hash_of(raw_redis, phone)
    value = cast(bytes, raw_redis.hget(name, session.id))
    assert value[16:17] == b"s"
    raw_redis.hset(name, session.id, value[:16] + b"w" + value[17:])
    assert store.resolve(token).kind == "scan"


# --- Limits


def test_limit_of_logins_counts_neither_scans_nor_tickets(
    store: SessionStore, tickets: Tickets, codes: DeviceCodes, alice: Identity, phone: WxSession
) -> None:
    """WXAUTH_MAX_SESSIONS is 3."""
    for _ in range(5):
        log_in_by_scan(codes, phone)
    log_in_by_ticket(tickets, phone)
    for number in range(2):
        store.create(alice, str(number))
    assert sorted(map(str, devices(store))) == sorted(["phone", "0", "1", "web-view", *[CONSOLE] * 5])
    store.create(alice, "2")
    assert sorted(map(str, devices(store))) == sorted(["0", "1", "2", *[CONSOLE] * 5])


@pytest.mark.parametrize(("max_sessions", "limit"), [(1, 5), (5, 5), (7, 7)])
def test_sessions_by_scan_have_the_same_limit_but_at_least_five(
    redis_client: RedisClient, ring: KeyRing, alice: Identity, max_sessions: int, limit: int
) -> None:
    store = SessionStore(redis_client, ring, SessionPolicy(604800, 2592000, max_sessions))
    codes = DeviceCodes(redis_client, ring, store)
    phone = store.create(alice)[1]
    tokens = [log_in_by_scan(codes, phone, f"console-{number}")[0] for number in range(limit + 1)]
    assert [error_of(store, token) for token in tokens] == ["SessionReplaced"] + ["ok"] * limit
    assert error_of(store, store.create(alice)[0].reveal()) == "ok"


def test_sixth_session_by_ticket_of_a_parent_replaces_the_oldest_of_that_parent(
    store: SessionStore, tickets: Tickets, alice: Identity, phone: WxSession
) -> None:
    _, other = store.create(alice, "other")
    first, _ = log_in_by_ticket(tickets, other, "first")
    tokens = [log_in_by_ticket(tickets, phone)[0] for _ in range(6)]
    assert [error_of(store, token) for token in tokens] == ["SessionReplaced"] + ["ok"] * 5
    assert error_of(store, first) == "ok"


def test_login_by_ticket_ends_the_session_of_the_token_sent_along(
    store: SessionStore, tickets: Tickets, phone: WxSession
) -> None:
    before, session = log_in_by_ticket(tickets, phone)
    token, _ = tickets.redeem(tickets.issue(phone).reveal(), replacing=session)
    assert (error_of(store, before), error_of(store, token.reveal())) == ("TokenInvalid", "ok")


def test_login_by_ticket_with_the_token_of_its_parent_does_not_end_the_parent(
    store: SessionStore, tickets: Tickets, parent: WxSession
) -> None:
    """The new session would end with it."""
    token, _ = tickets.redeem(tickets.issue(parent).reveal(), replacing=parent)
    assert (error_of(store, TOKENS[parent.id]), error_of(store, token.reveal())) == ("ok", "ok")


# --- Scripts that are sent again, and clocks


class TestRepeatedScripts:
    @pytest.fixture
    def store(self, raw_redis: redis.Redis, ring: KeyRing, policy: SessionPolicy, clock: Clock) -> SessionStore:
        return SessionStore(RunsTwice(lambda: raw_redis), ring, policy, clock)

    def test_ticket_is_issued_once(
        self, store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis
    ) -> None:
        ticket = tickets.issue(phone).reveal()
        assert len(ticket_fields(raw_redis, hash_of(raw_redis, phone))) == 1
        assert outcome(lambda: tickets.redeem(ticket)) == "ok"

    def test_fifth_ticket_replaces_none(self, tickets: Tickets, phone: WxSession) -> None:
        issued = [tickets.issue(phone).reveal() for _ in range(5)]
        assert [outcome(partial(tickets.redeem, it)) for it in issued] == ["ok"] * 5

    def test_login_by_ticket_succeeds(self, store: SessionStore, tickets: Tickets, phone: WxSession) -> None:
        token, _ = log_in_by_ticket(tickets, phone)
        assert error_of(store, token) == "ok"
        assert devices(store) == ["phone", "web-view"]

    def test_used_ticket_stays_used(self, tickets: Tickets, phone: WxSession) -> None:
        ticket = tickets.issue(phone).reveal()
        tickets.redeem(ticket)
        assert outcome(lambda: tickets.redeem(ticket)) == "TicketInvalid"

    def test_end_of_the_parent_ends_the_child_with_its_reason(
        self, store: SessionStore, tickets: Tickets, phone: WxSession
    ) -> None:
        token, session = log_in_by_ticket(tickets, phone)
        told: list[str] = []
        store.on_ended = lambda ids: told.extend(ids or ["all"])
        store.revoke(phone, "revoked")
        assert error_of(store, token) == "SessionRevoked"
        assert "all" in told or session.id in told


@pytest.mark.parametrize("days", [8, -8], ids=["ahead", "behind"])
def test_worker_with_a_wrong_clock_neither_refuses_nor_prolongs_a_ticket(
    redis_client: RedisClient, ring: KeyRing, policy: SessionPolicy, alice: Identity, days: int
) -> None:
    right = SessionStore(redis_client, ring, policy)
    wrong = SessionStore(redis_client, ring, policy, WrongClock(days * DAY))
    phone = right.create(alice, "phone")[1]
    for issuer, redeemer in ((right, wrong), (wrong, right), (wrong, wrong)):
        token, _ = Tickets(redeemer, ring).redeem(Tickets(issuer, ring).issue(phone).reveal())
        for store in (right, wrong):
            assert error_of(store, token.reveal()) == "ok"
    right.revoke(phone)
    assert devices(wrong) == []


# --- Rotation of ring keys


class TestKeyRotation:
    NEW = Secret("n" * 32)

    def stores(self, redis_client: RedisClient, policy: SessionPolicy, *keys: Secret) -> tuple[SessionStore, KeyRing]:
        ring = KeyRing(keys)
        return SessionStore(redis_client, ring, policy), ring

    @pytest.fixture
    def rotated(self, redis_client: RedisClient, policy: SessionPolicy) -> SessionStore:
        return SessionStore(redis_client, KeyRing([self.NEW, Secret(RING_KEY)]), policy)

    @pytest.fixture
    def rotated_tickets(self, rotated: SessionStore) -> Tickets:
        return Tickets(rotated, KeyRing([self.NEW, Secret(RING_KEY)]))

    @pytest.fixture
    def dropped(self, redis_client: RedisClient, policy: SessionPolicy) -> SessionStore:
        return SessionStore(redis_client, KeyRing([self.NEW]), policy)

    def test_session_of_a_parent_under_an_older_key_ends_with_it(
        self, rotated: SessionStore, rotated_tickets: Tickets, phone: WxSession
    ) -> None:
        token, _ = log_in_by_ticket(rotated_tickets, phone)
        assert error_of(rotated, token) == "ok"
        assert devices(rotated) == ["phone", "web-view"]
        rotated.revoke(phone, "revoked")
        assert error_of(rotated, token) == "SessionRevoked"

    def test_ticket_from_before_the_rotation_works_after_it(
        self, tickets: Tickets, rotated: SessionStore, rotated_tickets: Tickets, phone: WxSession
    ) -> None:
        token, _ = rotated_tickets.redeem(tickets.issue(phone).reveal())
        assert error_of(rotated, token.reveal()) == "ok"

    def test_dropping_the_key_ends_the_sessions_of_its_parents(
        self, rotated_tickets: Tickets, dropped: SessionStore, phone: WxSession
    ) -> None:
        """Otherwise no list would show them, and no ban would end them."""
        token, _ = log_in_by_ticket(rotated_tickets, phone)
        assert error_of(dropped, token) == "TokenInvalid"

    def test_dropping_the_key_ends_its_tickets(
        self, rotated_tickets: Tickets, dropped: SessionStore, phone: WxSession
    ) -> None:
        ticket = rotated_tickets.issue(phone).reveal()
        assert outcome(lambda: Tickets(dropped, KeyRing([self.NEW])).redeem(ticket)) == "TicketInvalid"

    def test_limit_of_scans_holds_across_keys(
        self, redis_client: RedisClient, codes: DeviceCodes, rotated: SessionStore, phone: WxSession
    ) -> None:
        tokens = [log_in_by_scan(codes, phone)[0] for _ in range(5)]
        after = DeviceCodes(redis_client, KeyRing([self.NEW, Secret(RING_KEY)]), rotated)
        tokens.append(log_in_by_scan(after, phone)[0])
        assert [error_of(rotated, token) for token in tokens] == ["SessionReplaced"] + ["ok"] * 5
        assert devices(rotated) == ["phone", *[CONSOLE] * 5]

    def test_login_above_the_limit_ends_the_pages_of_a_parent_under_an_older_key(
        self, rotated: SessionStore, tickets: Tickets, alice: Identity, phone: WxSession
    ) -> None:
        token, _ = log_in_by_ticket(tickets, phone)
        for _ in range(3):
            rotated.create(alice)
        assert error_of(rotated, token) == "SessionReplaced"


def test_redis_holds_no_ticket_and_no_openid_of_it_in_the_clear(
    tickets: Tickets, phone: WxSession, raw_redis: redis.Redis
) -> None:
    ticket = tickets.issue(phone).reveal()
    token, _ = log_in_by_ticket(tickets, phone)
    (name,) = cast(list[bytes], raw_redis.keys())
    fields = cast(dict[bytes, bytes], raw_redis.hgetall(name))
    stored = b"".join([name, *fields.keys(), *fields.values()])
    planted = [ticket, ticket[26:69], token, token[26:69], ALICE.openid, cast(str, phone.unionid), "web-view"]
    assert [text for text in planted if text.encode() in stored] == []


def test_ticket_of_a_hash_that_is_not_there_is_refused(ring: KeyRing, tickets: Tickets) -> None:
    """It is signed, but Redis was emptied."""
    forgotten = ring.make(ring.newest.for_user(ALICE).hash_tag, prefix="wxt_")
    with pytest.raises(TicketInvalid):
        tickets.redeem(forgotten.text)


def test_clear_end_moved_by_hand_does_not_prolong_a_session_by_ticket(
    store: SessionStore, tickets: Tickets, phone: WxSession, raw_redis: redis.Redis, clock: Clock
) -> None:
    """Not beyond the absolute end of its parent, which is under the seal."""
    clock.advance(5 * DAY)
    token, session = log_in_by_ticket(tickets, phone)
    name = hash_of(raw_redis, phone)
    far = struct.pack(">Q", int((clock() + 100 * DAY) * MICROSECONDS))
    for id in (session.id, phone.id):
        raw_redis.hset(name, id, far + cast(bytes, raw_redis.hget(name, id))[8:])
    clock.advance(25 * DAY + 1)
    assert error_of(store, token) == "TokenInvalid"


def test_shorter_absolute_life_in_the_settings_ends_the_pages_of_a_parent(
    store: SessionStore, redis_client: RedisClient, ring: KeyRing, tickets: Tickets, phone: WxSession, clock: Clock
) -> None:
    clock.advance(2 * DAY)
    token, _ = log_in_by_ticket(tickets, phone)
    shorter = SessionStore(redis_client, ring, SessionPolicy(604800, 3 * DAY, 3), clock)
    clock.advance(DAY + 1)
    assert error_of_touching(shorter, token) == "TokenInvalid"


def test_name_of_the_hash_is_that_of_the_ticket(tickets: Tickets, phone: WxSession, raw_redis: redis.Redis) -> None:
    """A ticket names its user's hash, so a forged one cannot point elsewhere."""
    ticket = tickets.issue(phone).reveal()
    assert hash_of(raw_redis, phone) == hash_name(ticket[4:26])


def test_policy_of_kinds(policy: SessionPolicy) -> None:
    many = dataclasses.replace(policy, max_sessions=8)
    found: list[Any] = [[it.limit_of(kind) for kind in "wst"] for it in (policy, many)]
    assert found == [[3, 5, 5], [8, 8, 5]]
