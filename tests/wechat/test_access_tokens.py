"""Access tokens: one for all workers, fetched once, sealed, renewed in time, forced rarely."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import redis
import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.service import ROOT, WeChatServer, environment
from wxauth.clock import Clock
from wxauth.errors import (
    AccessTokenRefused,
    CodeUsed,
    StoreUnavailable,
    WeChatBusy,
    WeChatMisconfigured,
    WeChatUnreachable,
)
from wxauth.keys import KeyRing
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector
from wxauth.storage.single_flight import LOCK_GRACE
from wxauth.wechat.access_tokens import FORCE_INTERVAL, MARGIN, AccessTokens
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Transport

OTHER_KEY = "ring-key-that-nobody-may-see-0002"
PREFIX = f"wxa:{{{APPID}}}"
EIGHT = """
import sys
from wxauth.wechat.access_tokens import AccessTokens
from wxauth.web.services import redis_client, wechat_client
from wxauth.settings import Settings
from wxauth.keys import KeyRing
from wxauth.wechat.transport import Transport
import hashlib, os

settings = Settings.from_env(os.environ)
wechat = wechat_client(settings, Transport(settings.wechat_url))
tokens = AccessTokens(redis_client(settings), KeyRing(settings.secret_keys), wechat)
print("ready", flush=True)
sys.stdin.readline()
token = tokens.use(*settings.apps, lambda token, deadline: token)
print(hashlib.sha256(token.reveal().encode()).hexdigest(), flush=True)
"""


class CountedWeChat(FakeWeChat):
    """Keeps the `force_refresh` of each stable_token request. It can wait or fail."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__({APPID: Secret(APP_SECRET)}, clock)
        self.forced: list[bool] = []
        self.failure: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.forced.append(json.loads(request.body or "")["force_refresh"])
        self.go_on.wait(10)
        if self.failure:
            raise self.failure
        return super().send(request, *args, **kwargs)


@pytest.fixture
def wechat(clock: Clock) -> CountedWeChat:
    return CountedWeChat(clock)


Worker = Callable[..., AccessTokens]


@pytest.fixture
def worker(redis_client: RedisClient, wechat: CountedWeChat, clock: Clock) -> Worker:
    """Return a factory of workers. Each has its own WeChatClient; all use one Redis."""

    def make(*keys: str, timeout: float = 4, secret: str = APP_SECRET) -> AccessTokens:
        client = WeChatClient(
            {APPID: Secret(secret)}, Transport("http://127.0.0.1:1", wechat), timeout, max_concurrent=4
        )
        return AccessTokens(redis_client, KeyRing([Secret(key) for key in keys or (RING_KEY,)]), client, clock)

    return make


def token_of(tokens: AccessTokens) -> str:
    return tokens.use(APPID, lambda token, deadline: token.reveal())


class Call:
    """A call that refuses the given tokens and accepts any other."""

    def __init__(self, *refused: str, errcode: int = 40001) -> None:
        self.seen: list[str] = []
        self.refused = set(refused)
        self.errcode = errcode

    def __call__(self, token: Secret, deadline: float) -> str:
        self.seen.append(token.reveal())
        if token.reveal() in self.refused:
            raise AccessTokenRefused(self.errcode)
        return token.reveal()


def forced_elsewhere(wechat: CountedWeChat) -> str:
    """Return the token after another system with the same AppSecret has forced it."""
    theirs = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    with theirs.slot() as deadline:
        return theirs.access_token(APPID, deadline, force=True).secret.reveal()


def keys_of(raw_redis: redis.Redis) -> set[str]:
    return {key.decode().removeprefix(PREFIX) for key in cast(list[bytes], raw_redis.keys("wxa:*"))}


def test_two_workers_share_one_token(worker: Worker, wechat: CountedWeChat) -> None:
    """WeChat is asked once, without force."""
    assert token_of(worker()) == token_of(worker())
    assert wechat.forced == [False]


