"""Access tokens: shared by all workers, fetched by one, sealed, replaced before their end, seldom forced."""

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
from tests.servers import RedisServer, free_port, wait_until
from tests.service import ROOT, WeChatServer, environment
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
from wxauth.wechat.access_tokens import FORCE_INTERVAL, FORCED_AT_MOST, LOCK_GRACE, MARGIN, AccessTokens
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Transport

OTHER_KEY = "ring-key-that-nobody-may-see-0002"
PLACE = f"wxa:{{{APPID}}}"
EIGHT = """
import sys
from wxauth.wechat.access_tokens import AccessTokens
from wxauth.web.extension import redis_client, wechat_client
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
    """Keeps what stable_token was asked: whether it was to be forced; and can take its time, or fail."""

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
    """Makes a worker: each has its own client of WeChat's, all have one Redis."""

    def make(*keys: str, timeout: float = 4, secret: str = APP_SECRET) -> AccessTokens:
        client = WeChatClient(
            {APPID: Secret(secret)}, Transport("http://127.0.0.1:1", wechat), timeout, max_concurrent=4
        )
        return AccessTokens(redis_client, KeyRing([Secret(key) for key in keys or (RING_KEY,)]), client, clock)

    return make


def token_of(tokens: AccessTokens) -> str:
    return tokens.use(APPID, lambda token, deadline: token.reveal())


class Call:
    """A call that takes any token but those that it was told to refuse."""

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
    """The token that another system with the same AppSecret now has, in place of all before."""
    theirs = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    with theirs.slot() as deadline:
        return theirs.access_token(APPID, deadline, force=True).secret.reveal()


def keys_of(raw_redis: redis.Redis) -> set[str]:
    return {key.decode().removeprefix(PLACE) for key in cast(list[bytes], raw_redis.keys("wxa:*"))}


def test_two_workers_share_one_token(worker: Worker, wechat: CountedWeChat) -> None:
    """WeChat is asked once, without force."""
    assert token_of(worker()) == token_of(worker())
    assert wechat.forced == [False]


def test_who_comes_meanwhile_waits_and_gets_the_same(worker: Worker, wechat: CountedWeChat) -> None:
    """However many ask while one fetches."""
    wechat.go_on.clear()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(token_of, worker()) for _ in range(4)]
        wechat.go_on.set()
        assert len({future.result() for future in asked}) == 1
    assert wechat.forced == [False]


def test_one_that_came_between_the_look_and_the_lock_is_taken(
    worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis, clock: Clock
) -> None:
    """Who gets the lock late does not fetch another."""

    class Late(RedisClient):
        def claim(self, key: str, owner: str, seconds: float) -> bool:
            token_of(worker())
            return super().claim(key, owner, seconds)

    client = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    late = AccessTokens(Late(lambda: raw_redis), KeyRing([Secret(RING_KEY)]), client, clock)
    assert token_of(late) == token_of(worker())
    assert wechat.forced == [False]


def test_eight_workers_that_start_at_once_fetch_one() -> None:
    """Real processes, a real Redis, a WeChat that counts: one stable_token call, and one token for all."""
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


def test_the_lock_of_a_worker_that_dies_ends_by_itself(
    worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis
) -> None:
    """A little after the deadline of the call, so nobody waits long for somebody who is gone."""
    wechat.go_on.clear()
    with ThreadPoolExecutor(1) as others:
        fetching = others.submit(token_of, worker())
        wait_until(lambda: bool(raw_redis.exists(f"{PLACE}:lock")), "the lock")
        left = int(raw_redis.pttl(f"{PLACE}:lock"))
        wechat.go_on.set()
        fetching.result(10)
    assert 0 < left <= (4 + LOCK_GRACE) * 1000
    assert not raw_redis.exists(f"{PLACE}:lock")


def test_redis_holds_no_token_that_can_be_read(worker: Worker, raw_redis: redis.Redis) -> None:
    """It lies there sealed, under a name that needs our key, and every key has an end."""
    token = token_of(worker())
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    assert token.encode() not in cast(bytes, raw_redis.get(name))
    assert 7200 - MARGIN - 5 <= int(raw_redis.ttl(name)) <= 7200 - MARGIN


def test_what_was_moved_or_edited_is_no_token(worker: Worker, raw_redis: redis.Redis, wechat: CountedWeChat) -> None:
    """Another is fetched in its place."""
    token_of(worker())
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    sealed = bytearray(cast(bytes, raw_redis.get(name)))
    sealed[1] ^= 1
    raw_redis.set(name, bytes(sealed), ex=60)
    token_of(worker())
    assert wechat.forced == [False, False]


