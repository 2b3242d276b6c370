"""Judges a log of calls: a pure function of what was asked, what was answered, and when.

It knows the promises (I1 to I5 of the specification) and nothing of how they are kept. What can't be told from the
log is never counted: a logout that was answered 503 may have happened or not, and from its start on nothing is said
about its token.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

INVARIANTS = ("I1", "I2", "I3", "I4", "I5")

#: Every problem of the design: its status and the action it asks for.
PROBLEMS = {
    "token_missing": (401, "login"),
    "token_invalid": (401, "login"),
    "login_too_old": (401, "login"),
    "client_unauthorized": (401, "none"),
    "code_invalid": (400, "login"),
    "code_used": (400, "login"),
    "user_blocked": (403, "none"),
    "user_banned": (403, "none"),
    "rate_limited": (429, "retry"),
    "wechat_busy": (503, "retry"),
    "server_busy": (503, "retry"),
    "wechat_unreachable": (503, "retry"),
    "wechat_misconfigured": (503, "none"),
    "wechat_error": (502, "none"),
    "session_key_stale": (409, "login"),
    "store_unavailable": (503, "retry"),
    "bad_request": (400, "none"),
    "not_found": (404, "none"),
    "method_not_allowed": (405, "none"),
    "too_large": (413, "none"),
    "unsupported_media_type": (415, "none"),
}
PASSED = (200, 204)
#: What answers with an identity.
NAMING = ("check", "verify")
#: How long after its caller gave up a request may still do something.
LINGERING = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its answer. Times are seconds on one clock; `status` is None where no answer came.

    `operation` is login, check, list, verify, introspect, logout, everywhere or others (everywhere but here); `user`
    is the openid of whoever asks; `token_id` names the token that was presented, or that a login was given; `ended`
    the one that a login sent along. Header names are in lower case.
    """

    start: float
    end: float
    operation: str
    user: str
    token_id: str | None = None
    status: int | None = None
    code: str | None = None
    openid: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    action: str | None = None
    active: bool | None = None
    ended: str | None = None
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return self.status in PASSED and self.active is not False

    @property
    def refused_the_token(self) -> bool:
        """Whatever is no 429 and no 5xx says that the token is not good for this."""
        refused = self.status is not None and 400 <= self.status < 500 and self.status != 429
        return self.operation != "login" and (refused or self.active is False)

    @property
    def unknown(self) -> bool:
        """Whether it may have done its work although it did not say so."""
        return self.status is None or (self.status >= 500 and not (self.code or "").startswith("wechat_"))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The service's limits, in seconds: lives as configured, and how old the answer of a cache may be (`stale`)."""

    idle_ttl: float = 604800
    max_ttl: float = 2592000
    max_sessions: int = 1000
    stale: float = 0.0

    @property
    def touch_after(self) -> float:
        return min(max(60.0, self.idle_ttl / 20), self.idle_ttl / 2)


@dataclass(slots=True)
class Fate:
    """From when on a token may be dead, and from when on it surely is."""

    login: Call
    may: float = math.inf
    surely: float = math.inf

    def hit(self, call: Call) -> None:
        """`call` was to end it."""
        if call.passed:
            self.surely = min(self.surely, call.end)
        if call.passed or call.unknown:
            self.may = min(self.may, call.start)


def violations(calls: Iterable[Call], bounds: Bounds | None = None) -> dict[str, list[str]]:
    """For each invariant, what breaks it: empty lists are a clean run."""
    log = sorted(calls, key=lambda call: call.start)
    judge = _Judge(log, bounds or Bounds())
    found: dict[str, list[str]] = {name: [] for name in INVARIANTS}
    for call in log:
        for name, reason in judge.of(call):
            found[name].append(f"{reason}: {call}")
    return found


def judged(calls: Iterable[Call]) -> int:
    """Of how many tokens the last answer counts for I1: nobody had tried to end them by then."""
    log = sorted(calls, key=lambda call: call.start)
    fates = _Judge(log, Bounds()).fates
    last = {call.token_id: call for call in log if call.operation != "login" and call.status not in (None, 503)}
    return sum(call.end < fates[token].may for token, call in last.items() if token in fates)


def count(found: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, found.values()))