def test_use_waits_while_another_worker_fetches(worker: Worker, wechat: CountedWeChat) -> None:
    """All of them get the same token."""
    wechat.go_on.clear()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(token_of, worker()) for _ in range(4)]
        wechat.go_on.set()
        assert len({future.result() for future in asked}) == 1
    assert wechat.forced == [False]


def test_use_takes_a_token_stored_before_it_got_the_lock(
    worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis, clock: Clock
) -> None:
    """It does not fetch another."""

    class Late(RedisClient):
        def count(self, key: str, seconds: int, amount: int = 1) -> int:
            token_of(worker())
            return super().count(key, seconds)

    client = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    late = AccessTokens(Late(lambda: raw_redis), KeyRing([Secret(RING_KEY)]), client, clock)
    assert token_of(late) == token_of(worker())
    assert wechat.forced == [False]


def test_eight_worker_processes_fetch_one_token() -> None:
    """Real processes and a real Redis: one stable_token call."""
    with RedisServer() as server, WeChatServer() as wechat:
        environ = environment(server.url, wechat.url, PATH=os.environ["PATH"])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-c", EIGHT]
        workers = [subprocess.Popen(command, env=environ, cwd=ROOT, text=True, **pipes) for _ in range(8)]  # type: ignore[call-overload]
        assert [process.stdout.readline() for process in workers] == ["ready\n"] * 8
        for process in workers:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=30)[0] for process in workers]
        assert len(set(told)) == 1
        assert len(told[0]) == 65
        assert wechat.asked == ["/cgi-bin/stable_token"]


def test_lock_expires_shortly_after_the_deadline(
    worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis
) -> None:
    """A dead worker does not block the others for long."""
    wechat.go_on.clear()
    with ThreadPoolExecutor(1) as others:
        fetching = others.submit(token_of, worker())
        wait_until(lambda: bool(raw_redis.exists(f"{PREFIX}:lock")), "the lock")
        left = int(raw_redis.pttl(f"{PREFIX}:lock"))
        wechat.go_on.set()
        fetching.result(10)
    assert 0 < left <= (4 + LOCK_GRACE) * 1000
    assert not raw_redis.exists(f"{PREFIX}:lock")


def test_token_in_redis_is_sealed_and_expires(worker: Worker, raw_redis: redis.Redis) -> None:
    """Its name needs our key, too."""
    token = token_of(worker())
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    assert token.encode() not in cast(bytes, raw_redis.get(name))
    assert 7200 - MARGIN - 5 <= int(raw_redis.ttl(name)) <= 7200 - MARGIN


def test_use_fetches_a_new_token_if_the_stored_one_was_edited(
    worker: Worker, raw_redis: redis.Redis, wechat: CountedWeChat
) -> None:
    token_of(worker())
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    sealed = bytearray(cast(bytes, raw_redis.get(name)))
    sealed[1] ^= 1
    raw_redis.set(name, bytes(sealed), ex=60)
    token_of(worker())
    assert wechat.forced == [False, False]


def test_use_renews_the_token_five_minutes_before_its_end(
    worker: Worker, wechat: CountedWeChat, clock: Clock
) -> None:
    """WeChat issues the next one then."""
    first = token_of(worker())
    clock.advance(7200 - MARGIN - 2)
    assert token_of(worker()) == first
    clock.advance(3)
    assert token_of(worker()) != first
    assert wechat.forced == [False, False]


def test_token_is_stored_for_the_seconds_left(worker: Worker, raw_redis: redis.Redis, clock: Clock) -> None:
    """After Redis lost the token, WeChat returns the same one again."""
    first = token_of(worker())
    clock.advance(7200 - MARGIN - 45)
    raw_redis.flushall()
    assert token_of(worker()) == first
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    assert 0 < int(raw_redis.ttl(name)) <= 45


