"""Check a log of calls against I1 to I5 of the specification. A pure function of the log.

What the log does not decide is not counted. A logout that got a 503 may have happened or not, so from its start on
its token is not judged.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

INVARIANTS = ("I1", "I2", "I3", "I4", "I5")

#: Every problem of the design: its status and action.
PROBLEMS = {
    "token_missing": (401, "login"),
    "token_invalid": (401, "login"),
    "session_replaced": (401, "ask"),
    "session_revoked": (401, "ask"),
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
#: The operations that return an identity.
NAMING = ("check", "verify")
#: Seconds in which a request may still take effect after its caller gave up.
LINGERING = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its answer. Times are seconds on one clock; `status` is None without an answer.

    `operation` is login, check, list, verify, introspect, logout, everywhere or others (all sessions but this one).
    `user` is the caller's openid. `token_id` is the token of the request, or the new token of a login. `ended` is the
    token that a login sent along. Header names are in lower case.
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
    request_id: str | None = None

    @property
    def passed(self) -> bool:
        return self.status in PASSED and self.active is not False

    @property
    def refused_the_token(self) -> bool:
        """Return whether the answer says that the token is bad: any 4xx but 429, or `active: false`."""
        refused = self.status is not None and 400 <= self.status < 500 and self.status != 429
        return self.operation != "login" and (refused or self.active is False)

    @property
    def unknown(self) -> bool:
        """Return whether the request may have taken effect without saying so."""
        return self.status is None or (self.status >= 500 and not (self.code or "").startswith("wechat_"))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of the service. Times are seconds; `stale` is how late the session cache may be."""

    idle_ttl: float = 604800
    max_ttl: float = 2592000
    max_sessions: int = 1000
    stale: float = 0.0

    @property
    def touch_after(self) -> float:
        return min(max(60.0, self.idle_ttl / 20), self.idle_ttl / 2)


@dataclass(slots=True)
class Life:
    """The life of a token: from when on it may have ended, and from when on it has certainly ended."""

    login: Call
    may_end_at: float = math.inf
    ended_at: float = math.inf

    def note_end(self, call: Call) -> None:
        """Note a call that asked for its end."""
        if call.passed:
            self.ended_at = min(self.ended_at, call.end)
        if call.passed or call.unknown:
            self.may_end_at = min(self.may_end_at, call.start)


def violations(calls: Iterable[Call], bounds: Bounds | None = None) -> dict[str, list[str]]:
    """Return the violations of each invariant. Empty lists are a clean run."""
    log = sorted(calls, key=lambda call: call.start)
    judge = _Judge(log, bounds or Bounds())
    found: dict[str, list[str]] = {name: [] for name in INVARIANTS}
    for call in log:
        for name, reason in judge.of(call):
            found[name].append(f"{reason}: {call}")
    return found


def judged(calls: Iterable[Call]) -> int:
    """Return for how many tokens I1 judges the last answer: no call had asked for their end by then."""
    log = sorted(calls, key=lambda call: call.start)
    lives = _Judge(log, Bounds()).lives
    last = {call.token_id: call for call in log if call.operation != "login" and call.status not in (None, 503)}
    return sum(call.end < lives[token].may_end_at for token, call in last.items() if token in lives)


def count(found: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, found.values()))


class _Judge:
    def __init__(self, log: Sequence[Call], bounds: Bounds) -> None:
        self._bounds = bounds
        self.lives = {
            call.token_id: Life(call)
            for call in log
            if call.operation == "login" and call.token_id and call.status == 200
        }
        self._lives_of: dict[str, list[Life]] = defaultdict(list)
        for life in self.lives.values():
            self._lives_of[life.login.user].append(life)
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
        life = self.lives.get(call.token_id or "")
        if call.passed and call.openid != call.user and (call.openid is not None or call.operation in NAMING):
            yield "I3", "not the identity that logged in"
        if life is None:
            if call.passed:
                yield "I4", "a token that was never given out passes"
            return
        if call.passed and call.start > life.ended_at + self._bounds.stale:
            yield "I2", "a revoked token passes"
        if call.passed and self._has_expired(call, life):
            yield "I4", "an expired token passes"
        if call.refused_the_token and call.end < life.may_end_at and not self._may_have_expired(call, life):
            yield "I1", "a live token is refused"
        if call.passed:
            self._used[life.login.token_id or ""] = max(call.start, self._last_use(life))

    def _last_use(self, life: Life) -> float:
        return self._used.get(life.login.token_id or "", life.login.start)

    def _may_have_expired(self, call: Call, life: Life) -> bool:
        idle = self._bounds.idle_ttl - self._bounds.touch_after
        return call.end > min(self._last_use(life) + idle, life.login.start + self._bounds.max_ttl) - 1

    def _has_expired(self, call: Call, life: Life) -> bool:
        return call.start > life.login.end + self._bounds.max_ttl + 1

    def _note_ends(self, log: Iterable[Call]) -> None:
        for call in log:
            if call.operation == "logout" and call.token_id in self.lives:
                self.lives[call.token_id].note_end(call)
            elif call.operation == "login" and call.ended in self.lives:
                self.lives[call.ended].note_end(call)
            elif call.operation in ("everywhere", "others"):
                self._note_end_of_all(call)

    def _note_end_of_all(self, call: Call) -> None:
        over = call.end + (LINGERING if call.status is None else 0)
        for life in self._lives_of[call.user]:
            if call.operation == "others" and life.login.token_id == call.token_id:
                continue
            if life.login.end <= call.start:
                life.note_end(call)
            elif life.login.start <= over and (call.passed or call.unknown):
                life.may_end_at = min(life.may_end_at, call.start)

    def _note_evictions(self, log: Iterable[Call]) -> None:
        """Above the limit the oldest sessions end. Logins without an answer count too."""
        attempts: dict[str, list[Call]] = defaultdict(list)
        for call in log:
            if call.operation == "login" and (call.status == 200 or call.unknown):
                attempts[call.user].append(call)
        for user, lives in self._lives_of.items():
            if len(attempts[user]) <= self._bounds.max_sessions:
                continue
            for life in lives:
                later = [call for call in attempts[user] if call is not life.login and call.end > life.login.start]
                if len(later) >= self._bounds.max_sessions:
                    life.may_end_at = min(life.may_end_at, later[self._bounds.max_sessions - 1].start)


def _not_a_promised_answer(call: Call) -> str | None:
    """Return why the answer is not one of the design, or None."""
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
