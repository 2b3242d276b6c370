"""An approval of a scan that no poll has used yet: what makes it void."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import ALICE, APPID, KINDS, RING_KEY
from wxauth.errors import AccessDenied, AuthorizationPending, TokenInvalid
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.store import NewSession, SessionPolicy, SessionStore, WxSession
from wxauth.storage.client import RedisClient

kinds = tuple(KINDS)
CONSOLE = "console"


def ban_and_unban(store: SessionStore) -> None:
    store.ban(ALICE)
    store.unban(ALICE)


End = Callable[[SessionStore, WxSession, WxSession], object]
#: `phone` has approved, `other` is another session of the same user.
VOIDING: dict[str, End] = {
    "logout everywhere": lambda store, phone, other: store.end_all(ALICE, "everywhere", phone.id),
    "logout of all others": lambda store, phone, other: store.end_others(phone),
    "end from another device": lambda store, phone, other: store.end(ALICE, phone.id, other.id),
    "end by the operator": lambda store, phone, other: store.revoke(phone, "revoked"),
    "purge": lambda store, phone, other: store.end_all(ALICE, "purge"),
    "ban that was lifted": lambda store, phone, other: ban_and_unban(store),
}
KEEPING: dict[str, End] = {
    "own logout": lambda store, phone, other: store.revoke(phone),
    "own logout by id": lambda store, phone, other: store.end(ALICE, phone.id, phone.id),
    "limit": lambda store, phone, other: [store.create(Identity(ALICE, Secret("k"))) for _ in range(4)],
    "another user's logout": lambda store, phone, other: store.end_all(User(APPID, "oBOB")),
}


def approved(codes: DeviceCodes, phone: WxSession) -> str:
    code, user_code = codes.request(CONSOLE, APPID, "192.0.2.0/24")
    codes.answer(user_code, phone, approve=True)
    return code.reveal()


@pytest.mark.parametrize("end", VOIDING.values(), ids=VOIDING)
def test_approval_is_void_after_its_session_was_ended_by_others(
    codes: DeviceCodes, store: SessionStore, alice: Identity, end: End
) -> None:
    """An attacker who has the device_code could poll minutes later, and outlive the logout of the user."""
    phone, other = store.create(alice)[1], store.create(alice)[1]
    code = approved(codes, phone)
    end(store, phone, other)
    with pytest.raises(AccessDenied):
        codes.poll(code, CONSOLE)
    assert all(entry.kind != "s" for entry in store.sessions_of(ALICE))


class LogsOutBeforeTheLogin(SessionStore):
    """A store in which the user logs out everywhere just before the login script of the poll runs."""

    def add(self, new: NewSession, replacing: WxSession | None = None) -> WxSession:
        self.end_all(new.record.user)
        return super().add(new, replacing)


def test_logout_everywhere_while_a_poll_is_on_its_way_leaves_no_session(
    codes: DeviceCodes, redis_client: RedisClient, store: SessionStore, ring: KeyRing, alice: Identity
) -> None:
    code = approved(codes, store.create(alice)[1])
    late = LogsOutBeforeTheLogin(redis_client, ring, store.policy, store.now)
    with pytest.raises(AccessDenied):
        DeviceCodes(redis_client, ring, late).poll(code, CONSOLE)
    assert store.sessions_of(ALICE) == []


@pytest.mark.parametrize("end", KEEPING.values(), ids=KEEPING)
def test_approval_stays_after_its_session_has_ended_otherwise(
    codes: DeviceCodes, store: SessionStore, alice: Identity, end: End
) -> None:
    phone, other = store.create(alice)[1], store.create(alice)[1]
    code = approved(codes, phone)
    end(store, phone, other)
    assert codes.poll(code, CONSOLE)[1].user == ALICE


def test_approval_after_a_logout_everywhere_counts(codes: DeviceCodes, store: SessionStore, alice: Identity) -> None:
    store.end_others(phone := store.create(alice)[1])
    assert codes.poll(approved(codes, phone), CONSOLE)[1].user == ALICE


def test_session_that_a_worker_still_has_in_its_cache_approves_nothing_after_its_end(
    codes: DeviceCodes, store: SessionStore, alice: Identity
) -> None:
    """A session that ended a moment ago would have made one of 30 days."""
    phone = store.create(alice)[1]
    store.revoke(phone, "revoked")
    code, user_code = codes.request(CONSOLE, APPID, "192.0.2.0/24")
    with pytest.raises(TokenInvalid):
        codes.answer(user_code, phone, approve=True)
    with pytest.raises(AuthorizationPending):
        codes.poll(code.reveal(), CONSOLE)


def test_logout_everywhere_voids_approvals_from_before_a_rotation(
    redis_client: RedisClient, store: SessionStore, policy: SessionPolicy, alice: Identity
) -> None:
    phone = store.create(alice)[1]
    ring = KeyRing([Secret("ring-key-that-nobody-may-see-0002"), Secret(RING_KEY)])
    rotated = SessionStore(redis_client, ring, policy)
    code = approved(DeviceCodes(redis_client, ring, rotated), phone)
    rotated.end_all(ALICE)
    with pytest.raises(AccessDenied):
        DeviceCodes(redis_client, ring, rotated).poll(code, CONSOLE)


def test_approval_counts_though_the_user_approves_another_code_before_the_poll(
    codes: DeviceCodes, store: SessionStore, alice: Identity
) -> None:
    phone = store.create(alice)[1]
    first, second = approved(codes, phone), approved(codes, phone)
    assert [codes.poll(code, CONSOLE)[1].user for code in (first, second)] == [ALICE, ALICE]


def test_approval_that_is_void_stays_void_after_the_next_one(
    codes: DeviceCodes, store: SessionStore, alice: Identity
) -> None:
    phone = store.create(alice)[1]
    void = approved(codes, phone)
    store.end_others(phone)
    assert codes.poll(approved(codes, phone), CONSOLE)[1].user == ALICE
    with pytest.raises(AccessDenied):
        codes.poll(void, CONSOLE)


def test_approval_from_before_a_rotation_counts_after_it(
    redis_client: RedisClient, codes: DeviceCodes, store: SessionStore, policy: SessionPolicy, alice: Identity
) -> None:
    code = approved(codes, store.create(alice)[1])
    ring = KeyRing([Secret("ring-key-that-nobody-may-see-0002"), Secret(RING_KEY)])
    rotated = DeviceCodes(redis_client, ring, SessionStore(redis_client, ring, policy))
    assert rotated.poll(code, CONSOLE)[1].user == ALICE
