"""Device codes: ask, show, answer, poll. On every kind of Redis."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest
import redis

from tests.conftest import ALICE, APPID, KINDS, RING_KEY
from tests.sessions.test_store import WrongClock
from tests.support.scans import (
    CONSOLE,
    NETWORK,
    LosesReplies,
    RunsTwice,
    ask,
    error_of,
    log_in_by_scan,
    outcome,
)
from tests.support.servers import RedisServer
from wxauth.clock import Clock
from wxauth.errors import (
    AccessDenied,
    AuthorizationPending,
    DeviceCodeAnswered,
    DeviceCodeNotFound,
    ExpiredToken,
    InvalidGrant,
    SlowDown,
    StoreUnavailable,
)
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions import device_codes
from wxauth.sessions.device_codes import LIFE, DeviceCodes, hash_name, normalized
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

kinds = tuple(KINDS)
BOB = User(APPID, "oBOB")


@pytest.fixture
def phone(store: SessionStore, alice: Identity) -> WxSession:
    return store.create(alice, "phone")[1]


def at_once(*acts: Callable[[], object]) -> list[str]:
    """Run the acts in threads that start together. Return their outcomes in the order of `acts`."""
    barrier = threading.Barrier(len(acts))
    found = dict[int, str]()

    def run(number: int, act: Callable[[], object]) -> None:
        barrier.wait(10)
        found[number] = outcome(act)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(acts))]


def poll(codes: DeviceCodes, code: str, client_id: str = CONSOLE) -> str:
    return outcome(lambda: codes.poll(code, client_id))


def devices(store: SessionStore) -> list[str | None]:
    return [entry.device for entry in store.sessions_of(ALICE)]


# --- Ask and show


def test_user_code_has_eight_letters_and_no_vowels(codes: DeviceCodes) -> None:
    for _ in range(20):
        assert re.fullmatch("[BCDFGHJKLMNPQRSTVWXZ]{8}", ask(codes, APPID)[1])


def test_code_shows_the_client_the_app_the_time_and_the_network(codes: DeviceCodes, clock: Clock) -> None:
    _, user_code = ask(codes, APPID)
    asked, seconds = codes.show(user_code, APPID)
    assert (asked.client_id, asked.appid, asked.network) == (CONSOLE, APPID, NETWORK)
    assert abs(asked.created_at - clock()) < 5
    assert LIFE - 5 < seconds <= LIFE
    clock.advance(100)
    assert LIFE - 105 < codes.show(user_code)[1] <= LIFE - 100


def test_code_for_another_app_is_not_found(codes: DeviceCodes, phone: WxSession) -> None:
    code, user_code = ask(codes, "wxsecond")
    with pytest.raises(DeviceCodeNotFound):
        codes.show(user_code, APPID)
    with pytest.raises(DeviceCodeNotFound) as raised:
        codes.answer(user_code, phone, approve=True)
    assert raised.type is DeviceCodeNotFound
    assert poll(codes, code) == "AuthorizationPending"


@pytest.mark.parametrize("user_code", ["BCDFGHJK", "ZZZZZZZZ"])
def test_unknown_user_code_is_not_found(codes: DeviceCodes, phone: WxSession, user_code: str) -> None:
    for act in (lambda: codes.show(user_code), lambda: codes.answer(user_code, phone, approve=True)):
        with pytest.raises(DeviceCodeNotFound) as raised:
            act()
        assert raised.type is DeviceCodeNotFound


@pytest.mark.parametrize("approve", [True, False])
def test_answered_user_code_is_not_found_and_no_guess(codes: DeviceCodes, phone: WxSession, approve: bool) -> None:
    _, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=approve)
    for act in (lambda: codes.show(user_code), lambda: codes.answer(user_code, phone, approve=not approve)):
        with pytest.raises(DeviceCodeAnswered):
            act()


def test_expired_user_code_is_not_found(codes: DeviceCodes, phone: WxSession, clock: Clock) -> None:
    code, user_code = ask(codes, APPID)
    clock.advance(LIFE + 1)
    assert outcome(lambda: codes.show(user_code)) == "DeviceCodeNotFound"
    assert outcome(lambda: codes.answer(user_code, phone, approve=True)) == "DeviceCodeNotFound"
    assert poll(codes, code) == "ExpiredToken"


@pytest.mark.parametrize("text", ["BCDFGHJK", "bcdfghjk", "BCDF-GHJK", "bcdf-ghjk", "-b-c-d-f-g-h-j-k-"])
def test_user_code_is_compared_without_case_and_dashes(text: str) -> None:
    assert normalized(text) == "BCDFGHJK"


@pytest.mark.parametrize("text", ["", "BCDFGHJ", "BCDFGHJKL", "ACDFGHJK", "BCDF GHJK", "BCDFGHJ\n", "8CDFGHJK"])
def test_text_of_another_form_is_no_user_code(text: str) -> None:
    with pytest.raises(DeviceCodeNotFound):
        normalized(text)


def test_user_code_in_use_is_given_to_no_other(
    codes: DeviceCodes, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One letter leaves one user_code. It is free again when the first one has expired."""
    monkeypatch.setattr(device_codes, "LETTERS", "B")
    code, user_code = ask(codes, APPID, "first")
    assert outcome(lambda: ask(codes, APPID, "second")) == "ServerBusy"
    assert codes.show(user_code)[0].client_id == "first"
    assert poll(codes, code, "first") == "AuthorizationPending"
    clock.advance(LIFE + 1)
    again, _ = ask(codes, APPID, "second")
    assert codes.show(user_code)[0].client_id == "second"
    assert poll(codes, code, "first") in ("InvalidGrant", "ExpiredToken")
    assert poll(codes, again, "second") == "AuthorizationPending"


