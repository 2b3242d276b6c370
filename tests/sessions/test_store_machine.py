"""The store agrees with a model in plain Python after any sequence of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.store_machine import PEOPLE, SESSION_KEYS, TICK, StoreMachine
from wxauth.models import User
from wxauth.sessions.records import SCAN, SessionEntry, ban_name
from wxauth.sessions.store import END, NewSession, SessionStore, WxSession
from wxauth.storage.round_trips import Command


class LimitPerRingKey(SessionStore):
    """Broken: the limit holds for each ring key instead of the user."""

    def sessions_of(self, user: User) -> list[SessionEntry]:
        """Return the sessions under the newest key only, so that the others are never trimmed."""
        return self._open(self.hashes(user)[0])[0]


class EndAllUnderOneRingKey(SessionStore):
    """Broken: a logout everywhere reaches the newest ring key only."""

    def end_all(self, user: User, reason: str = "", own: str = "") -> None:
        self.run(END, self.hashes(user)[0], "others", "r", own, parse=len)


class EndWithoutReasons(SessionStore):
    """Broken: nothing is kept about why a session ended."""

    def end_others(self, session: WxSession) -> None:
        self._end(session.user, "others", [session.id], "logout")


class UnbanKeepsReasons(SessionStore):
    """Broken: a token from before the ban is refused as banned after it."""

    def unban(self, user: User) -> None:
        self.redis.delete(ban_name(user))


class BanEndsNothing(SessionStore):
    """Broken: a banned user stays logged in."""

    def ban(self, user: User) -> None:
        self.redis.set(ban_name(user), 1000000)


class BanWithoutTTL(SessionStore):
    """Broken: a ban has no TTL."""

    def ban(self, user: User) -> None:
        self.redis.ask(ban_name(user), "SET", ban_name(user), "", parse=bool)
        self.end_all(user)


class LoginIgnoresTheBan(SessionStore):
    """Broken: a login does not look for the ban."""

    def _login(self, *arguments: Any) -> tuple[list[str], bool]:
        return super()._login(*arguments)[0], False


class PagesOutliveTheirParent(SessionStore):
    """Broken: a check of a session by ticket does not look for its parent."""

    def _end_of_parent(self, *arguments: Any) -> float:
        return float("inf")


class ScansHaveNoLimit(SessionStore):
    """Broken: the limit of sessions by scan is that of another kind."""

    def _login_arguments(self, new: NewSession, *arguments: Any) -> Command:
        found = super()._login_arguments(new, *arguments)
        return (1000, *found[1:]) if new.record.kind == SCAN else found


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


def log_out_everywhere_else(machine: StoreMachine) -> None:
    machine.log_out_everywhere_else(number=0)


def scan(times: int) -> Step:
    return lambda machine: machine.log_in_by_scan(number=0, times=times)


def open_page(machine: StoreMachine) -> None:
    machine.log_in_by_ticket(number=0, times=1)


def wait(days: int) -> Step:
    return lambda machine: machine.time_passes(ticks=days * 86400 // TICK)


def use_the_newest(machine: StoreMachine) -> None:
    machine.use(number=0)


#: A store that is broken on purpose, and the steps that show it.
BROKEN: dict[type[SessionStore], list[Step]] = {
    LimitPerRingKey: [log_in(2), rotate(), log_in(1)],
    EndAllUnderOneRingKey: [log_in(1), rotate(), log_out_everywhere],
    EndWithoutReasons: [log_in(2), log_out_everywhere_else],
    UnbanKeepsReasons: [log_in(1), judge(True), judge(False)],
    BanEndsNothing: [log_in(1), judge(True)],
    BanWithoutTTL: [judge(True)],
    LoginIgnoresTheBan: [judge(True), rotate(), rotate(drop=True), log_in(1)],
    PagesOutliveTheirParent: [log_in(1), open_page, wait(5), use_the_newest, wait(3)],
    ScansHaveNoLimit: [log_in(1), scan(4), scan(2)],
}


def play(store_class: type[SessionStore], steps: Iterable[Step]) -> None:
    """Run the steps, and check the invariants after each."""
    machine = StoreMachine()
    machine.store_class = store_class
    machine.reopen()
    for step in steps:
        step(machine)
        machine.only_live_tokens_resolve()
        machine.the_list_matches_the_model()
        machine.every_key_has_a_ttl()


def test_store_agrees_with_the_model_after_any_sequence() -> None:
    checks = list(HealthCheck)
    bounds = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(StoreMachine, settings=bounds)


@pytest.mark.parametrize("steps", BROKEN.values(), ids=[broken.__name__ for broken in BROKEN])
def test_store_passes_the_steps_that_catch_a_broken_one(steps: list[Step]) -> None:
    play(SessionStore, steps)


@pytest.mark.parametrize("broken", BROKEN)
def test_model_catches_a_broken_store(broken: type[SessionStore]) -> None:
    # The error of `pytest.raises` itself is not an Exception.
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        play(broken, BROKEN[broken])


def test_login_that_replaces_a_session_under_an_older_key_ends_no_other() -> None:
    play(SessionStore, [log_in(2), rotate(), log_in_in_place_of(1)])
