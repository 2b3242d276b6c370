"""fork() in an application that has called WeChat before: parent and children share no connection and no slot."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.faults.conftest import Run
from tests.faults.support.slow_wechat import SlowWeChat, code
from tests.support.rogue import self_signed
from tests.support.servers import RedisServer
from tests.support.service import environment
from wxauth import Settings, WxAuth
from wxauth.errors import WxAuthError
from wxauth.web.services import services

CHILDREN = 2
#: Milliseconds. While WeChat takes this long, the other processes send their requests.
DELAY = 3


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["plain", "TLS"])
def settings(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    folder = tmp_path if request.param == "TLS" else None
    if folder:
        monkeypatch.setenv("SSL_CERT_FILE", str(self_signed(folder)[1]))
    with SlowWeChat(folder) as wechat:
        yield Settings.from_env(environment(redis_server.url, wechat.url))


def wrong_logins(auth: WxAuth, name: str, count: int) -> int:
    """Log `count` users in. Return how many did not get their own session."""
    return sum(not gets_own_session(auth, f"{name}-{number}") for number in range(count))


def gets_own_session(auth: WxAuth, user: str) -> bool:
    try:
        return auth.log_in(code(DELAY, user))[1].openid == f"o{user}"
    except WxAuthError:
        return False


def forked(action: Callable[[], int]) -> int:
    """Start a child that ends with the result of `action` as its exit code, or with 255. Return its pid."""
    if pid := os.fork():
        return pid
    try:
        os._exit(min(action(), 254))
    finally:
        os._exit(255)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_logins_in_parent_and_children_get_their_own_users(settings: Settings, run: Run) -> None:
    count = run.of(20, 100)
    auth = WxAuth(app := Flask("shop"), settings)
    with app.app_context():
        assert wrong_logins(auth, "before", 1) == 0
        pids = [forked(lambda name=f"child{n}": wrong_logins(auth, name, count)) for n in range(CHILDREN)]  # type: ignore[misc]
        wrong = [wrong_logins(auth, "parent", count), *map(exit_code, pids)]
    run.figure("fork() after a call to WeChat", f"wrong logins of {count * len(wrong)}", sum(wrong), 0)
    assert wrong == [0] * (CHILDREN + 1)


def test_child_has_slots_of_its_own(settings: Settings) -> None:
    """At the moment of the fork the parent waits for WeChat and asks Redis, and takes the only slot and turn."""
    auth = WxAuth(app := Flask("shop"), dataclasses.replace(settings, threads=2, redis_connections=1))
    with app.app_context():
        with services().wechat.slot(), services().login_turn(0):
            pid = forked(lambda: wrong_logins(auth, "slots", 1))
        assert exit_code(pid) == 0
