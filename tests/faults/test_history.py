"""The checker of histories: it reports each violation, and nothing that the log does not decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.support.history import INVARIANTS, Bounds, Call, judged, violations

EVERY = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
PROBLEM = {**EVERY, "content-type": "application/problem+json"}
CHALLENGE = {**PROBLEM, "www-authenticate": 'Bearer realm="wxauth", error="invalid_token"'}
LATER = {**PROBLEM, "retry-after": "1"}


def login(at: float, token: str = "t", user: str = "alice", **more: Any) -> Call:
    return Call(at, at + 1, "login", user, token, 200, headers=EVERY, **more)


def passed(at: float, token: str = "t", user: str = "alice", **more: Any) -> Call:
    return Call(at, at + 1, "check", user, token, 200, **{"openid": user, "headers": EVERY, **more})


def refused(at: float, token: str = "t", user: str = "alice", **more: Any) -> Call:
    return Call(at, at + 1, "check", user, token, 401, "token_invalid", headers=CHALLENGE, action="login", **more)


def ended(at: float, operation: str = "logout", token: str = "t", user: str = "alice") -> Call:
    return Call(at, at + 1, operation, user, token, 204, headers=EVERY)


def in_doubt(at: float, operation: str = "logout", token: str = "t", user: str = "alice") -> Call:
    return Call(at, at + 1, operation, user, token, 503, "store_unavailable", headers=LATER, action="retry")


BREACHES = {
    "refused while alive": ("I1", [login(0), refused(2)]),
    "forbidden while alive": ("I1", [login(0), replace(refused(2), status=403, code="user_banned", action="none")]),
    "inactive while alive": ("I1", [login(0), passed(2, openid=None, active=False)]),
    "refused before its logout": ("I1", [login(0), refused(2), ended(4)]),
    "another's logout": ("I1", [login(0), login(0, "u"), ended(2, token="u"), refused(4)]),
    "another user's logout everywhere": (
        "I1",
        [login(0), login(0, "u", "bob"), ended(2, "everywhere"), refused(4, "u", "bob")],
    ),
    "the one that was kept": ("I1", [login(0), login(0, "u"), ended(2, "others"), refused(4)]),
    "a logout that was refused": ("I1", [login(0), replace(refused(2), operation="logout")]),
    "a login after everywhere": ("I1", [login(0), ended(2, "everywhere"), login(4, "u"), refused(6, "u")]),
    "passes after logout": ("I2", [login(0), ended(2), passed(4)]),
    "passes after everywhere": ("I2", [login(0), login(0, "u"), ended(2, "everywhere"), passed(4, "u")]),
    "passes after the others were ended": ("I2", [login(0), login(0, "u"), ended(2, "others"), passed(4, "u")]),
    "passes after it was replaced": ("I2", [login(0), login(2, "u", ended="t"), passed(4)]),
    "back after a doubtful logout and a sure one": ("I2", [login(0), in_doubt(2), ended(4), passed(6)]),
    "another identity": ("I3", [login(0), passed(2, openid="bob")]),
    "no identity": ("I3", [login(0), passed(2, openid=None)]),
    "not found while alive": ("I1", [login(0), replace(refused(2), status=404, code="not_found", action="none")]),
    "refused after a login that WeChat refused": (
        "I1",
        [login(0), replace(in_doubt(2, "login"), ended="t", token_id=None, code="wechat_busy"), refused(4)],
    ),
    "never given out": ("I4", [passed(0, "forged")]),
    "no token at all": ("I4", [replace(passed(0), token_id=None)]),
    "expired": ("I4", [login(0), passed(2_600_000)]),
    "no answer": ("I5", [login(0), replace(passed(2), status=None, openid=None, failure="reset")]),
    "a bug": ("I5", [login(0), replace(in_doubt(2, "check"), status=500, code="internal_error", action="none")]),
    "an unknown code": ("I5", [login(0), replace(in_doubt(2, "check"), code="other")]),
    "a bare 503": ("I5", [login(0), replace(in_doubt(2, "check"), code=None)]),
    "another status": ("I5", [login(0), replace(in_doubt(2, "check"), status=502)]),
    "no Retry-After": ("I5", [login(0), replace(in_doubt(2, "check"), headers=PROBLEM)]),
    "no challenge": ("I5", [replace(refused(0, "forged"), headers=PROBLEM)]),
    "another type": ("I5", [replace(refused(0, "forged"), headers={**CHALLENGE, "content-type": "text/html"})]),
    "kept by a cache": ("I5", [login(0), passed(2, headers={"x-content-type-options": "nosniff"})]),
    "a redirect": ("I5", [login(0), replace(passed(2), status=302, openid=None)]),
    "a login without a token": ("I5", [replace(login(0), token_id=None)]),
}

CLEAN = {
    "a life": [login(0), passed(2), ended(4), refused(6)],
    "nothing is known": [login(0), in_doubt(2, "check"), passed(4)],
    "a doubtful logout that happened": [login(0), in_doubt(2), refused(4)],
    "a doubtful logout that did not": [login(0), in_doubt(2), passed(4)],
    "a doubtful everywhere": [login(0), login(0, "u"), in_doubt(2, "everywhere"), refused(4, "u"), passed(6)],
    "a check beside the logout": [login(0), ended(2), replace(passed(2), start=2.5), replace(refused(2), end=2.5)],
    "a login beside everywhere": [login(0), login(2, "u"), replace(ended(2, "everywhere"), end=2.5), refused(4, "u")],
    "replaced in doubt": [login(0), replace(in_doubt(2, "login"), token_id=None, ended="t"), refused(4)],
    "idle for too long": [login(0), refused(604_800)],
    "used, and idle for too long": [login(0), passed(500_000), refused(1_104_800)],
    "forged": [refused(0, "forged")],
    "a login in doubt": [replace(in_doubt(0, "login"), token_id=None)],
}


@pytest.mark.parametrize(("invariant", "calls"), BREACHES.values(), ids=BREACHES.keys())
def test_violation_is_reported_under_its_invariant_only(invariant: str, calls: list[Call]) -> None:
    assert {name for name, found in violations(calls).items() if found} == {invariant}


@pytest.mark.parametrize("calls", CLEAN.values(), ids=CLEAN.keys())
def test_allowed_or_undecided_history_has_no_violation(calls: list[Call]) -> None:
    assert violations(calls) == {name: [] for name in INVARIANTS}


def test_calls_may_be_in_any_order() -> None:
    """Threads append them as they finish."""
    calls = [passed(4), ended(2), login(0)]
    assert len(violations(calls)["I2"]) == 1


def test_oldest_session_may_end_above_the_limit() -> None:
    """A refusal after enough later logins is allowed; before them it violates I1."""
    calls = [login(0, "1"), login(2, "2"), login(4, "3"), refused(6, "1")]
    assert violations(calls, Bounds(max_sessions=2))["I1"] == []
    assert len(violations(calls, Bounds(max_sessions=3))["I1"]) == 1


def test_cache_may_be_late_by_its_bound_and_no_more() -> None:
    calls = [login(0), ended(2), passed(5)]
    assert violations(calls, Bounds(stale=3))["I2"] == []
    assert len(violations(calls, Bounds(stale=1))["I2"]) == 1


def test_used_session_must_stay_alive() -> None:
    """A refusal within the idle life after a use violates I1."""
    calls = [login(0), passed(500_000), refused(1_000_000)]
    assert len(violations(calls)["I1"]) == 1


def test_token_is_judged_until_a_call_asks_for_its_end() -> None:
    """A logout with a 503 excludes the token for good. A check with a 503 says nothing."""
    asked_in_vain = replace(passed(4), status=503)
    assert judged([login(0), passed(2), asked_in_vain]) == 1
    assert judged([login(0), asked_in_vain]) == 0
    assert judged([login(0), login(0, "u"), passed(2), passed(2, "u"), in_doubt(3), passed(6)]) == 1
    assert judged([login(0), passed(2), in_doubt(3, "everywhere", "u"), refused(6)]) == 0
