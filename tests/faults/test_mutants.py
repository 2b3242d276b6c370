"""The suite itself under test: a service that was broken on purpose must not pass for a sound one."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import Run
from tests.faults.support.driver import Caller, Load, milliseconds
from tests.faults.support.history import violations
from tests.faults.support.relay import Relay
from tests.faults.support.rig import (
    CACHED,
    MAX_MORE_FILES,
    MAX_MORE_MEMORY,
    UNCACHED,
    ObservedService,
    assert_workers_unchanged,
    assert_no_secrets,
    single_caller,
    run_in_parallel,
    calls_within,
)
from tests.servers import RedisServer, wait_until
from tests.service import ROOT, Service, WeChatServer, environment

#: The middle answer in the dark: with a breaker most cost next to nothing, without one each costs a time-out.
DARK_BAR = 100


@dataclass(frozen=True)
class Fault:
    """One change of the source, and what of the report it must turn red; `at_hand` are sessions, or none."""

    module: str
    old: str
    new: str
    red: str
    at_hand: bool = False


NOTHING = Fault("breaker", "", "", "")
MUTANTS = {
    "the breaker always admits": Fault("breaker", "if not self.is_open:", "if True:", "dark"),
    "an outage is a 401": Fault(
        "redis_client",
        "        return self._talk(key, lambda wire: value(wire, key))\n",
        "        try:\n"
        "            return self._talk(key, lambda wire: value(wire, key))\n"
        "        except StoreUnavailable:\n"
        "            return None\n",
        "I1",
    ),
    "a SET in place of EXPIRE": Fault(
        "redis_wire",
        '    (done,) = wire.ask(("EXPIRE", key, seconds))\n',
        '    (kept,) = wire.ask(("GET", key))\n'
        '    wire.ask(("SET", key, kept or b"", "EX", seconds))\n'
        "    done = 1\n",
        "I2",
    ),
    "a login that ends nobody": Fault(
        "roster",
        "        yield from self._drop(self.dead | ended)\n",
        "        yield from self._drop(self.dead)\n",
        "I2",
    ),
    "another identity than that of the login": Fault(
        "login",
        "{name: getattr(wx_session, name) for name in names}",
        '{name: getattr(wx_session, name.replace("openid", "id")) for name in names}',
        "I3",
    ),
    "no Retry-After": Fault("problems", 'headers.append(("Retry-After"', 'headers.append(("X-Retry-After"', "I5"),
    "a cache that forgets nobody": Fault(
        "cache", "            for id in ids:\n", "            for id in ():\n", "I2", at_hand=True
    ),
    "a cache that knows everybody": Fault(
        "cache",
        "        kept = self._kept.get(text)\n",
        "        kept = self._kept.get(text) or next(iter(self._kept.values()), None)\n",
        "I4",
        at_hand=True,
    ),
    "a revoke that does nothing": Fault(
        "sessions",
        '        self.shelves.dismiss(session.user, lambda _: {session.id}, "logout")\n',
        "        self.shelves.of(session.user)\n",
        "I2",
    ),
}


class Broken(Service):
    """The service from a copy of its source, with one fault in it."""

    def __init__(self, environ: dict[str, str], folder: Path, fault: Fault) -> None:
        super().__init__(environ)
        shutil.copytree(ROOT / "wxauth", folder / "wxauth", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("app.py", "Procfile"):
            shutil.copy(ROOT / name, folder)
        source = folder / "wxauth" / f"{fault.module}.py"
        text = source.read_text()
        assert not fault.old or text.count(fault.old) == 1, f"{fault.module}.py has changed: mend this mutant"
        source.write_text(text.replace(fault.old, fault.new) if fault.old else text)
        self._command = [part.replace(str(ROOT / "Procfile"), str(folder / "Procfile")) for part in self._command]
        self._cwd = folder


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@contextmanager
def serving_broken(redis_url: str, wechat: WeChatServer, folder: Path, fault: Fault) -> Iterator[Service]:
    size = "10000" if fault.at_hand else "0"
    more = {"WEB_CONCURRENCY": "1", "WXAUTH_MAX_SESSIONS": "1000", "WXAUTH_CACHE_SIZE": size}
    with Broken(environment(redis_url, wechat.url, **more), folder, fault) as service:
        wait_until(lambda: "Started worker" in service.output(), "a worker")
        yield service


def report(wechat: WeChatServer, folder: Path, fault: Fault, seed: int) -> set[str]:
    """The invariants and figures that are red after some load, a freeze of Redis, and uses that race logouts."""
    with RedisServer() as redis, Relay(redis.port, seed) as relay:
        with serving_broken(relay.url, wechat, folder, fault) as service:
            load = Load(service.url, wechat, seed=seed, users=6)
            load.log_in_all()
            start, end = freeze(load, redis)
            if fault.red in ("", "I2"):
                race(load, redis, relay)
            time.sleep(CACHED.stale if fault.at_hand else 0)
            load.check_all()
        dark = milliseconds([call for call in calls_within(load.calls, start, end) if call.operation == "check"], 50)
        red = {name for name, found in violations(load.calls, CACHED if fault.at_hand else UNCACHED).items() if found}
        return red | ({"dark"} if dark > DARK_BAR else set())


def freeze(load: Load, redis: RedisServer, seconds: float = 1.5) -> tuple[float, float]:
    """From when to when Redis stood still, with load before, in and after it."""
    with load:
        time.sleep(0.5)
        redis.process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        time.sleep(seconds)
        end = time.monotonic()
        redis.process.send_signal(signal.SIGCONT)
        time.sleep(0.7)
    return start, end


def race(load: Load, redis: RedisServer, relay: Relay, times: int = 12) -> None:
    """A use that has to be recorded, at every moment of a logout that a slow network draws out."""
    user, one, other = load.people[0], load.caller(), load.caller()
    relay.latency = 0.02
    with redis.client() as admin:
        for number in range(times):
            token = one.log_in(user).token_id or ""
            for key in admin.scan_iter("wxa:*:s:*"):
                admin.expire(key, 1000)
            run_in_parallel(partial(one.ask, "logout", user, token), partial(ask_later, other, load, token, number * 0.007))
    relay.latency = 0
    # So short a load may have no login left that ended a session.
    one.log_in(user, one.log_in(user).token_id)
    for caller in (one, other):
        caller.close()


def ask_later(caller: Caller, load: Load, token: str, pause: float) -> None:
    time.sleep(pause)
    caller.ask("check", load.people[0], token)


def test_the_sound_service_is_clean(run: Run, wechat: WeChatServer, tmp_path: Path) -> None:
    """The same run over the source as it is finds nothing, or it would prove nothing."""
    assert report(wechat, tmp_path, NOTHING, run.seed) == set()


def test_a_redis_that_forgets_is_caught(run: Run, wechat: WeChatServer, tmp_path: Path) -> None:
    """Killed, and back empty: after a while of 503 for every logout it is still known who must be logged in."""
    with RedisServer() as redis, serving_broken(redis.url, wechat, tmp_path, NOTHING) as service:
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
    run.figure("broken on purpose", "a Redis that comes back empty", f"I1: {found}", "I1 is red")
    assert found > 0


def test_what_a_service_leaves_behind_is_caught(run: Run, wechat: WeChatServer) -> None:
    """A token in the log, files that stay open, and a worker that is another one are red, each by itself."""
    with RedisServer() as redis, ObservedService(redis.url, wechat) as service:
        with single_caller(service, wechat, run.seed) as (caller, person, calls):
            token = caller.log_in(person).token_id or ""
        before = service.before
        assert_no_secrets(run, "sound", service, calls)
        assert_workers_unchanged(run, "sound", service)
        with service.log.open("a") as log:
            log.write(token)
        with pytest.raises(AssertionError):
            assert_no_secrets(run, "broken on purpose", service, calls)
        for red in (
            dataclasses.replace(before, files=before.files - MAX_MORE_FILES - 30),
            dataclasses.replace(before, memory=before.memory - MAX_MORE_MEMORY - 30),
            dataclasses.replace(before, pids=before.pids[:1]),
        ):
            service.before = red
            with pytest.raises(AssertionError):
                assert_workers_unchanged(run, "broken on purpose", service)


@pytest.mark.parametrize("fault", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_broken_service_is_caught(
    run: Run, wechat: WeChatServer, tmp_path: Path, fault: Fault, request: pytest.FixtureRequest
) -> None:
    """Where the code is wrong, the run is red."""
    red = report(wechat, tmp_path, fault, run.seed)
    run.figure("broken on purpose", request.node.callspec.id, ", ".join(sorted(red)), f"{fault.red} is red")
    assert fault.red in red
