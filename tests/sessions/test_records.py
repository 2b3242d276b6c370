"""The layout of a user's hash: each value opens only at its place, and nothing can be read from outside."""

from __future__ import annotations

from base64 import b64encode

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.conftest import ALICE, APPID, RING_KEY, SESSION_KEY
from wxauth.keys import InvalidSeal, KeyRing, SigningKey, Token
from wxauth.models import Secret, SessionKeys, User
from wxauth.sessions.records import (
    CLEAR,
    TAIL,
    Record,
    UserHash,
    ban_name,
    merge_session_keys,
    open_session,
    seal_record,
)

KEY = SigningKey(Secret(RING_KEY))
OTHER_KEY = SigningKey(Secret(RING_KEY[::-1]))
BOB = User(APPID, "oBOB-0123456789_abcdefghijkl")
HASH = UserHash.of(KEY, ALICE)
RING = KeyRing([Secret(RING_KEY)])
TOKEN = RING.issue(ALICE)
RECORD = Record(ALICE, "uALICE-0123456789_abcdefghij", "Alice's 手机", 1_700_000_000, 1_702_592_000)
IDLE_END, LOGIN_TIME = 1_700_604_800_000_000, 1_700_000_000_000_001
#: Microseconds in a second.
S = 1_000_000
OLD_KEY, NEW_KEY = Secret(SESSION_KEY), Secret(SESSION_KEY[::-1])

texts = st.text(min_size=1, max_size=64)
times = st.integers(0, 2**32 - 1)
records = st.builds(Record, st.builds(User, texts, texts), st.none() | texts, st.none() | texts, times, times)
base64_texts = st.binary(max_size=32).map(lambda raw: b64encode(raw).decode())
secrets = (texts | base64_texts).map(Secret)

OTHERS = [
    pytest.param(UserHash.of(KEY, BOB), id="other user"),
    pytest.param(UserHash.of(KEY, User("wx-other", ALICE.openid)), id="other app"),
    pytest.param(UserHash.of(OTHER_KEY, ALICE), id="other ring key"),
]


def value(record: Record = RECORD, token: Token = TOKEN) -> bytes:
    """Return a session's value as the login script writes it."""
    tail = HASH.session_tail(token.id, record, seal_record(token, record))
    return CLEAR.pack(IDLE_END, LOGIN_TIME, b"w", 0)[: CLEAR.size - TAIL.size] + tail


def key_value(user_hash: UserHash, session_key: Secret, since: int) -> bytes:
    """Return a session_key's value as the scripts write it. `since` is in microseconds."""
    return since.to_bytes(8) + user_hash.session_key_value(session_key)


@settings(deadline=None)
@given(records)
def test_record_opens_with_its_token(record: Record) -> None:
    assert open_session(TOKEN, value(record)) == (record, IDLE_END / 1_000_000)


def test_record_does_not_open_with_another_token() -> None:
    with pytest.raises(InvalidSeal):
        open_session(RING.issue(ALICE), value())


@pytest.mark.parametrize("length", range(len(value())))
def test_truncated_value_raises_invalid_seal(length: int) -> None:
    with pytest.raises(InvalidSeal):
        open_session(TOKEN, value()[:length])


def test_entries_are_sorted_by_login_time() -> None:
    later = CLEAR.pack(IDLE_END, LOGIN_TIME + 1, b"w", 0)
    entries = HASH.entries({b"second": later, TOKEN.id.encode(): value(), b"k": b"no session"})
    assert [(entry.id, entry.device) for entry in entries] == [(TOKEN.id, RECORD.device), ("second", None)]
    assert entries[0].created_at == 1_700_000_000


@pytest.mark.parametrize("other", OTHERS)
def test_label_opens_only_for_its_user(other: UserHash) -> None:
    (entry,) = other.entries({TOKEN.id.encode(): value()})
    assert entry.device is None


def test_label_opens_only_under_its_session() -> None:
    (entry,) = HASH.entries({b"another-id": value()})
    assert entry.device is None


def test_short_field_is_not_listed() -> None:
    assert HASH.entries({b"id-1": b"short"}) == []


@settings(deadline=None)
@given(secrets, times)
def test_session_key_comes_back_as_it_was(session_key: Secret, since: int) -> None:
    assert HASH.session_keys({b"k": key_value(HASH, session_key, since)}) == [(since, session_key)]


@pytest.mark.parametrize(
    "spelling", ["AAAAAAAAAAAAAAAAAAAAAB==", "AAAAAAAAAAAAAAAAAAAAAA", "not base64", "钥匙", "A==="]
)
def test_session_key_keeps_its_spelling(spelling: str) -> None:
    """WeChat publishes no format: other texts than canonical base64 are kept too."""
    assert HASH.session_keys({b"k": key_value(HASH, Secret(spelling), 1)}) == [(1, Secret(spelling))]


def test_fingerprint_tells_whether_the_session_key_is_new() -> None:
    fingerprints = [key_value(HASH, key, now)[8:12] for key, now in [(OLD_KEY, 1), (OLD_KEY, 2), (NEW_KEY, 1)]]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("other", OTHERS)
def test_session_key_opens_only_for_its_user(other: UserHash) -> None:
    assert other.session_keys({b"k": key_value(HASH, NEW_KEY, 1)}) == []


def test_damaged_previous_session_key_does_not_hide_the_newest() -> None:
    fields = {b"k": key_value(HASH, NEW_KEY, 1), b"p": b"damaged"}
    assert HASH.session_keys(fields) == [(1, NEW_KEY)]


def test_session_value_is_no_session_key() -> None:
    assert HASH.session_keys({b"k": value()}) == []


@pytest.mark.parametrize(
    ("found", "merged"),
    [
        ([], None),
        ([(5 * S, NEW_KEY)], SessionKeys(NEW_KEY, 5)),
        ([(5 * S, NEW_KEY), (3 * S, OLD_KEY)], SessionKeys(NEW_KEY, 5, OLD_KEY)),
        ([(3 * S, OLD_KEY), (5 * S, NEW_KEY)], SessionKeys(NEW_KEY, 5, OLD_KEY)),
        ([(5 * S, NEW_KEY), (4 * S, NEW_KEY), (3 * S, OLD_KEY)], SessionKeys(NEW_KEY, 5, OLD_KEY)),
    ],
    ids=["none", "one", "two", "older hash newer", "same key in two hashes"],
)
def test_merge_session_keys_returns_newest_and_previous(
    found: list[tuple[int, Secret]], merged: SessionKeys | None
) -> None:
    assert merge_session_keys(found) == merged


@pytest.mark.parametrize("other", OTHERS)
def test_no_two_users_share_a_hash(other: UserHash) -> None:
    assert other.name != HASH.name


def test_hash_name_is_the_tag_in_the_token() -> None:
    assert HASH.name == f"wxa:{{{TOKEN.text[4:26]}}}"


def test_ban_name_does_not_depend_on_the_ring() -> None:
    assert ban_name(ALICE) != ban_name(BOB)
    assert ban_name(ALICE).startswith("wxa:b:")


@pytest.mark.parametrize(
    "text",
    [ALICE.appid, ALICE.openid, "uALICE", "手机", SESSION_KEY, SESSION_KEY[::-1]],
    ids=["appid", "openid", "unionid", "device", "session_key", "newest session_key"],
)
def test_nothing_can_be_read_in_redis(text: str) -> None:
    stored = [HASH.name.encode(), ban_name(ALICE).encode(), value()]
    stored += [key_value(HASH, key, 1) for key in (OLD_KEY, NEW_KEY)]
    assert [found for found in stored if text.encode() in found] == []
