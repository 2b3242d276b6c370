"""How sessions and users lie in Redis: each thing opens where it was put, and nothing can be read from outside."""

from __future__ import annotations

from base64 import b64encode

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.conftest import ALICE, APPID, RING_KEY, SESSION_KEY
from wxauth.keys import InvalidSeal, SigningKey
from wxauth.models import Secret, SessionKeys, User
from wxauth.sessions.records import (
    Entry,
    Record,
    Shelf,
    open_record,
    record_name,
    seal_record,
)

KEY = SigningKey(Secret(RING_KEY))
OTHER_KEY = SigningKey(Secret(RING_KEY[::-1]))
BOB = User(APPID, "oBOB-0123456789_abcdefghijkl")
SHELF = Shelf.of(KEY, ALICE)
SEAL_KEY = bytes(range(32))
NAME = record_name("rout", "id-1")
RECORD = Record(ALICE, "uALICE-0123456789_abcdefghij", "Alice's 手机", 1_700_000_000, 1_702_592_000)
ENTRY = Entry("id-1", 1, 1_700_000_000, 1_702_592_000, "Alice's 手机")
OLD_KEY, NEW_KEY = Secret(SESSION_KEY), Secret(SESSION_KEY[::-1])
KEYS = SessionKeys(NEW_KEY, 1_700_000_000, OLD_KEY)

texts = st.text(min_size=1, max_size=64)
times = st.integers(0, 2**32 - 1)
records = st.builds(Record, st.builds(User, texts, texts), st.none() | texts, st.none() | texts, times, times)
ids = st.text("abcXYZ019-_", min_size=22, max_size=22)
entries = st.builds(Entry, ids, times, times, times, st.none() | texts)
base64_texts = st.binary(max_size=32).map(lambda raw: b64encode(raw).decode())
secrets = (texts | base64_texts).map(Secret)
session_keys = st.builds(SessionKeys, secrets, times, st.none() | secrets)
NEWEST, PREVIOUS = b"k", b"p"
#: What Redis keeps in its compact form: `hash-max-listpack-value` as it is by default.
LONGEST_COMPACT = 64

SHELVES = [
    pytest.param(Shelf.of(KEY, BOB), id="other user"),
    pytest.param(Shelf.of(KEY, User("wx-other", ALICE.openid)), id="other app"),
    pytest.param(Shelf.of(OTHER_KEY, ALICE), id="other ring key"),
]


@settings(deadline=None)
@given(records)
def test_a_record_comes_back(record: Record) -> None:
    """Whatever a record says, it says again when it is opened."""
    assert open_record(SEAL_KEY, NAME, seal_record(SEAL_KEY, NAME, record)) == record


@settings(deadline=None)
@given(st.lists(entries, unique_by=(lambda entry: entry.id, lambda entry: entry.serial), max_size=4))
def test_entries_come_back_oldest_first(made: list[Entry]) -> None:
    """A user's list holds the sessions that were entered, in the order of their serials."""
    fields = {entry.id.encode(): SHELF.seal_entry(entry) for entry in made}
    assert SHELF.entries(fields) == sorted(made, key=lambda entry: entry.serial)


@settings(deadline=None)
@given(session_keys, times)
def test_session_keys_come_back(keys: SessionKeys, ends_at: int) -> None:
    """The newest session_key and the one before it are kept, and when they changed."""
    assert SHELF.session_keys(SHELF.seal_session_keys(keys, ends_at)) == keys


@pytest.mark.parametrize(
    "spelling", ["AAAAAAAAAAAAAAAAAAAAAB==", "AAAAAAAAAAAAAAAAAAAAAA", "not base64", "钥匙", "A==="]
)
def test_a_session_key_comes_back_as_it_was_spelled(spelling: str) -> None:
    """WeChat publishes no shape for it: what is no base64, or not the usual spelling of its bytes, is kept too."""
    keys = SessionKeys(Secret(spelling), 1, Secret(spelling))
    assert SHELF.session_keys(SHELF.seal_session_keys(keys, 1)) == keys


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), times, times)
def test_session_keys_as_wechat_gives_them_are_compact(newest: bytes, previous: bytes, since: int, end: int) -> None:
    """16 bytes in base64: no field is so long that Redis would keep the hash in twice the room."""
    keys = SessionKeys(Secret(b64encode(newest).decode()), since, Secret(b64encode(previous).decode()))
    assert max(map(len, SHELF.seal_session_keys(keys, end).values())) <= LONGEST_COMPACT


@given(st.text("abcXYZ019 ", max_size=19), times, times)
def test_an_entry_with_a_short_label_is_compact(device: str, serial: int, created_at: int) -> None:
    """A device's name of up to 19 bytes leaves the hash as small as it can be."""
    assert len(SHELF.seal_entry(Entry("id-1", serial, created_at, 1, device))) <= LONGEST_COMPACT


def test_a_record_that_was_moved_does_not_open() -> None:
    """A record under another session's name is no session's."""
    with pytest.raises(InvalidSeal):
        open_record(SEAL_KEY, record_name("rout", "id-2"), seal_record(SEAL_KEY, NAME, RECORD))


