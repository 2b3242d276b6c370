"""The store as a state machine: whatever happens in whatever order, it agrees with a model in plain Python."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.store_machine import PEOPLE, SESSION_KEYS, StoreMachine
from wxauth.errors import WxAuthError
from wxauth.identity import User
from wxauth.records import ban_name
from wxauth.sessions import SessionStore


class CapForEachRingKey(SessionStore):
    """Broken on purpose: the cap holds for each ring key, not for the user."""

    def _trim(self, user: User) -> None:
        """Nothing."""


class LogoutUnderOneRingKey(SessionStore):
    """Broken on purpose: a logout everywhere reaches the newest ring key alone."""

    def end_all(self, user: User) -> None:
        shelf, *_ = self._shelves(user)
        self._dismiss(shelf, lambda ids: ids, "everywhere")


class BanThatEndsNothing(SessionStore):
    """Broken on purpose: who is banned stays logged in."""

    def ban(self, user: User) -> None:
        self.redis.set(ban_name(user), 1000000)


class BanWithoutEnd(SessionStore):
    """Broken on purpose: a ban has no TTL."""

    def ban(self, user: User) -> None:
        for shelf in self._shelves(user):
            self._dismiss(shelf, lambda ids: ids, "ban", ("SET", shelf.ban, "1"))


class BanThatARotationLifts(SessionStore):
    """Broken on purpose: a ban is known under the ring keys of its day alone."""

    def ban(self, user: User) -> None:
        for shelf in self._shelves(user):
            self._dismiss(shelf, lambda ids: ids, "ban", ("SET", shelf.ban, "1", "EX", 1000000))


BOUNDS = settings(deadline=None, stateful_step_count=30, suppress_health_check=list(HealthCheck))


def test_the_store_agrees_with_the_model() -> None:
    """After any sequence of logins, uses, logouts, bans, rotations and waits, store and model say the same."""
    run_state_machine_as_test(StoreMachine, settings=settings(BOUNDS, max_examples=100))


def test_a_login_in_place_of_another_session_ends_no_third() -> None:
    """With two ring keys, too, the session that a login replaces makes the room that the new one takes."""
    machine = StoreMachine()
    machine.log_in(user=PEOPLE[0], device=None, session_keys=SESSION_KEYS[:2])
    machine.rotate(drop=False, first=True)
    machine.log_in_with_a_token_sent_along(number=1, user=PEOPLE[0], session_key=SESSION_KEYS[0])
    machine.the_list_is_the_model_s()


BROKEN = [CapForEachRingKey, LogoutUnderOneRingKey, BanThatEndsNothing, BanWithoutEnd, BanThatARotationLifts]


@pytest.mark.parametrize("broken", BROKEN)
def test_the_model_catches_a_broken_store(broken: type[SessionStore]) -> None:
    """A store that breaks one promise does not agree with the model."""
    machine = type("Broken", (StoreMachine,), {"store_class": broken})
    once = settings(BOUNDS, max_examples=200, phases=[Phase.generate], database=None, derandomize=True)
    # What `pytest.raises` itself raises is no Exception.
    with pytest.raises((AssertionError, WxAuthError, pytest.fail.Exception)):
        run_state_machine_as_test(machine, settings=once)
