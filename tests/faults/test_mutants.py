"""The fault tests under test: a service with a bug planted in its source must not pass."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.faults.conftest import Run
from tests.faults.support.driver import CHECKS, MIX, Caller, Load, is_forged, milliseconds
from tests.faults.support.history import violations
from tests.faults.support.relay import Relay
from tests.faults.support.rig import (
    CACHED,
    MAX_MORE_FILES,
    MAX_MORE_MEMORY,
    UNCACHED,
    ObservedService,
    age_sessions,
    assert_no_secrets,
    assert_workers_unchanged,
    calls_within,
    run_in_parallel,
    single_caller,
)
from tests.support.servers import RedisServer, wait_until
from tests.support.service import ROOT, Service, WeChatServer, environment

#: Milliseconds. With a breaker most answers in the dark are immediate; without one each costs a timeout.
DARK_LIMIT = 100
MAX_SESSIONS = 1000
FEW_SESSIONS = 3


@dataclass(frozen=True)
class Change:
    """Replace `old`, which stands exactly once in `wxauth/<file>`, by `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A service with changed source, and what the report must then contain: I1 to I5, or

    `dark`: answers are slow while Redis is stopped. `stale`: the cache answers for longer than its bound. `limit`: a
    user has more sessions than WXAUTH_MAX_SESSIONS.
    """

    red: str
    changes: tuple[Change, ...]
    cache: bool = False
    workers: int = 1
    #: Seconds for which Redis is stopped.
    dark: float = 1.5
    max_sessions: int = MAX_SESSIONS
    mix: Mapping[str, float] = field(default_factory=lambda: MIX)

    @property
    def races(self) -> bool:
        """Whether only a touch that races a logout shows the bug."""
        return self.red in ("", "I2")


NO_CHANGE = Mutant("", ())
READ = (
    "            value, reasons = self.redis.ask(name, *command, parse=_two_values, together=together, fresh=fresh)\n"
)
TOUCH = "            idle_end = self.redis.run(TOUCH, name, *arguments, parse=int)\n"
ENTRY = "            entry = known.entries.get(text)\n"


def read_or(on_error: str) -> Change:
    """Change what a check does when Redis cannot be asked."""
    tried = f"            try:\n    {READ}            except StoreUnavailable:\n                {on_error}\n"
    return Change("sessions/store.py", READ, tried)


#: Each names a text of the source. Where that text has changed, the test says so: adapt the mutant then.
MUTANTS = {
    "the breaker is off": Mutant("dark", (Change("storage/circuit_breaker.py", "if not self.is_open:", "if True:"),)),
    "an outage is a 401": Mutant("I1", (read_or("raise TokenInvalid from None"),)),
    "an outage lets everything pass": Mutant(
        "I3",
        (
            read_or(
                "return Record(User('wx0123456789abcdef', 'unknown'), None, None, int(self.now()),"
                " int(self.now()) + 60), self.now() + 60"
            ),
        ),
    ),
    "a touch brings a session back": Mutant(
        "I2",
        (
            Change("sessions/store.py", READ, f"{READ}            vars(self)[token.id] = value\n"),
            Change(
                "sessions/store.py",
                TOUCH,
                "            idle_end = int((self.now() + self.policy.idle_ttl) * MICROSECONDS)\n"
                "            value = idle_end.to_bytes(8) + vars(self)[token.id][8:]\n"
                '            self.redis.ask(name, "HSET", name, token.id, value, parse=int)\n',
            ),
        ),
    ),
    "a logout ends no session": Mutant(
        "I2",
        (
            Change(
                "sessions/scripts/end.lua",
                "if (named[session.id] or false) == (ARGV[3] == 'these') then",
                "if false then",
            ),
        ),
    ),
    "a logout is not published": Mutant(
        "I2",
        (Change("sessions/scripts/shared.lua", "redis.call('PUBLISH', 'wxa:revoked', table.concat(ids, ' '))", ""),),
        cache=True,
        workers=2,
    ),
    "a login does not end the session that it replaces": Mutant(
        "I2", (Change("sessions/scripts/login.lua", "if session.id == ARGV[9] then", "if false then"),)
    ),
    "a login keeps no limit": Mutant(
        "limit",
        (Change("sessions/scripts/login.lua", "if i <= #others + 1 - limit then", "if false then"),),
        max_sessions=FEW_SESSIONS,
    ),
    "a check answers with another user's session": Mutant(
        "I3",
        (
            Change(
                "sessions/cache.py",
                ENTRY,
                "            entry = known.entries.get(text) and next(iter(known.entries.values()))\n",
            ),
        ),
        cache=True,
    ),
    "a check answers with another identity": Mutant(
        "I3",
        (
            Change(
                "web/routes/sessions.py",
                "getattr(wx_session, name)",
                'getattr(wx_session, name.replace("openid", "id"))',
            ),
        ),
    ),
    "the cache lets every token pass": Mutant(
        "I4",
        (
            Change(
                "sessions/cache.py",
                ENTRY,
                "            entry = known.entries.get(text) or next(iter(known.entries.values()), None)\n",
            ),
        ),
        cache=True,
        # A slow machine sends few requests, and usually one of them in a hundred is forged.
        mix={**MIX, "forged": 20},
    ),
    "the cache evicts nothing": Mutant(
        "I2",
        (Change("sessions/cache.py", "dict.fromkeys(ids or (), now)", "{}"),),
        cache=True,
    ),
    "the cache needs no heartbeat": Mutant(
        "stale",
        (
            Change(
                "sessions/cache.py",
                "if self._listener is not None and self._listener.last_heartbeat >= now - MAX_HEARTBEAT_AGE:",
                "if self._listener is not None:",
            ),
            Change(
                "sessions/revocations.py",
                "self._tell(lambda subscriber: subscriber.clear())",
                "self._tell(lambda subscriber: None)",
            ),
        ),
        cache=True,
        dark=CACHED.stale + 2,
        # A logout that fails clears the cache, which hides this bug.
        mix=CHECKS,
    ),
    "no Retry-After": Mutant("I5", (Change("errors.py", '"Retry-After": self', '"X-Retry-After": self'),)),
}


class MutatedService(Service):
    """The service from a copy of its source with the changes of a mutant."""

    def __init__(self, environ: dict[str, str], folder: Path, mutant: Mutant) -> None:
        super().__init__(environ)
        shutil.copytree(ROOT / "wxauth", folder / "wxauth", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "Procfile", folder)
        for change in mutant.changes:
            source = folder / "wxauth" / change.file
            text = source.read_text()
            assert text.count(change.old) == 1, f"{change.file} has changed: adapt this mutant"
            source.write_text(text.replace(change.old, change.new))
        self._command = [part.replace(str(ROOT / "Procfile"), str(folder / "Procfile")) for part in self._command]
        self._cwd = folder


@contextmanager
def serving(redis_url: str, wechat: WeChatServer, folder: Path, mutant: Mutant) -> Iterator[Service]:
    more = {
        "WEB_CONCURRENCY": str(mutant.workers),
        "WXAUTH_MAX_SESSIONS": str(mutant.max_sessions),
        "WXAUTH_CACHE_SIZE": "10000" if mutant.cache else "0",
    }
    with MutatedService(environment(redis_url, wechat.url, **more), folder, mutant) as service:
        wait_until(lambda: service.output().count("Started worker") == mutant.workers, "the workers")
        yield service


def report(wechat: WeChatServer, folder: Path, mutant: Mutant, seed: int) -> set[str]:
    """Return what is red after some load, a stop of Redis, and touches that race logouts."""
    bounds = dataclasses.replace(CACHED if mutant.cache else UNCACHED, max_sessions=mutant.max_sessions)
    with RedisServer() as redis, Relay(redis.port, seed) as relay:
        with serving(relay.url, wechat, folder, mutant) as service:
            load = Load(service.url, wechat, seed=seed, users=6, mix=mutant.mix)
            load.log_in_all()
            start, end = stop_redis(load, redis, mutant.dark)
            if mutant.races:
                race(load, redis, relay)
            time.sleep(bounds.stale)
            load.check_all()
            too_many = mutant.max_sessions < MAX_SESSIONS and exceeds_limit(service, load, mutant.max_sessions)
        dark = calls_within(load.calls, start, end)
        checks = milliseconds([call for call in dark if call.operation == "check"], 50)
        stale = [call for call in dark if call.passed and call.start > start + CACHED.stale and not is_forged(call)]
        red = {name for name, found in violations(load.calls, bounds).items() if found}
        found = {"dark": checks > DARK_LIMIT, "stale": bool(stale), "limit": too_many}
        return red | {name for name, is_red in found.items() if is_red}


def stop_redis(load: Load, redis: RedisServer, seconds: float) -> tuple[float, float]:
    """Stop Redis for some seconds, with load before, in and after them. Return when it stopped and went on."""
    with load:
        time.sleep(0.5)
        redis.process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        time.sleep(seconds)
        end = time.monotonic()
        redis.process.send_signal(signal.SIGCONT)
        time.sleep(0.7)
    return start, end


def race(load: Load, redis: RedisServer, relay: Relay, times: int = 24) -> None:
    """Let a check that records a use race a logout, with delays of 0 to 77 ms. Replies are slow."""
    user, one, other = load.people[0], load.caller(), load.caller()
    relay.latency = 0.02
    with redis.client() as admin:
        for number in range(times):
            token = one.log_in(user).token_id or ""
            age_sessions(admin)
            check = partial(check_later, other, load, token, number % 12 * 0.007)
            run_in_parallel(partial(one.ask, "logout", user, token), check)
    relay.latency = 0
    # The load may have been too short for a login that replaces a session.
    one.log_in(user, one.log_in(user).token_id)
    for caller in (one, other):
        caller.close()


def check_later(caller: Caller, load: Load, token: str, delay: float) -> None:
    time.sleep(delay)
    caller.ask("check", load.people[0], token)


def exceeds_limit(service: Service, load: Load, limit: int) -> bool:
    """Return whether a user who logs in more often than the limit has more sessions than that."""
    person, caller = load.people[0], load.caller()
    for _ in range(limit + 2):
        caller.log_in(person)
    caller.close()
    answer = requests.get(f"{service.url}/sessions", headers={"Authorization": person.tokens[-1]}, timeout=5)
    return len(answer.json()["sessions"]) > limit


@pytest.mark.parametrize(
    "mutant", [NO_CHANGE, dataclasses.replace(NO_CHANGE, cache=True, workers=2)], ids=["cache off", "cache on"]
)
def test_unchanged_service_is_clean(run: Run, wechat: WeChatServer, tmp_path: Path, mutant: Mutant) -> None:
    """The same run finds nothing in the source as it is."""
    assert report(wechat, tmp_path, mutant, run.seed) == set()


def test_redis_that_restarts_empty_turns_i1_red(run: Run, wechat: WeChatServer, tmp_path: Path) -> None:
    """Logouts during the outage get 503, so I1 still knows which tokens must be alive."""
    with RedisServer() as redis, serving(redis.url, wechat, tmp_path, NO_CHANGE) as service:
        load = Load(service.url, wechat, seed=run.seed, users=6)
        load.log_in_all()
        with load:
            time.sleep(0.5)
            redis.process.kill()
            redis.process.wait()
            time.sleep(run.of(1, 10))
            redis.start()
            time.sleep(1)
        load.check_all()
    found = len(violations(load.calls, UNCACHED)["I1"])
    run.figure("mutants", "a Redis that restarts empty", f"I1: {found}", "I1 is red")
    assert found > 0


def test_logged_token_open_files_memory_and_new_pid_turn_their_checks_red(run: Run, wechat: WeChatServer) -> None:
    with RedisServer() as redis, ObservedService(redis.url, wechat) as service:
        with single_caller(service, wechat, run.seed) as (caller, person, calls):
            token = caller.log_in(person).token_id or ""
        before = service.before
        assert_no_secrets(run, "unchanged service", service, calls)
        assert_workers_unchanged(run, "unchanged service", service)
        with service.log.open("a") as log:
            log.write(token)
        with pytest.raises(AssertionError):
            assert_no_secrets(run, "mutants", service, calls)
        for red in (
            dataclasses.replace(before, files=before.files - MAX_MORE_FILES - 30),
            dataclasses.replace(before, memory=before.memory - MAX_MORE_MEMORY - 30),
            dataclasses.replace(before, pids=before.pids[:1]),
        ):
            service.before = red
            with pytest.raises(AssertionError):
                assert_workers_unchanged(run, "mutants", service)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_mutant_turns_its_invariant_red(
    run: Run, wechat: WeChatServer, tmp_path: Path, mutant: Mutant, request: pytest.FixtureRequest
) -> None:
    # A race may end well each time, above all on a slow machine. Then it gets another chance.
    for number in range(3 if mutant.races else 1):
        (folder := tmp_path / str(number)).mkdir()
        red = report(wechat, folder, mutant, run.seed + number)
        if mutant.red in red:
            break
    run.figure("mutants", request.node.callspec.id, ", ".join(sorted(red)), f"{mutant.red} is red")
    assert mutant.red in red
