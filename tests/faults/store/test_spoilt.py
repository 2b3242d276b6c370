"""Spoilt replies of Redis: swapped, duplicated, cut, in pieces, with a bit flipped."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.conftest import APPID, RING_KEY, SESSION_KEY
from tests.faults.conftest import Progress, Run
from tests.faults.support.history import Bounds, Call, violations
from tests.faults.support.relay import Relay
from tests.faults.support.rig import run_in_parallel
from tests.support.servers import RedisServer
from wxauth.errors import StoreUnavailable, TokenInvalid, UserBanned
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionPolicy, SessionStore
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

EVERY = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
PROBLEM = {**EVERY, "content-type": "application/problem+json"}

MISCHIEF: dict[str, dict[str, float]] = {
    "flip": {"flip": 0.05},
    "duplicate": {"duplicate": 0.05},
    "swap": {"swap": 0.05},
    "cut": {"cut": 0.05},
    "pieces": {},
    "all of them": {"flip": 0.02, "duplicate": 0.02, "swap": 0.02, "cut": 0.02},
}


@pytest.mark.parametrize("odds", MISCHIEF.values(), ids=MISCHIEF.keys())
def test_spoilt_replies_mix_up_no_users_and_lose_no_session(
    run: Run, progress: Progress, request: pytest.FixtureRequest, odds: dict[str, float]
) -> None:
    """Only live tokens pass, each with its own identity. A relay between the store and Redis spoils the replies."""
    fault = f"spoilt replies: {request.node.callspec.id}"
    with RedisServer() as redis, Relay(redis.port, run.seed) as relay:
        relay.odds = odds
        relay.piece = 3 if not odds else 0
        calls: list[Call] = []
        store = SessionStore(
            RedisClient(connector(relay.url, "verify")),
            KeyRing([Secret(RING_KEY)]),
            SessionPolicy(604800, 2592000, 1000),
        )
        users = [User(APPID, f"o{number:027}") for number in range(4)]
        share = run.of(400, 100_000 // len(MISCHIEF)) // len(users)
        visitors = [Visitor(store, user, calls, run.seed) for user in users]
        run_in_parallel(*(partial(visitor.visit, share, progress) for visitor in visitors))
        found = violations(calls, Bounds(max_sessions=1000))
        mischief = sum(relay.done.values())
        relay.odds = {}
        lost = sum(visitor.lost() for visitor in visitors)
        revived = sum(visitor.revived() for visitor in visitors)
        for name in ("I3", "I4"):
            run.figure(fault, f"{name} in {len(calls)} operations, {mischief} spoilt", len(found[name]), 0)
        run.figure(fault, "sessions that are gone afterwards", lost, 0)
        run.figure(fault, "sessions that are back afterwards", revived, 0)
        # A reply that was meant for another command, or two spoilt in a row, look like an answer.
        run.figure(fault, "I1, I2 for a moment", f"{len(found['I1'])}, {len(found['I2'])}", "")
        run.figure(fault, "taken for banned for a moment", sum(call.status == 403 for call in calls), "")
        passed = sum(call.passed for call in calls)
        run.figure(fault, "passed", passed, "most")
        assert (found["I3"], found["I4"]) == ([], [])
        assert (lost, revived) == (0, 0)
        assert passed > len(calls) / 2
        assert mischief or not odds


class Visitor:
    """A user of the store. Its operations are logged like calls of the service."""

    def __init__(self, store: SessionStore, user: User, calls: list[Call], seed: int) -> None:
        self._store = store
        self._user = user
        self._calls = calls
        self._chance = random.Random(f"{seed} {user.openid}")  # noqa: S311 - repeatable
        self._tokens: list[str] = []
        self._ended: list[str] = []
        self._ring = KeyRing([Secret(RING_KEY)])

    def visit(self, times: int, progress: Progress) -> None:
        for number in range(times):
            self._act(self._chance.random())
            progress(f"operations: {number} of {times}, {threading.active_count()} threads")

    def lost(self) -> int:
        """Return how many sessions are not alive that must be."""
        return sum(not self._is_alive(token) for token in self._tokens)

    def revived(self) -> int:
        """Return how many sessions are alive although their end was acknowledged."""
        return sum(map(self._is_alive, self._ended))

    def _is_alive(self, token: str) -> bool:
        try:
            return self._store.resolve(token).openid == self._user.openid
        except TokenInvalid:
            return False

    def _act(self, what: float) -> None:
        if what < 0.1 or not self._tokens:
            self._log("login", "", self._log_in)
        elif what < 0.15:
            self._log("logout", self._tokens.pop(0), self._log_out)
        elif what < 0.25:
            # The signature is good, so Redis is asked; but there is no such session.
            self._log("check", self._ring.issue(self._user).text, self._check)
        else:
            self._log("check", self._chance.choice(self._tokens), self._check)

    def _log(self, operation: str, token: str, act: Callable[[str], tuple[str, str | None]]) -> None:
        start = time.monotonic()
        status, code, action, openid, headers = 200, "", "", None, EVERY
        try:
            token, openid = act(token)
        except TokenInvalid:
            status, code, action, headers = 401, "token_invalid", "login", {**PROBLEM, "www-authenticate": "Bearer"}
        except UserBanned:
            status, code, action, headers = 403, "user_banned", "none", PROBLEM
        except StoreUnavailable:
            status, code, action, headers = 503, "store_unavailable", "retry", {**PROBLEM, "retry-after": "1"}
        user, end = self._user.openid, time.monotonic()
        self._calls.append(Call(start, end, operation, user, token, status, code, openid, headers, action))

    def _log_in(self, token: str) -> tuple[str, str]:
        secret, session = self._store.create(Identity(self._user, Secret(SESSION_KEY), None))
        self._tokens.append(secret.reveal())
        return secret.reveal(), session.openid

    def _check(self, token: str) -> tuple[str, str]:
        return token, self._store.resolve(token).openid

    def _log_out(self, token: str) -> tuple[str, None]:
        self._store.revoke(self._store.resolve(token, touch=False))
        self._ended.append(token)
        return token, None