def test_a_token_is_replaced_before_its_end(worker: Worker, wechat: CountedWeChat, clock: Clock) -> None:
    """Five minutes before it, when WeChat gives the next one."""
    first = token_of(worker())
    clock.advance(7200 - MARGIN - 2)
    assert token_of(worker()) == first
    clock.advance(3)
    assert token_of(worker()) != first
    assert wechat.forced == [False, False]


def test_what_is_left_counts_and_not_two_hours(worker: Worker, raw_redis: redis.Redis, clock: Clock) -> None:
    """Redis lost it: WeChat gives the same one, which is kept no longer than it lives."""
    first = token_of(worker())
    clock.advance(7200 - MARGIN - 45)
    raw_redis.flushall()
    assert token_of(worker()) == first
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    assert 0 < int(raw_redis.ttl(name)) <= 45


@pytest.mark.parametrize("left", [1, 299, 300, 301])
def test_a_token_near_its_end_is_kept_for_a_moment(left: int, redis_client: RedisClient, clock: Clock) -> None:
    """Never for no time at all, which Redis would refuse."""
    answer = json.dumps({"access_token": "t", "expires_in": left}).encode()

    class Ending(Transport):
        def post(self, *_: object) -> bytes:
            return answer

    client = WeChatClient({APPID: Secret(APP_SECRET)}, Ending("http://127.0.0.1:1"), 4, max_concurrent=1)
    assert token_of(AccessTokens(redis_client, KeyRing([Secret(RING_KEY)]), client, clock)) == "t"


def test_one_that_was_put_back_after_its_end_is_none(
    worker: Worker, raw_redis: redis.Redis, clock: Clock, wechat: CountedWeChat
) -> None:
    """As a backup would, whatever time Redis then gives it."""
    token_of(worker())
    (name,) = cast(list[bytes], raw_redis.keys("wxa:*"))
    sealed = cast(bytes, raw_redis.get(name))
    clock.advance(7200)
    raw_redis.set(name, sealed, ex=60)
    token_of(worker())
    assert wechat.forced == [False, False]


def test_after_a_refusal_an_older_keys_token_is_not_taken(
    worker: Worker, wechat: CountedWeChat, clock: Clock
) -> None:
    """It may have been lying there since long before; WeChat is asked, and has a good one."""

    def newest_alone(token: Secret, deadline: float) -> str:
        if token.reveal() != wechat.api.newest_access_token(APPID):
            raise AccessTokenRefused(40001)
        return token.reveal()

    token_of(worker(RING_KEY))
    for _ in range(2):
        clock.advance(60)
        forced_elsewhere(wechat)
        assert worker(OTHER_KEY, RING_KEY).use(APPID, newest_alone) == wechat.api.newest_access_token(APPID)


def test_rotated_keys_share_it_too(worker: Worker, wechat: CountedWeChat, raw_redis: redis.Redis) -> None:
    """What lies under an older key is found; what is fetched lies under the newest."""
    first = token_of(worker(RING_KEY))
    assert token_of(worker(OTHER_KEY, RING_KEY)) == first
    assert wechat.forced == [False]
    raw_redis.flushall()
    token_of(worker(OTHER_KEY, RING_KEY))
    assert token_of(worker(OTHER_KEY)) == first
    assert wechat.forced == [False, False]


def test_a_refused_token_is_replaced_by_what_another_worker_has_brought(
    worker: Worker, wechat: CountedWeChat
) -> None:
    """WeChat is asked by the quicker one alone."""
    old = token_of(worker())
    wechat.api.disown_access_token(APPID)
    brought: list[str] = []

    def overtaken(token: Secret, deadline: float) -> str:
        if token.reveal() != old:
            return token.reveal()
        brought.append(worker().use(APPID, Call(old)))
        raise AccessTokenRefused(40001)

    assert [worker().use(APPID, overtaken)] == brought
    assert wechat.forced == [False, False, True]


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
def test_where_wechat_has_a_newer_one_nothing_is_forced(worker: Worker, wechat: CountedWeChat, errcode: int) -> None:
    """Another system with the same AppSecret has forced it: to do so in turn would go on for ever."""
    old = token_of(worker())
    newer = forced_elsewhere(wechat)
    wechat.forced.clear()
    call = Call(old, errcode=errcode)
    assert worker().use(APPID, call) == newer
    assert (call.seen, wechat.forced) == ([old, newer], [False])


def test_wechats_newest_is_forced_once_it_is_refused_as_not_the_newest(worker: Worker, wechat: CountedWeChat) -> None:
    """40001 for the very token that stable_token gives: only then."""
    old = token_of(worker())
    call = Call(old)
    assert worker().use(APPID, call) == token_of(worker())
    assert wechat.forced == [False, False, True]
    assert call.seen[0] == old != call.seen[1]


