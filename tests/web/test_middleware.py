"""The gate in front of Flask: bodies are read whole before anything is taken for them, and only so many at a time."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.servers import wait_until
from wxauth.logs import answering
from wxauth.models import Secret
from wxauth.settings import Client
from wxauth.web.middleware import READERS_PER_ADDRESS, wrap
from wxauth.web.requests import MAX_BODY

THREADS = 24
MOST = THREADS // 3
QUICK = 0.3


@dataclass
class Answer:
    status: str
    headers: dict[str, str]
    body: bytes


class SlowBody(io.BytesIO):
    """A body whose reader waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(b"slow")
        self.arrived = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        assert self.arrived.wait(10)
        return super().read(size)


class BrokenBody(io.BytesIO):
    """A body whose sender hangs up in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise ConnectionResetError


class CountedBody(io.BytesIO):
    """A body without an end, which knows how much was asked of it."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        self.asked += size
        return b"x" * size


class Echo:
    """A WSGI application: it says what it read, and from whom."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.calls += 1
        start_response("200 OK", [("X-Address", environ["REMOTE_ADDR"])])
        return [environ["wsgi.input"].read()]


def request(body: io.BytesIO | None, address: str, headers: dict[str, str]) -> WSGIEnvironment:
    method = "GET" if body is None else "POST"
    return {"REQUEST_METHOD": method, "REMOTE_ADDR": address, "wsgi.input": body or io.BytesIO(), **headers}


class Caller:
    """Calls a WSGI application as so many servers' threads would; in the end every slow body has arrived."""

    def __init__(self, app: Any, pool: ThreadPoolExecutor) -> None:
        self._app = app
        self._pool = pool
        self.slow: list[SlowBody] = []

    def call(self, body: io.BytesIO | None = None, address: str = "10.0.0.1", **headers: str) -> Answer:
        if body is not None and "HTTP_TRANSFER_ENCODING" not in headers:
            headers.setdefault("CONTENT_LENGTH", str(len(body.getvalue())))
        found: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
            found.extend([status, dict(headers)])
            return lambda _: None

        content = b"".join(self._app(request(body, address, headers), start_response))
        return Answer(found[0], found[1], content)

    def begin(self, address: str, count: int = 1, **headers: str) -> list[Future[Answer]]:
        """`count` requests from `address` whose bodies do not come."""
        bodies = [SlowBody() for _ in range(count)]
        self.slow += bodies
        return [self._pool.submit(self.call, body, address, **headers) for body in bodies]

    def let_go(self) -> None:
        for body in self.slow:
            body.arrived.set()


@pytest.fixture
def echo() -> Echo:
    return Echo()


def calling(app: Any) -> Iterator[Caller]:
    with ThreadPoolExecutor(64) as pool:
        caller = Caller(app, pool)
        yield caller
        caller.let_go()


@pytest.fixture
def caller(echo: Echo) -> Iterator[Caller]:
    yield from calling(wrap(echo, 0, THREADS))


@pytest.fixture
def proxied(echo: Echo) -> Iterator[Caller]:
    yield from calling(wrap(echo, 2, THREADS))


def refused(answer: Answer) -> bool:
    return answer.status.startswith("503")