class _Judge:
    def __init__(self, log: Sequence[Call], bounds: Bounds) -> None:
        self._bounds = bounds
        self.fates = {
            call.token_id: Fate(call)
            for call in log
            if call.operation == "login" and call.token_id and call.status == 200
        }
        self._fates_of: dict[str, list[Fate]] = defaultdict(list)
        for fate in self.fates.values():
            self._fates_of[fate.login.user].append(fate)
        self._used: dict[str, float] = {}
        self._note_ends(log)
        self._note_evictions(log)

    def of(self, call: Call) -> Iterator[tuple[str, str]]:
        if reason := _not_a_promised_answer(call):
            yield "I5", reason
        if call.operation != "login":
            yield from self._of_token(call)
        elif call.status == 200 and not call.token_id:
            yield "I5", "a login without a token"

    def _of_token(self, call: Call) -> Iterator[tuple[str, str]]:
        fate = self.fates.get(call.token_id or "")
        if call.passed and call.openid != call.user and (call.openid is not None or call.operation in NAMING):
            yield "I3", "not the identity that logged in"
        if fate is None:
            if call.passed:
                yield "I4", "a token that was never given out passes"
            return
        if call.passed and call.start > fate.surely + self._bounds.stale:
            yield "I2", "a revoked token passes"
        if call.passed and self._is_surely_old(call, fate):
            yield "I4", "an expired token passes"
        if call.refused_the_token and call.end < fate.may and not self._may_be_old(call, fate):
            yield "I1", "a live token is refused"
        if call.passed:
            self._used[fate.login.token_id or ""] = max(call.start, self._last_use(fate))

    def _last_use(self, fate: Fate) -> float:
        return self._used.get(fate.login.token_id or "", fate.login.start)

    def _may_be_old(self, call: Call, fate: Fate) -> bool:
        idle = self._bounds.idle_ttl - self._bounds.touch_after
        return call.end > min(self._last_use(fate) + idle, fate.login.start + self._bounds.max_ttl) - 1

    def _is_surely_old(self, call: Call, fate: Fate) -> bool:
        return call.start > fate.login.end + self._bounds.max_ttl + 1

    def _note_ends(self, log: Iterable[Call]) -> None:
        for call in log:
            if call.operation == "logout" and call.token_id in self.fates:
                self.fates[call.token_id].hit(call)
            elif call.operation == "login" and call.ended in self.fates:
                self.fates[call.ended].hit(call)
            elif call.operation in ("everywhere", "others"):
                self._note_end_of_all(call)

    def _note_end_of_all(self, call: Call) -> None:
        over = call.end + (LINGERING if call.status is None else 0)
        for fate in self._fates_of[call.user]:
            if call.operation == "others" and fate.login.token_id == call.token_id:
                continue
            if fate.login.end <= call.start:
                fate.hit(call)
            elif fate.login.start <= over and (call.passed or call.unknown):
                fate.may = min(fate.may, call.start)

    def _note_evictions(self, log: Iterable[Call]) -> None:
        """Past the cap the oldest sessions end: the attempts count too that may have come to nothing."""
        attempts: dict[str, list[Call]] = defaultdict(list)
        for call in log:
            if call.operation == "login" and (call.status == 200 or call.unknown):
                attempts[call.user].append(call)
        for user, fates in self._fates_of.items():
            if len(attempts[user]) <= self._bounds.max_sessions:
                continue
            for fate in fates:
                later = [call for call in attempts[user] if call is not fate.login and call.end > fate.login.start]
                if len(later) >= self._bounds.max_sessions:
                    fate.may = min(fate.may, later[self._bounds.max_sessions - 1].start)


def _not_a_promised_answer(call: Call) -> str | None:
    """Why the answer is none that the design knows; None if it is one."""
    if call.status is None:
        return call.failure or "no answer"
    if call.headers.get("cache-control") != "no-store" or call.headers.get("x-content-type-options") != "nosniff":
        return "a header that every answer has is missing"
    return None if call.status in PASSED else _not_a_problem(call)


def _not_a_problem(call: Call) -> str | None:
    if PROBLEMS.get(call.code or "") != (call.status, call.action):
        return "no problem of the design"
    if call.headers.get("content-type") != "application/problem+json":
        return "a problem under another type"
    if call.status == 401 and not call.headers.get("www-authenticate", "").startswith(("Bearer", "Basic")):
        return "a 401 without its challenge"
    if call.status in (429, 503) and not call.headers.get("retry-after", "").isdigit():
        return "no Retry-After"
    return None
