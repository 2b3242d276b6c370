"""The store as a state machine: whatever happens in whatever order, it agrees with a model in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.store_machine import PEOPLE, SESSION_KEYS, StoreMachine
from wxauth.models import User
from wxauth.sessions.records import ban_name
from wxauth.sessions.shelves import Shelves
from wxauth.sessions.store import SessionStore, WxSession


class CapForEachRingKey(SessionStore):
    """Broken on purpose: the cap holds for each ring key, not for the user."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.shelves = Untrimmed(self.redis, self._ring, self._limits.max_sessions)


class Untrimmed(Shelves):
    def _trim(self, user: User) -> None:
        """Nothing."""


class LogoutUnderOneRingKey(SessionStore):
    """Broken on purpose: a logout everywhere reaches the newest ring key alone."""

    def end_all(self, user: User, shown: WxSession | None = None) -> None:
        shelf, *_ = self.shelves.of(user)
        self.shelves._dismiss(shelf, lambda ids: ids, "everywhere", ())


class BanThatEndsNothing(SessionStore):
    """Broken on purpose: who is banned stays logged in."""

    def ban(self, user: User) -> None:
        self.redis.set(ban_name(user), 1000000)


class BanWithoutEnd(SessionStore):
    """Broken on purpose: a ban has no TTL."""

    def ban(self, user: User) -> None:
        self.shelves.dismiss(user, lambda ids: ids, "ban", lambda shelf: [("SET", shelf.ban, "1")])


class BanThatARotationLifts(SessionStore):
    """Broken on purpose: a ban is known under the ring keys of its day alone."""

    def ban(self, user: User) -> None:
        self.shelves.dismiss(user, lambda ids: ids, "ban", lambda shelf: [("SET", shelf.ban, "1", "EX", 1000000)])


ALICE = PEOPLE[0]
Step = Callable[[StoreMachine], None]


def log_in(times: int) -> Step:
    return lambda machine: machine.log_in(user=ALICE, device=None, session_keys=SESSION_KEYS[:times])


def judge(banned: bool) -> Step:
    return lambda machine: machine.judge(user=ALICE, banned=banned)


def rotate(drop: bool = False) -> Step:
    return lambda machine: machine.rotate(drop=drop, first=True)


def log_in_in_place_of(number: int) -> Step:
    return lambda machine: machine.log_in_with_a_token_sent_along(
        number=number, user=ALICE, session_key=SESSION_KEYS[0]
    )


def log_out_everywhere(machine: StoreMachine) -> None:
    machine.log_out_everywhere(user=ALICE)


#: A store that is broken on purpose, and what happens to it.
BROKEN: dict[type[SessionStore], list[Step]] = {
    CapForEachRingKey: [log_in(2), rotate(), log_in(1)],
    LogoutUnderOneRingKey: [log_in(1), rotate(), log_out_everywhere],
    BanThatEndsNothing: [log_in(1), judge(True)],
    BanWithoutEnd: [judge(True)],
    BanThatARotationLifts: [judge(True), rotate(), rotate(drop=True), log_in(1)],
}


def play(store_class: type[SessionStore], steps: Iterable[Step]) -> None:
    """What hypothesis does with a machine, with the steps that are given."""
    machine = StoreMachine()
    machine.store_class = store_class
    machine.reopen()
    for step in steps:
        step(machine)
        machine.exactly_the_live_tokens_resolve()
        machine.the_list_is_the_model_s()
        machine.every_key_has_a_ttl()


def test_the_store_agrees_with_the_model() -> None:
    """After any sequence of logins, uses, logouts, bans, rotations and waits, store and model say the same."""
    checks = list(HealthCheck)
    bounds = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(StoreMachine, settings=bounds)


@pytest.mark.parametrize("steps", BROKEN.values(), ids=[broken.__name__ for broken in BROKEN])
def test_the_sound_store_agrees(steps: list[Step]) -> None:
    """What catches a broken store finds nothing in ours."""
    play(SessionStore, steps)


@pytest.mark.parametrize("broken", BROKEN)
def test_the_model_catches_a_broken_store(broken: type[SessionStore]) -> None:
    """A store that breaks one promise does not agree with the model."""
    # What `pytest.raises` itself raises is no Exception.
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        play(broken, BROKEN[broken])


def test_a_login_in_place_of_another_session_ends_no_third() -> None:
    """With two ring keys, too, the session that a login replaces makes the room that the new one takes."""
    play(SessionStore, [log_in(2), rotate(), log_in_in_place_of(1)])