def test_next_user_code_is_tried_if_one_is_in_use(codes: DeviceCodes, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter("BBBBBBBB" + "BBBBBBBB" + "CCCCCCCC")
    monkeypatch.setattr(secrets, "choice", lambda letters: next(drawn))
    assert [ask(codes, APPID)[1] for _ in range(2)] == ["BBBBBBBB", "CCCCCCCC"]


def test_used_user_code_is_given_to_no_other_while_its_device_code_lives(
    codes: DeviceCodes, phone: WxSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a used device_code stays used."""
    monkeypatch.setattr(device_codes, "LETTERS", "B")
    log_in_by_scan(codes, phone)
    assert outcome(lambda: ask(codes, APPID)) == "ServerBusy"


def test_each_key_has_a_ttl_of_at_most_its_life(codes: DeviceCodes, phone: WxSession, raw_redis: redis.Redis) -> None:
    _, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    (name,) = cast(list[bytes], raw_redis.keys("wxa:d:*"))
    assert 0 < int(raw_redis.ttl(name)) <= LIFE


# --- Poll


def test_poll_before_the_answer_is_pending(codes: DeviceCodes) -> None:
    code, _ = ask(codes, APPID)
    with pytest.raises(AuthorizationPending):
        codes.poll(code, CONSOLE)


def test_poll_after_approval_returns_a_token_of_that_user(
    store: SessionStore, codes: DeviceCodes, phone: WxSession
) -> None:
    token, session = log_in_by_scan(codes, phone)
    found = store.resolve(token)
    assert (found.user, found.unionid, found.device, found.kind) == (ALICE, phone.unionid, CONSOLE, "scan")
    assert found.id == session.id != phone.id
    assert devices(store) == ["phone", CONSOLE]


def test_poll_after_denial_is_denied_each_time(codes: DeviceCodes, phone: WxSession, clock: Clock) -> None:
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=False)
    for _ in range(2):
        with pytest.raises(AccessDenied):
            codes.poll(code, CONSOLE)
        clock.advance(3)


def test_device_code_gives_one_token(codes: DeviceCodes, store: SessionStore, phone: WxSession, clock: Clock) -> None:
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    found = []
    for seconds in (0, 1, 10, LIFE - 20):
        clock.advance(seconds)
        found.append(poll(codes, code))
    assert found == ["ok"] + ["InvalidGrant"] * 3
    assert devices(store) == ["phone", CONSOLE]


def test_code_approved_in_time_gives_no_token_after_its_life(
    codes: DeviceCodes, phone: WxSession, clock: Clock
) -> None:
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    clock.advance(LIFE + 1)
    with pytest.raises(ExpiredToken):
        codes.poll(code, CONSOLE)


def test_first_poll_is_never_too_soon(codes: DeviceCodes) -> None:
    for _ in range(3):
        assert poll(codes, ask(codes, APPID)[0]) == "AuthorizationPending"


def test_poll_sooner_than_the_interval_adds_five_seconds(codes: DeviceCodes, clock: Clock) -> None:
    """RFC 8628, 3.5. The interval is 2 s, then 7, then 12; a poll that is too soon counts as the last one."""
    code, _ = ask(codes, APPID)
    found = []
    for seconds in (0, 1, 5, 13, 12.5, 3, 18):
        clock.advance(seconds)
        found.append(poll(codes, code))
    pending, too_soon = "AuthorizationPending", "SlowDown"
    assert found == [pending, too_soon, too_soon, pending, pending, too_soon, pending]


def test_poll_at_the_interval_is_not_too_soon(codes: DeviceCodes, clock: Clock) -> None:
    code, _ = ask(codes, APPID)
    for _ in range(5):
        assert poll(codes, code) == "AuthorizationPending"
        clock.advance(2)


def test_poll_that_comes_up_to_200_ms_early_is_not_too_soon(codes: DeviceCodes, clock: Clock) -> None:
    """The poll before it may have taken longer on its way."""
    code, _ = ask(codes, APPID)
    found = []
    for seconds in (0, 1.85, 1.4):
        clock.advance(seconds)
        found.append(poll(codes, code))
    assert found == ["AuthorizationPending", "AuthorizationPending", "SlowDown"]


def test_approved_code_polled_too_soon_slows_down_and_gives_its_token_later(
    codes: DeviceCodes, store: SessionStore, phone: WxSession, clock: Clock
) -> None:
    code, user_code = ask(codes, APPID)
    poll(codes, code)
    codes.answer(user_code, phone, approve=True)
    with pytest.raises(SlowDown):
        codes.poll(code, CONSOLE)
    assert devices(store) == ["phone"]
    clock.advance(7)
    assert poll(codes, code) == "ok"


def test_poll_of_another_client_is_invalid_and_does_not_change_the_pace(
    codes: DeviceCodes, phone: WxSession, clock: Clock
) -> None:
    code, user_code = ask(codes, APPID)
    assert poll(codes, code) == "AuthorizationPending"
    codes.answer(user_code, phone, approve=True)
    for _ in range(3):
        clock.advance(0.7)
        with pytest.raises(InvalidGrant):
            codes.poll(code, "another")
    assert poll(codes, code) == "ok"


def test_poll_of_another_client_first_leaves_the_first_poll_free(codes: DeviceCodes) -> None:
    code, _ = ask(codes, APPID)
    assert [poll(codes, code, "another"), poll(codes, code)] == ["InvalidGrant", "AuthorizationPending"]


def test_unknown_used_and_expired_codes_are_judged_before_the_pace(
    codes: DeviceCodes, ring: KeyRing, phone: WxSession, clock: Clock
) -> None:
    used, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    assert [poll(codes, used) for _ in range(3)] == ["ok", "InvalidGrant", "InvalidGrant"]
    expired, _ = ask(codes, APPID)
    clock.advance(LIFE + 1)
    assert [poll(codes, expired) for _ in range(3)] == ["ExpiredToken"] * 3
    unknown = ring.make(ring.newest.for_user_code("BCDFGHJK"), prefix="wxd_").text
    assert [poll(codes, unknown) for _ in range(3)] == ["ExpiredToken"] * 3


@pytest.mark.parametrize("text", ["", "x", "wxd_" + "A" * 65 + "." + "A" * 43, "wxd_\x00", "\ud800", "é" * 113])
def test_text_that_no_key_signed_is_invalid_and_sends_no_command(
    ring: KeyRing, policy: SessionPolicy, text: str
) -> None:
    def no_redis() -> redis.Redis:
        raise AssertionError("a command was sent")

    client = RedisClient(no_redis)
    with pytest.raises(InvalidGrant):
        DeviceCodes(client, ring, SessionStore(client, ring, policy)).poll(text, CONSOLE)


def test_other_device_code_of_the_same_hash_is_invalid(codes: DeviceCodes, ring: KeyRing, phone: WxSession) -> None:
    """It is signed, and names the hash of a code that is approved."""
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    other = ring.make(ring.newest.for_user_code(user_code), prefix="wxd_").text
    assert [poll(codes, other), poll(codes, code)] == ["InvalidGrant", "ok"]


# --- At the same moment


def test_approval_and_denial_at_once_have_one_outcome(
    codes: DeviceCodes, store: SessionStore, alice: Identity
) -> None:
    for _ in range(5):
        phones = [store.create(alice)[1] for _ in range(2)]
        code, user_code = ask(codes, APPID)
        approved, denied = at_once(
            partial(codes.answer, user_code, phones[0], approve=True),
            partial(codes.answer, user_code, phones[1], approve=False),
        )
        assert sorted([approved, denied]) == ["DeviceCodeAnswered", "ok"]
        assert poll(codes, code) == ("ok" if approved == "ok" else "AccessDenied")


def test_two_phones_at_once_log_one_of_the_users_in(codes: DeviceCodes, store: SessionStore, alice: Identity) -> None:
    phones = [store.create(Identity(user, Secret("k")))[1] for user in (ALICE, BOB)]
    for _ in range(5):
        code, user_code = ask(codes, APPID)
        found = at_once(*(partial(codes.answer, user_code, by, approve=True) for by in phones))
        assert sorted(found) == ["DeviceCodeAnswered", "ok"]
        assert codes.poll(code, CONSOLE)[1].user == phones[found.index("ok")].user


def test_polls_at_once_give_one_token(codes: DeviceCodes, store: SessionStore, phone: WxSession) -> None:
    """All but the first are too soon."""
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    found = at_once(*[lambda: codes.poll(code, CONSOLE)] * 6)
    assert found.count("ok") == 1
    assert set(found) <= {"ok", "SlowDown", "InvalidGrant"}
    assert devices(store) == ["phone", CONSOLE]


def test_poll_racing_the_approval_is_pending_or_ok(codes: DeviceCodes, phone: WxSession, clock: Clock) -> None:
    for _ in range(5):
        code, user_code = ask(codes, APPID)
        polled, answered = at_once(
            partial(codes.poll, code, CONSOLE),
            partial(codes.answer, user_code, phone, approve=True),
        )
        assert answered == "ok"
        clock.advance(3)
        later = poll(codes, code)
        assert (polled, later) in [("AuthorizationPending", "ok"), ("ok", "InvalidGrant")]


# --- Crashes, lost connections, repeated scripts


class Killed(Exception):
    """The worker has ended."""


class EndsBefore(RedisClient):
    """The worker ends before the script number `step`, counted from 0."""

    def __init__(self, raw: redis.Redis, step: int) -> None:
        super().__init__(lambda: raw)
        self._left = step

    def run(self, *arguments: Any, **options: Any) -> Any:
        if self._left == 0:
            raise Killed
        self._left -= 1
        return super().run(*arguments, **options)


def worker(client: RedisClient, ring: KeyRing, policy: SessionPolicy, clock: Clock) -> DeviceCodes:
    return DeviceCodes(client, ring, SessionStore(client, ring, policy, clock))


@pytest.mark.parametrize("step", [1, 2], ids=["before the session", "between session and use"])
def test_worker_that_ends_in_a_poll_loses_no_login(
    codes: DeviceCodes,
    store: SessionStore,
    ring: KeyRing,
    policy: SessionPolicy,
    clock: Clock,
    phone: WxSession,
    raw_redis: redis.Redis,
    step: int,
) -> None:
    """The next poll gives the one token. There is one session, also if the first worker had made it."""
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    with pytest.raises(Killed):
        worker(EndsBefore(raw_redis, step), ring, policy, clock).poll(code, CONSOLE)
    made = devices(store)
    assert made == (["phone"] if step == 1 else ["phone", CONSOLE])
    ids = {entry.id for entry in store.sessions_of(ALICE)}
    clock.advance(3)
    token, session = codes.poll(code, CONSOLE)
    assert error_of(store, token.reveal()) == "ok"
    assert devices(store) == ["phone", CONSOLE]
    assert step == 1 or session.id in ids


@pytest.mark.parametrize("step", [0, 1, 2], ids=["poll", "session", "use"])
def test_poll_whose_reply_is_lost_for_good_leaves_one_session_at_most(
    codes: DeviceCodes,
    store: SessionStore,
    ring: KeyRing,
    policy: SessionPolicy,
    clock: Clock,
    phone: WxSession,
    raw_redis: redis.Redis,
    step: int,
) -> None:
    """Redis has run the script. After the last step the code is used, though no token was sent."""
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    with pytest.raises(StoreUnavailable):
        worker(LosesReplies(raw_redis, step), ring, policy, clock).poll(code, CONSOLE)
    clock.advance(3)
    assert poll(codes, code) == ("InvalidGrant" if step == 2 else "ok")
    assert devices(store) == ["phone", CONSOLE]


def test_answer_whose_reply_is_lost_for_good_counts(
    codes: DeviceCodes,
    ring: KeyRing,
    policy: SessionPolicy,
    clock: Clock,
    phone: WxSession,
    raw_redis: redis.Redis,
) -> None:
    code, user_code = ask(codes, APPID)
    with pytest.raises(StoreUnavailable):
        worker(LosesReplies(raw_redis, 2), ring, policy, clock).answer(user_code, phone, approve=True)
    assert outcome(lambda: codes.answer(user_code, phone, approve=False)) == "DeviceCodeAnswered"
    assert poll(codes, code) == "ok"


class TestRepeatedScripts:
    """Each script runs twice, as after a lost connection."""

    @pytest.fixture
    def redis_client(self, raw_redis: redis.Redis) -> RedisClient:
        return RunsTwice(lambda: raw_redis)

    def test_whole_way_ends_in_one_session(self, codes: DeviceCodes, store: SessionStore, phone: WxSession) -> None:
        token, _ = log_in_by_scan(codes, phone)
        assert error_of(store, token) == "ok"
        assert devices(store) == ["phone", CONSOLE]

    def test_poll_does_not_slow_itself_down(self, codes: DeviceCodes, clock: Clock) -> None:
        code, _ = ask(codes, APPID)
        for _ in range(3):
            assert poll(codes, code) == "AuthorizationPending"
            clock.advance(2)

    def test_answer_succeeds_once(self, codes: DeviceCodes, phone: WxSession) -> None:
        code, user_code = ask(codes, APPID)
        codes.answer(user_code, phone, approve=False)
        assert outcome(lambda: codes.answer(user_code, phone, approve=True)) == "DeviceCodeAnswered"
        assert poll(codes, code) == "AccessDenied"

    def test_used_code_stays_used(self, codes: DeviceCodes, phone: WxSession) -> None:
        code, user_code = ask(codes, APPID)
        codes.answer(user_code, phone, approve=True)
        assert [poll(codes, code), poll(codes, code)] == ["ok", "InvalidGrant"]


def test_script_is_loaded_again_after_a_restart_of_redis(
    codes: DeviceCodes, phone: WxSession, raw_redis: redis.Redis
) -> None:
    code, user_code = ask(codes, APPID)
    raw_redis.script_flush()
    codes.answer(user_code, phone, approve=True)
    raw_redis.script_flush()
    assert poll(codes, code) == "ok"


# --- The user between approval and poll


def test_ban_between_approval_and_poll_denies(
    codes: DeviceCodes, store: SessionStore, phone: WxSession, clock: Clock
) -> None:
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    store.ban(ALICE)
    assert poll(codes, code) == "AccessDenied"
    assert devices(store) == []
    clock.advance(3)
    assert poll(codes, code) == "AccessDenied"


def test_logout_of_the_phone_leaves_its_approval_and_its_scans(
    codes: DeviceCodes, store: SessionStore, phone: WxSession
) -> None:
    """A session by scan is no session by ticket."""
    before, _ = log_in_by_scan(codes, phone)
    code, user_code = ask(codes, APPID)
    codes.answer(user_code, phone, approve=True)
    store.revoke(phone)
    assert poll(codes, code) == "ok"
    assert error_of(store, before) == "ok"


def test_phone_ends_a_session_by_scan(codes: DeviceCodes, store: SessionStore, phone: WxSession) -> None:
    token, session = log_in_by_scan(codes, phone)
    store.end(ALICE, session.id, phone.id)
    assert error_of(store, token) == "SessionRevoked"


@pytest.mark.parametrize("days", [8, -8], ids=["ahead", "behind"])
def test_worker_with_a_wrong_clock_neither_refuses_nor_prolongs_a_code(
    redis_client: RedisClient, ring: KeyRing, policy: SessionPolicy, alice: Identity, days: int
) -> None:
    """Any of the three steps may be that of the wrong worker."""
    right = worker(redis_client, ring, policy, Clock())
    wrong = worker(redis_client, ring, policy, WrongClock(days * 86400))
    store = SessionStore(redis_client, ring, policy)
    phone = store.create(alice)[1]
    for asks, answers, polls in ((wrong, right, right), (right, wrong, right), (right, right, wrong)):
        code, user_code = ask(asks, APPID)
        assert LIFE - 10 < answers.show(user_code)[1] <= LIFE
        answers.answer(user_code, phone, approve=True)
        token, _ = polls.poll(code, CONSOLE)
        for found in (right, wrong):
            assert error_of(found._store, token.reveal()) == "ok"


# --- Ring keys


class TestKeyRotation:
    NEW = Secret("n" * 32)

    @pytest.fixture
    def rotated(self, redis_client: RedisClient, policy: SessionPolicy, clock: Clock) -> DeviceCodes:
        return worker(redis_client, KeyRing([self.NEW, Secret(RING_KEY)]), policy, clock)

    @pytest.fixture
    def dropped(self, redis_client: RedisClient, policy: SessionPolicy, clock: Clock) -> DeviceCodes:
        return worker(redis_client, KeyRing([self.NEW]), policy, clock)

    @pytest.mark.parametrize("approve", [True, False])
    def test_code_from_before_the_rotation_is_answered_after_it(
        self, codes: DeviceCodes, rotated: DeviceCodes, phone: WxSession, approve: bool
    ) -> None:
        code, user_code = ask(codes, APPID)
        assert rotated.show(user_code, APPID)[0].client_id == CONSOLE
        rotated.answer(user_code, phone, approve=approve)
        assert outcome(lambda: rotated.show(user_code)) == "DeviceCodeAnswered"
        assert poll(rotated, code) == ("ok" if approve else "AccessDenied")

    def test_code_of_a_dropped_key_is_unknown(
        self, codes: DeviceCodes, dropped: DeviceCodes, phone: WxSession
    ) -> None:
        """No key of the ring has signed it."""
        code, user_code = ask(codes, APPID)
        assert outcome(lambda: dropped.show(user_code)) == "DeviceCodeNotFound"
        assert poll(dropped, code) == "InvalidGrant"


# --- What Redis holds


def test_redis_holds_no_device_code_user_code_token_or_openid_in_the_clear(
    codes: DeviceCodes, phone: WxSession, raw_redis: redis.Redis
) -> None:
    """In each state: asked, approved, used."""
    code, user_code = ask(codes, APPID)
    stored = dump(raw_redis)
    codes.answer(user_code, phone, approve=True)
    stored += dump(raw_redis)
    token = codes.poll(code, CONSOLE)[0].reveal()
    stored += dump(raw_redis)
    texts = [code, code[26:69], code[-43:], user_code, token, token[26:69], token[-43:]]
    planted = [*texts, ALICE.openid, cast(str, phone.unionid), NETWORK]
    assert [text for text in planted if text.encode() in stored] == []


def dump(raw: redis.Redis) -> bytes:
    names = cast(list[bytes], raw.keys("*"))
    marks = [name for name in names if name.endswith(b":a")]
    hashes = [cast(dict[bytes, bytes], raw.hgetall(name)) for name in names if name not in marks]
    texts = [cast(bytes, raw.get(name)) for name in marks]
    return b"".join([*names, *texts, *(part for found in hashes for item in found.items() for part in item)])


def test_approval_that_was_copied_from_another_code_gives_no_token(
    codes: DeviceCodes, store: SessionStore, phone: WxSession, raw_redis: redis.Redis, ring: KeyRing
) -> None:
    """A writer to Redis copies all fields of an approved code's answer to a code of his own."""
    victim, mine = ask(codes, APPID), ask(codes, APPID)
    codes.answer(victim[1], phone, approve=True)
    names = [hash_name(ring.newest.for_user_code(user_code)) for _, user_code in (victim, mine)]
    for field in ("state", "user", "answer"):
        raw_redis.hset(names[1], field, cast(bytes, raw_redis.hget(names[0], field)))
    with pytest.raises(InvalidGrant):
        codes.poll(mine[0], CONSOLE)
    assert devices(store) == ["phone"]


def test_edited_details_are_not_found(codes: DeviceCodes, raw_redis: redis.Redis) -> None:
    _, user_code = ask(codes, APPID)
    (name,) = cast(Sequence[bytes], raw_redis.keys("wxa:d:*"))
    value = cast(bytes, raw_redis.hget(name, "details"))
    raw_redis.hset(name, "details", value[:-1] + bytes([value[-1] ^ 1]))
    assert outcome(lambda: codes.show(user_code)) == "DeviceCodeNotFound"


def test_10_000_open_codes_take_at_most_7_megabytes(
    redis_server: RedisServer, ring: KeyRing, policy: SessionPolicy
) -> None:
    """Each 700 bytes: MEMORY USAGE of a real server."""
    with redis_server.client() as client:
        client.flushall()
        ask(worker(RedisClient(connector(redis_server.url, "verify")), ring, policy, Clock()), APPID)
        (name,) = cast(list[bytes], client.keys())
        assert cast(int, client.memory_usage(name)) <= 700