def test_an_entry_under_another_field_does_not_open() -> None:
    """An entry belongs to the id that it was made for."""
    assert SHELF.entries({b"id-2": SHELF.seal_entry(ENTRY)}) == []


@pytest.mark.parametrize("shelf", SHELVES)
def test_an_entry_of_somebody_else_does_not_open(shelf: Shelf) -> None:
    """An entry belongs to the user, the app and the ring key that it was made for."""
    assert shelf.entries({b"id-1": SHELF.seal_entry(ENTRY)}) == []


@pytest.mark.parametrize("shelf", SHELVES)
def test_session_keys_of_somebody_else_do_not_open(shelf: Shelf) -> None:
    """A session_key belongs to the user, the app and the ring key that it was kept for."""
    assert shelf.session_keys(SHELF.seal_session_keys(KEYS, 1)) is None


def test_an_entry_is_no_session_key() -> None:
    """An entry in the place of the session_keys does not open."""
    assert SHELF.session_keys({NEWEST: SHELF.seal_entry(ENTRY)}) is None


def test_the_newest_and_the_previous_session_key_can_not_change_places() -> None:
    """Each is sealed for its own field."""
    sealed = SHELF.seal_session_keys(KEYS, 1)
    assert SHELF.session_keys({NEWEST: sealed[PREVIOUS], PREVIOUS: sealed[NEWEST]}) is None


def test_a_broken_previous_session_key_hides_not_the_newest() -> None:
    """What does not open is not there, and the other stands."""
    broken = SHELF.seal_session_keys(KEYS, 1) | {PREVIOUS: b"broken"}
    assert SHELF.session_keys(broken) == SessionKeys(NEW_KEY, KEYS.since)


def test_no_session_keys_is_none() -> None:
    """A user without session_keys has none, and that is no error."""
    assert SHELF.session_keys({}) is None


def test_a_broken_entry_hides_no_other() -> None:
    """An entry that does not open is nobody's session, and the rest of the list stands."""
    assert SHELF.entries({b"id-1": SHELF.seal_entry(ENTRY), b"id-2": b"broken"}) == [ENTRY]


def test_the_ids_are_those_of_all_entries() -> None:
    """The ids also name what does not open, so that it can be ended; the session_keys are no session."""
    sealed_keys = SHELF.seal_session_keys(KEYS, 1)
    assert SHELF.ids({b"id-1": SHELF.seal_entry(ENTRY), b"\xff": b"broken", **sealed_keys}) == {"id-1", "\xff"}


def test_all_names_of_a_user_lie_in_one_slot() -> None:
    """Everything of a user's has the same hash tag."""
    names = [SHELF.hash, SHELF.ban, SHELF.record("id-1"), SHELF.record("id-2")]
    assert {name[: name.index("}") + 1] for name in names} == {f"wxa:{{{KEY.tag(ALICE)}}}"}
    assert len(set(names)) == 4


@pytest.mark.parametrize("shelf", SHELVES)
def test_no_two_users_share_a_name(shelf: Shelf) -> None:
    """Another user, app or ring key has a hash and a ban of its own."""
    assert {SHELF.hash, SHELF.ban}.isdisjoint({shelf.hash, shelf.ban})


@pytest.mark.parametrize(
    "text",
    [ALICE.appid, ALICE.openid, "uALICE", "手机", SESSION_KEY, SESSION_KEY[::-1]],
    ids=["appid", "openid", "unionid", "device", "session_key", "newest session_key"],
)
def test_nothing_can_be_read_in_redis(text: str) -> None:
    """Neither a name nor a value holds anything of a user's in the clear."""
    names = f"{SHELF.hash} {SHELF.ban} {SHELF.record(ENTRY.id)}".encode()
    sealed = [
        seal_record(SEAL_KEY, NAME, RECORD),
        SHELF.seal_entry(ENTRY),
        *SHELF.seal_session_keys(KEYS, 1).values(),
    ]
    assert [found for found in [names, *sealed] if text.encode() in found] == []


def test_the_known_session_key_changes_nothing() -> None:
    """A login that brings the newest session_key again leaves the pair as it is."""
    assert KEYS.followed_by(NEW_KEY, 1_800_000_000) == KEYS


def test_a_new_session_key_makes_the_old_one_previous() -> None:
    """After a login with a new session_key the one before it is kept, for data that is on its way."""
    assert SessionKeys(OLD_KEY, 3).followed_by(NEW_KEY, 5) == SessionKeys(NEW_KEY, 5, OLD_KEY)


def test_the_session_key_before_the_previous_is_forgotten() -> None:
    """Two are kept, and no more."""
    assert KEYS.followed_by(Secret("third"), 5) == SessionKeys(Secret("third"), 5, NEW_KEY)


def test_the_session_key_before_comes_back_as_the_newest() -> None:
    """WeChat's last word is the newest, also where it was the previous one."""
    assert KEYS.followed_by(OLD_KEY, 5) == SessionKeys(OLD_KEY, 5, NEW_KEY)
