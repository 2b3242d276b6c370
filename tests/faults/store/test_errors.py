"""Redis refuses commands: checks go on where it still reads, and the log has the reason and its hint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import requests

from tests.faults.conftest import Run
from tests.faults.support.rig import ObservedService, assert_clean, events, single_caller
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.service import Service, WeChatServer
from wxauth.storage.reasons import HINTS

ARGUMENTS = ("--maxmemory-policy", "noeviction", "--repl-diskless-load", "disabled")
EVENTS = ("store_unavailable", "redis_not_ready")
Admin = redis.Redis


@dataclass(frozen=True)
class Refusal:
    """How to make Redis refuse and accept again, the reason in our log, and what still works."""

    word: str
    begin: Callable[[Admin, Path], object]
    end: Callable[[Admin, Path], object]
    reads: bool
    logout: int = 503


def fail_to_save(admin: Admin, folder: Path) -> None:
    """Put a folder in the place of the dump, so that no snapshot can be written."""
    (folder / "dump.rdb").unlink(missing_ok=True)
    (folder / "dump.rdb").mkdir()
    admin.config_set("save", "3600 1")
    admin.set("changed", "1", ex=60)
    admin.bgsave()
    wait_until(lambda: admin.info()["rdb_last_bgsave_status"] == "err", "a snapshot that failed")


def save_again(admin: Admin, folder: Path) -> None:
    (folder / "dump.rdb").rmdir()
    wait_until(lambda: not admin.info()["rdb_bgsave_in_progress"], "the end of the snapshot")
    admin.bgsave()
    wait_until(lambda: admin.info()["rdb_last_bgsave_status"] == "ok", "a snapshot")


def ask_for_a_password(admin: Admin, folder: Path) -> None:
    admin.config_set("requirepass", "new")
    admin.client_kill_filter(_type="normal", skipme=True)


def close_to_clients(admin: Admin, folder: Path) -> None:
    admin.config_set("maxclients", 1)
    admin.client_kill_filter(_type="normal", skipme=True)


def acl(admin: Admin, rule: str) -> None:
    # redis-py's acl_setuser resets the user first.
    admin.execute_command("ACL", "SETUSER", "default", rule)  # type: ignore[no-untyped-call]


REFUSALS = {
    "OOM": Refusal(
        "oom",
        lambda admin, _: admin.config_set("maxmemory", 1),
        lambda admin, _: admin.config_set("maxmemory", 0),
        reads=True,
        # A full Redis still deletes.
        logout=204,
    ),
    "READONLY": Refusal(
        "readonly",
        lambda admin, _: admin.replicaof("127.0.0.1", str(free_port())),
        lambda admin, _: admin.replicaof("NO", "ONE"),
        reads=True,
    ),
    "NOPERM": Refusal(
        "noperm",
        lambda admin, _: acl(admin, "-@write"),
        lambda admin, _: acl(admin, "+@all"),
        reads=True,
    ),
    "MISCONF": Refusal("misconf", fail_to_save, save_again, reads=True),
    "NOAUTH": Refusal(
        "noauth", ask_for_a_password, lambda admin, _: admin.config_set("requirepass", ""), reads=False
    ),
    "max clients": Refusal(
        "max_clients", close_to_clients, lambda admin, _: admin.config_set("maxclients", 1000), reads=False
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(*ARGUMENTS) as running:
        yield running


@pytest.fixture(scope="module")
def service(server: RedisServer, wechat: WeChatServer) -> Iterator[ObservedService]:
    with ObservedService(server.url, wechat) as running:
        yield running


def readiness(service: Service) -> tuple[int, str]:
    answer = requests.get(f"{service.url}/readyz", timeout=5)
    return answer.status_code, answer.json()["redis"]


def is_reported(service: Service, reason: str, since: int) -> bool:
    """Return whether readiness names the reason, and both log events name it with its hint."""
    logged = all((reason, HINTS[reason]) in reasons(service, event, since) for event in EVENTS)
    return readiness(service) == (503, reason) and logged


def reasons(service: Service, event: str, since: int) -> set[tuple[str, str]]:
    """Return the reasons in the log, each with its hint."""
    return {(found["reason"], found["hint"]) for found in events(service)[since:] if found["event"] == event}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_redis_that_refuses_commands_causes_503_with_reason_and_hint(
    run: Run, service: ObservedService, server: RedisServer, wechat: WeChatServer, refusal: Refusal
) -> None:
    """Checks succeed if Redis still reads, and logouts if it still deletes. Everything else is a 503."""
    with server.client() as admin, single_caller(service, wechat, run.seed) as (caller, person, calls):
        admin.ping()
        token, other = (caller.log_in(person).token_id or "" for _ in range(2))
        since = len(events(service))
        refusal.begin(admin, server.folder)
        try:
            checked = {caller.ask("check", person, token).status for _ in range(4)}
            written = caller.ask("logout", person, other).status, caller.log_in(person).status
            # The first refusals may look like a lost connection.
            wait_until(
                lambda: caller.log_in(person).status == 503 and is_reported(service, refusal.word, since),
                f"{refusal.word} and its hint",
            )
        finally:
            refusal.end(admin, server.folder)
        wait_until(lambda: caller.ask("check", person, token).status == 200, "the same session again")
        wait_until(lambda: caller.log_in(person).status == 200, "a login again")
        assert (checked, written) == ({200} if refusal.reads else {503}, (refusal.logout, 503))
        assert_clean(run, f"redis says {refusal.word}", service, calls, witnesses=False)


def test_redis_that_loads_its_data_causes_503_and_keeps_sessions(run: Run, wechat: WeChatServer) -> None:
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with RedisServer(*slow) as server, ObservedService(server.url, wechat) as service:  # noqa: SIM117 - callers end first
        with single_caller(service, wechat, run.seed) as (caller, person, calls), server.client() as admin:
            token = caller.log_in(person).token_id or ""
            admin.mset({f"filling {number}": "x" * 100 for number in range(700)})
            admin.shutdown(save=True)
            server.process.wait()
            server.start()
            start = time.monotonic()
            words = set()
            while (status := caller.ask("check", person, token).status) != 200 and time.monotonic() < start + 20:
                assert status == 503
                words.add(readiness(service)[1])
            run.figure("redis is loading", "seconds of 503", round(time.monotonic() - start, 1), "")
            assert "loading" in words
            hint = ("loading", HINTS["loading"])
            wait_until(lambda: hint in reasons(service, "store_unavailable", 0), "the hint in the log")
            assert_clean(run, "redis is loading", service, calls)