@pytest.mark.parametrize("errcode", [40014, 42001])
def test_another_refusal_forces_nothing(worker: Worker, wechat: CountedWeChat, errcode: int) -> None:
    """It is raised as it came."""
    with pytest.raises(AccessTokenRefused, check=lambda error: error.errcode == errcode):
        worker().use(APPID, Call(token_of(worker()), errcode=errcode))
    assert True not in wechat.forced


def test_a_call_is_made_twice_at_most(worker: Worker) -> None:
    """If WeChat refuses the new token too, that is the answer."""

    class Never(Call):
        def __call__(self, token: Secret, deadline: float) -> str:
            self.refused.add(token.reveal())
            return super().__call__(token, deadline)

    call = Never()
    with pytest.raises(AccessTokenRefused):
        worker().use(APPID, call)
    assert len(call.seen) == 2


def test_another_error_is_not_asked_again(worker: Worker) -> None:
    """The call may have been carried out."""
    calls: list[str] = []

    def call(token: Secret, deadline: float) -> None:
        calls.append("")
        raise CodeUsed(40163)

    with pytest.raises(CodeUsed):
        worker().use(APPID, call)
    assert len(calls) == 1


def forced(worker: Worker, wechat: CountedWeChat, clock: Clock, hours: int) -> list[float]:
    """When WeChat was forced, while every token is refused once, each half minute."""
    times: list[float] = []
    for _ in range(hours * 120):
        wechat.forced.clear()
        with contextlib.suppress(AccessTokenRefused):
            worker().use(APPID, Call(token_of(worker())))
        times += [clock()] * wechat.forced.count(True)
        clock.advance(30)
    return times


def test_wechat_is_forced_as_seldom_as_it_asks(worker: Worker, wechat: CountedWeChat, clock: Clock) -> None:
    """Half a minute apart and more, and not more than 20 times in any 24 hours; the workers count together."""
    times = forced(worker, wechat, clock, 3)
    assert len(times) == FORCED_AT_MOST
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) >= FORCE_INTERVAL - 1
    clock.advance(86400 - 3 * 3600)
    assert len(forced(worker, wechat, clock, 1)) <= 20 - FORCED_AT_MOST


def test_a_worker_that_died_while_fetching_holds_nobody_up_for_long(worker: Worker, raw_redis: redis.Redis) -> None:
    """Its lock ends, and the next one fetches."""
    raw_redis.set(f"{PLACE}:lock", "a worker that was killed", px=300)
    assert token_of(worker())


def test_nobody_waits_for_ever(worker: Worker, raw_redis: redis.Redis, wechat: CountedWeChat) -> None:
    """Where another fetches for longer than there is time, that is said."""
    raw_redis.set(f"{PLACE}:lock", "a worker that takes its time", px=60000)
    with pytest.raises(WeChatBusy):
        token_of(worker(timeout=0.3))
    assert wechat.forced == []


def test_a_lock_is_given_back(worker: Worker, raw_redis: redis.Redis, wechat: CountedWeChat) -> None:
    """Also by a fetch that failed: the next one tries at once."""
    wechat.failure = requests.ConnectionError()
    with pytest.raises(WeChatUnreachable):
        token_of(worker())
    assert keys_of(raw_redis) == set()
    wechat.failure = None
    assert token_of(worker())


def test_a_wrong_app_secret_is_the_operators_matter(worker: Worker) -> None:
    """As with a login."""
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.errcode == 40125):
        token_of(worker(secret="another"))


def test_without_redis_nothing_is_fetched() -> None:
    """Nobody would know who else does."""
    wechat = CountedWeChat(time.time)
    client = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    nobody = RedisClient(connector(f"redis://127.0.0.1:{free_port()}/0", "verify"))
    with pytest.raises(StoreUnavailable):
        token_of(AccessTokens(nobody, KeyRing([Secret(RING_KEY)]), client))
    assert wechat.forced == []


def test_a_place_at_wechat_is_given_back(worker: Worker) -> None:
    """Four may ask at once, and more one after the other."""
    tokens = worker()
    assert len({token_of(tokens) for _ in range(9)}) == 1


def test_calls_and_logins_wait_in_the_same_few_places(redis_client: RedisClient, wechat: CountedWeChat) -> None:
    """Where they are taken, the next of either is told so at once."""
    client = WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), 4, max_concurrent=1)
    tokens = AccessTokens(redis_client, KeyRing([Secret(RING_KEY)]), client)
    with client.slot(), pytest.raises(WeChatBusy):
        token_of(tokens)
    with pytest.raises(WeChatBusy):
        tokens.use(APPID, lambda token, deadline: client.exchange(APPID, "a code"))