@pytest.mark.parametrize("left", [1, 299, 300, 301])
def test_token_near_its_end_gets_a_ttl_above_zero(left: int, redis_client: RedisClient, clock: Clock) -> None:
    """Redis refuses a TTL of zero."""
    answer = json.dumps({"access_token": "t", "expires_in": left}).encode()

    class Ending(Transport):
        def ask(self, *_: object) -> bytes:
            return answer

    client = WeChatClient({APPID: Secret(APP_SECRET)}, Ending("http://127.0.0.1:1"), 4, max_concurrent=1)
    assert token_of(AccessTokens(redis_client, KeyRing([Secret(RING_KEY)]), client, clock)) == "t"


def test_use_ignores_an_expired_token_from_a_backup(
    worker: Worker, raw_redis: redis.Redis, clock: Clock, wechat: CountedWeChat
) -> None:
    token_of(worker())
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    sealed = cast(bytes, raw_redis.get(name))
    clock.advance(7200)
    raw_redis.set(name, sealed, ex=60)
    token_of(worker())
    assert wechat.forced == [False, False]


def test_use_after_a_refusal_ignores_tokens_of_older_ring_keys(
    worker: Worker, wechat: CountedWeChat, clock: Clock
) -> None:
    """Such a token may be old. WeChat has a valid one."""

    def newest_alone(token: Secret, deadline: float) -> str:
        if token.reveal() != wechat.api.newest_access_token(APPID):
            raise AccessTokenRefused(40001)
        return token.reveal()

    token_of(worker(RING_KEY))
    for _ in range(2):
        clock.advance(60)
        forced_elsewhere(wechat)
        assert worker(OTHER_KEY, RING_KEY).use(APPID, newest_alone) == wechat.api.newest_access_token(APPID)


def test_use_finds_the_token_of_an_older_ring_key(
    worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis
) -> None:
    """A fetched token is stored with the newest key."""
    first = token_of(worker(RING_KEY))
    assert token_of(worker(OTHER_KEY, RING_KEY)) == first
    assert wechat.forced == [False]
    raw_redis.flushall()
    token_of(worker(OTHER_KEY, RING_KEY))
    assert token_of(worker(OTHER_KEY)) == first
    assert wechat.forced == [False, False]


def test_use_after_a_refusal_takes_the_token_of_another_worker(worker: Worker, wechat: CountedWeChat) -> None:
    """Only the faster worker asks WeChat."""
    old = token_of(worker())
    wechat.api.reject_access_token(APPID)
    brought: list[str] = []

    def overtaken(token: Secret, deadline: float) -> str:
        if token.reveal() != old:
            return token.reveal()
        brought.append(worker().use(APPID, Call(old)))
        raise AccessTokenRefused(40001)

    assert [worker().use(APPID, overtaken)] == brought
    assert wechat.forced == [False, False, True]


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
def test_use_after_a_refusal_takes_wechats_newer_token_without_force(
    worker: Worker, wechat: CountedWeChat, errcode: int
) -> None:
    """Another system has forced it. If both forced, it would never end."""
    old = token_of(worker())
    newer = forced_elsewhere(wechat)
    wechat.forced.clear()
    call = Call(old, errcode=errcode)
    assert worker().use(APPID, call) == newer
    assert (call.seen, wechat.forced) == ([old, newer], [False])


def test_use_forces_only_if_wechat_refuses_its_newest_token_with_40001(worker: Worker, wechat: CountedWeChat) -> None:
    old = token_of(worker())
    call = Call(old)
    assert worker().use(APPID, call) == token_of(worker())
    assert wechat.forced == [False, False, True]
    assert call.seen[0] == old != call.seen[1]


@pytest.mark.parametrize("errcode", [40014, 42001])
def test_use_raises_another_refusal_without_force(worker: Worker, wechat: CountedWeChat, errcode: int) -> None:
    with pytest.raises(AccessTokenRefused, check=lambda error: error.errcode == errcode):
        worker().use(APPID, Call(token_of(worker()), errcode=errcode))
    assert True not in wechat.forced