def fill(caller: Caller) -> None:
    """As many slow bodies as the gate reads at a time, from as many addresses as it takes."""
    for number in range(MOST // READERS_PER_ADDRESS):
        caller.begin(f"10.1.0.{number}", READERS_PER_ADDRESS)
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"), "10.2.0.1")), "the gate is full")


def test_a_body_comes_through_as_it_was(caller: Caller) -> None:
    """The application reads what the caller sent."""
    assert caller.call(io.BytesIO(b"\x00\xff body")).body == b"\x00\xff body"


def test_a_backend_is_not_counted(echo: Echo) -> None:
    """It sends many bodies at once, all from one address; whoever guesses its secret is counted as before."""
    (ours, guessed) = (base64.b64encode(text.encode()).decode() for text in ("shop:secret", "shop:guess"))
    for caller in calling(wrap(echo, 0, THREADS, {"shop": Client(Secret("secret"), None)})):
        slow = caller.begin("10.0.0.1", MOST + 1, HTTP_AUTHORIZATION=f"Basic {ours}")
        fill(caller)
        assert caller.call(io.BytesIO(b"x"), HTTP_AUTHORIZATION=f"Basic {ours}").body == b"x"
        assert refused(caller.call(io.BytesIO(b"x"), HTTP_AUTHORIZATION=f"Basic {guessed}"))
        caller.let_go()
        assert {answer.result().body for answer in slow} == {b"slow"}


def test_nothing_is_taken_before_the_whole_body_is_there(caller: Caller, echo: Echo) -> None:
    """The application is called when it no longer has to wait for its caller."""
    (slow,) = caller.begin("10.0.0.1")
    time.sleep(0.05)
    assert echo.calls == 0
    caller.let_go()
    assert slow.result().body == b"slow"


def test_an_announced_body_is_read_as_far_as_announced(caller: Caller) -> None:
    """What follows it on the connection is another request's."""
    assert caller.call(io.BytesIO(b"mine, not mine"), CONTENT_LENGTH="4").body == b"mine"


@pytest.mark.parametrize("length", ["", "0", "-1", "1e3", "٣", "+5"])
def test_no_length_is_no_body(caller: Caller, length: str) -> None:
    """Whatever is not a number of digits announces nothing to be read here."""
    fill(caller)
    assert caller.call(io.BytesIO(), CONTENT_LENGTH=length).status == "200 OK"


def test_a_chunked_body_is_bounded(caller: Caller) -> None:
    """One byte more than may come is read, by which whoever judges sizes sees that it is too large."""
    body = CountedBody()
    answer = caller.call(body, HTTP_TRANSFER_ENCODING="chunked")
    assert body.asked == len(answer.body) == MAX_BODY + 1


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 5000], ids=["a byte too large", "a long number"])
def test_a_body_that_is_announced_too_large_is_left_unread(caller: Caller, length: str) -> None:
    """Whoever judges sizes refuses it by its length alone: it takes no place, not even at a gate that is full."""
    fill(caller)
    assert caller.call(io.BytesIO(b"x"), CONTENT_LENGTH=length).status == "200 OK"


def test_zeros_before_the_length_change_nothing(caller: Caller) -> None:
    """However the length is spelled, such a body is behind the gate."""
    fill(caller)
    assert refused(caller.call(io.BytesIO(b"x"), CONTENT_LENGTH="0000000001"))


def test_one_address_has_so_many_bodies_read_at_a_time(caller: Caller) -> None:
    """The next from there is refused; another address is served."""
    slow = caller.begin("10.0.0.1", READERS_PER_ADDRESS)
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"))), "the address has all that it may have")
    assert caller.call(io.BytesIO(b"x"), "10.0.0.2").status == "200 OK"
    caller.let_go()
    assert {answer.result().status for answer in slow} == {"200 OK"}


def test_only_a_third_of_the_threads_read_bodies(caller: Caller) -> None:
    """Past that an address is refused that has sent nothing yet."""
    fill(caller)
    assert refused(caller.call(io.BytesIO(b"x"), "10.9.0.1"))


def test_a_flood_from_one_address_does_not_lock_others_out(caller: Caller) -> None:
    """Those who wait for their own address's slow bodies leave places to an address that has none."""
    flood = caller.begin("10.0.0.1", 3 * MOST)
    assert caller.call(io.BytesIO(b"x"), "10.0.0.2").status == "200 OK"
    time.sleep(QUICK)
    caller.let_go()
    assert sum(refused(answer.result()) for answer in flood) == 3 * MOST - READERS_PER_ADDRESS


def test_a_request_without_a_body_never_waits(caller: Caller) -> None:
    """Checks are answered however many bodies do not come."""
    fill(caller)
    start = time.monotonic()
    assert {caller.call().status for _ in range(100)} == {"200 OK"}
    assert time.monotonic() - start < QUICK