def test_use_calls_at_most_twice(worker: Worker) -> None:
    """If WeChat refuses the new token too, that error is raised."""

    class Never(Call):
        def __call__(self, token: Secret, deadline: float) -> str:
            self.refused.add(token.reveal())
            return super().__call__(token, deadline)

    call = Never()
    with pytest.raises(AccessTokenRefused):
        worker().use(APPID, call)
    assert len(call.seen) == 2


def test_use_does_not_repeat_the_call_after_another_error(worker: Worker) -> None:
    """The call may have had its effect."""
    calls: list[str] = []

    def call(token: Secret, deadline: float) -> None:
        calls.append("")
        raise CodeUsed(40163)

    with pytest.raises(CodeUsed):
        worker().use(APPID, call)
    assert len(calls) == 1


def pass_time(raw_redis: redis.Redis, clock: Clock, seconds: int) -> None:
    """Move the clock and the TTLs in Redis: the limits of forcing are TTLs."""
    clock.advance(seconds)
    for key in cast(list[bytes], raw_redis.keys("wxa:*")):
        raw_redis.pexpire(key, int(raw_redis.pttl(key)) - seconds * 1000)


def forced(worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis, clock: Clock, hours: int) -> list[float]:
    """Return the times at which WeChat was forced, while it refuses every token once each half minute."""
    times: list[float] = []
    for _ in range(hours * 120):
        wechat.forced.clear()
        with contextlib.suppress(AccessTokenRefused):
            worker().use(APPID, Call(token_of(worker())))
        times += [clock()] * wechat.forced.count(True)
        pass_time(raw_redis, clock, 30)
    return times


def test_force_keeps_wechats_limits(
    worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis, clock: Clock
) -> None:
    """At least 30 seconds apart and at most 20 times in any 24 hours, over all workers."""
    times = forced(worker, wechat, raw_redis, clock, 24)
    assert 0 < len(times) <= 20
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) >= FORCE_INTERVAL - 1 > 30


def test_use_fetches_after_the_lock_of_a_dead_worker_expires(worker: Worker, raw_redis: redis.Redis) -> None:
    raw_redis.set(f"{PREFIX}:lock", 1, px=300)
    assert token_of(worker())


def test_use_raises_busy_if_the_lock_outlasts_the_deadline(
    worker: Worker, raw_redis: redis.Redis, wechat: CountedWeChat
) -> None:
    raw_redis.set(f"{PREFIX}:lock", 1, px=60000)
    with pytest.raises(WeChatBusy):
        token_of(worker(timeout=0.3))
    assert wechat.forced == []


def test_failed_fetch_releases_the_lock(worker: Worker, raw_redis: redis.Redis, wechat: CountedWeChat) -> None:
    """The next worker tries at once."""
    wechat.failure = requests.ConnectionError()
    with pytest.raises(WeChatUnreachable):
        token_of(worker())
    assert keys_of(raw_redis) == set()
    wechat.failure = None
    assert token_of(worker())


def test_use_raises_misconfigured_for_a_wrong_app_secret(worker: Worker) -> None:
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.errcode == 40125):
        token_of(worker(secret="another"))


def test_use_without_redis_raises_and_fetches_nothing() -> None:
    """A worker does not know then whether another one fetches."""
    wechat = CountedWeChat(time.time)
    client = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    nobody = RedisClient(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable):
        token_of(AccessTokens(nobody, KeyRing([Secret(RING_KEY)]), client))
    assert wechat.forced == []


def test_use_releases_its_slot(worker: Worker) -> None:
    """There are four slots."""
    tokens = worker()
    assert len({token_of(tokens) for _ in range(9)}) == 1


def test_calls_and_logins_share_the_slots(redis_client: RedisClient, wechat: CountedWeChat) -> None:
    """If all are taken, either raises WeChatBusy at once."""
    client = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    tokens = AccessTokens(redis_client, KeyRing([Secret(RING_KEY)]), client)
    with client.slot(), pytest.raises(WeChatBusy):
        token_of(tokens)
    with pytest.raises(WeChatBusy):
        tokens.use(APPID, lambda token, deadline: client.exchange(APPID, "a code"))