def test_a_refusal_is_a_problem(caller: Caller) -> None:
    """503 with a code, an action, a request_id, and when to try again; nothing may keep it."""
    fill(caller)
    start = time.monotonic()
    answer = caller.call(io.BytesIO(b"x"))
    assert time.monotonic() - start < QUICK
    problem = json.loads(answer.body)
    assert (problem["code"], problem["action"], problem["status"]) == ("wechat_busy", "retry", 503)
    assert problem["request_id"]
    assert {"Retry-After", "X-Content-Type-Options"} <= set(answer.headers)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_refusal_is_over_once_it_is_answered(caller: Caller) -> None:
    """What its thread does next is not done for its request."""
    fill(caller)
    assert refused(caller.call(io.BytesIO(b"x")))
    assert answering.get() is None


def test_a_burst_of_quick_bodies_is_served(caller: Caller) -> None:
    """An address that many people share is not refused for what is read in no time."""
    with ThreadPoolExecutor(MOST * 3 // 4) as pool:
        answers = list(pool.map(lambda _: caller.call(io.BytesIO(b"x")), range(500)))
    assert {answer.status for answer in answers} == {"200 OK"}


def test_a_lost_body_leaves_no_count_behind(caller: Caller) -> None:
    """A caller that hangs up in the middle frees its place."""
    for _ in range(3 * MOST):
        with pytest.raises(ConnectionResetError):
            caller.call(BrokenBody(b"x"))
    assert caller.call(io.BytesIO(b"x")).status == "200 OK"


def test_refusals_leave_no_count_behind(caller: Caller) -> None:
    """Once the slow bodies have come, the gate is as it was."""
    fill(caller)
    for _ in range(3 * MOST):
        assert refused(caller.call(io.BytesIO(b"x"), "10.1.0.0"))
    caller.let_go()
    wait_until(lambda: not refused(caller.call(io.BytesIO(b"x"), "10.1.0.0")), "the gate is open again")
    caller.begin("10.1.0.1", READERS_PER_ADDRESS)
    assert caller.call(io.BytesIO(b"x"), "10.1.0.0").status == "200 OK"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        pytest.param("6.6.6.6, 203.0.113.7, 10.0.0.8", "203.0.113.7", id="the last two are the proxies' own"),
        pytest.param("203.0.113.7, 10.0.0.8", "203.0.113.7", id="just two"),
        pytest.param("6.6.6.6", "10.0.0.1", id="fewer than there are proxies"),
        pytest.param("", "10.0.0.1", id="none"),
    ],
)
def test_the_address_is_what_the_trusted_proxies_saw(proxied: Caller, forwarded: str, address: str) -> None:
    """With two proxies it is the last but one of X-Forwarded-For, whatever the caller wrote before that."""
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert proxied.call(None, "10.0.0.1", **headers).headers["X-Address"] == address


def test_without_trusted_proxies_nobody_names_his_own_address(caller: Caller) -> None:
    """X-Forwarded-For is then any caller's word: a new one each time does not get past the gate."""
    for number in range(READERS_PER_ADDRESS):
        caller.begin("10.0.0.1", HTTP_X_FORWARDED_FOR=f"203.0.113.{number}")
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"))), "the address has all that it may have")
    assert caller.call(HTTP_X_FORWARDED_FOR="203.0.113.9").headers["X-Address"] == "10.0.0.1"
    assert refused(caller.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.9"))


def test_the_gate_counts_the_address_that_the_proxies_saw(proxied: Caller) -> None:
    """One caller's slow bodies do not use up the places of another behind the same proxy."""
    proxied.begin("10.0.0.1", READERS_PER_ADDRESS, HTTP_X_FORWARDED_FOR="203.0.113.7, 10.0.0.8")
    wait_until(
        lambda: refused(proxied.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.7, 10.0.0.8")),
        "the address has all that it may have",
    )
    assert not refused(proxied.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.9, 10.0.0.8"))
