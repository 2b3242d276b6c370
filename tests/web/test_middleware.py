"""The WSGI middleware: bodies are read before the application is called, and only a bounded number at a time."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from tests.support.clients import settings_with_clients
from tests.support.servers import wait_until
from wxauth.logs import current_environ
from wxauth.models import Secret
from wxauth.sessions.cache import SessionCache
from wxauth.settings import Client
from wxauth.web.app import create_app
from wxauth.web.middleware import wrap
from wxauth.web.middleware.addresses import FORWARDED_HINT
from wxauth.web.middleware.body_buffer import MAX_PER_ADDRESS, MAX_WAIT, REFUSED
from wxauth.web.requests import MAX_BODY
from wxauth.web.services import redis_client, session_store

THREADS = 64
MAX_READERS = THREADS // 8
MAX_WAITING = THREADS // 2
MAX_REQUESTS = THREADS * 7 // 8
QUICK = MAX_WAIT + 0.3


@dataclass
class Answer:
    status: str
    headers: dict[str, str]
    body: bytes


class SlowBody(io.BytesIO):
    """A body that blocks its reader until it arrives."""

    def __init__(self) -> None:
        super().__init__(b"slow")
        self.arrived = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        assert self.arrived.wait(10)
        return super().read(size)


class BrokenBody(io.BytesIO):
    """A body with a connection that breaks in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise ConnectionResetError


class CountedBody(io.BytesIO):
    """An endless body that counts the bytes that were asked for."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        self.asked += size
        return b"x" * size


class UnreadBody(io.BytesIO):
    """A body that must not be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise AssertionError("the body was read")

    def readinto(self, buffer: object, /) -> int:
        raise AssertionError("the body was read")


class Echo:
    """A WSGI application that answers the body and the address it saw."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if REFUSED in environ:
            start_response("503 Service Unavailable", [])
            return [b""]
        self.calls += 1
        start_response("200 OK", [("X-Address", environ["REMOTE_ADDR"])])
        return [environ["wsgi.input"].read()]


class Stuck(Echo):
    """An application that waits for WeChat while it has a body."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = super().__call__(environ, start_response)
        assert answer == [b""] or self.go_on.wait(10)
        return answer


def request(body: io.BytesIO | None, address: str, headers: dict[str, str]) -> WSGIEnvironment:
    method = "GET" if body is None else "POST"
    known = {"REQUEST_METHOD": method, "PATH_INFO": "/", "REMOTE_ADDR": address, "HTTP_HOST": "localhost"}
    known["wsgi.url_scheme"] = "http"
    return {**known, "wsgi.input": body or io.BytesIO(), **headers}


class Caller:
    """Calls a WSGI application from many threads, as a server does. `let_go` lets every slow body arrive."""

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
        """Start `count` requests from `address` with bodies that do not arrive."""
        bodies = [SlowBody() for _ in range(count)]
        self.slow += bodies
        return [self._pool.submit(self.call, body, address, **headers) for body in bodies]

    def let_go(self) -> None:
        for body in self.slow:
            body.arrived.set()


@pytest.fixture
def echo() -> Echo:
    return Echo()


def wrapped(echo: Echo, threads: int = THREADS, **more: Any) -> WSGIApplication:
    """Return `echo` behind the middleware. The cache is not used: no request goes to /verify."""
    settings = dataclasses.replace(settings_with_clients(), threads=threads, **more)
    return wrap(echo, settings, unused_cache(), redis_client(settings))


def unused_cache() -> SessionCache:
    settings = settings_with_clients()
    return SessionCache(session_store(settings, redis_client(settings)), None, 0)


def calling(app: Any) -> Iterator[Caller]:
    with ThreadPoolExecutor(64) as pool:
        caller = Caller(app, pool)
        yield caller
        caller.let_go()


@pytest.fixture
def caller(echo: Echo) -> Iterator[Caller]:
    yield from calling(wrapped(echo))


@pytest.fixture
def of_few_threads(echo: Echo) -> Iterator[Caller]:
    yield from calling(wrapped(echo, threads=16))


@pytest.fixture
def proxied(echo: Echo) -> Iterator[Caller]:
    yield from calling(wrapped(echo, trusted_proxies=2))


def refused(answer: Answer) -> bool:
    return answer.status.startswith("503")


def fill(caller: Caller) -> None:
    """Fill all slots with slow bodies, from as many addresses as that needs."""
    for number in range(MAX_READERS // MAX_PER_ADDRESS):
        caller.begin(f"10.1.0.{number}", MAX_PER_ADDRESS)
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"), "10.2.0.1")), "the buffer is full")


def test_application_reads_the_body_that_the_caller_sent(caller: Caller) -> None:
    assert caller.call(io.BytesIO(b"\x00\xff body")).body == b"\x00\xff body"


def test_bodies_of_a_client_are_not_counted_on_its_routes(echo: Echo) -> None:
    """A backend sends many at the same time from one address. Elsewhere a right secret looks like a wrong one."""
    (ours, guessed) = (base64.b64encode(text.encode()).decode() for text in ("shop:secret", "shop:guess"))
    right, wrong = {"HTTP_AUTHORIZATION": f"Basic {ours}"}, {"HTTP_AUTHORIZATION": f"Basic {guessed}"}
    for caller in calling(wrapped(echo, clients={"shop": Client(Secret("secret"), None)})):
        slow = caller.begin("10.0.0.1", MAX_READERS + 1, PATH_INFO="/introspect", **right)
        fill(caller)
        for path in ("/introspect", "/revoke", "/users/a/b/ban"):
            assert caller.call(io.BytesIO(b"x"), PATH_INFO=path, **right).body == b"x"
            assert refused(caller.call(io.BytesIO(b"x"), PATH_INFO=path, **wrong))
        for credential in (right, wrong):
            assert refused(caller.call(io.BytesIO(b"x"), PATH_INFO="/login", **credential))
        caller.let_go()
        assert {answer.result().body for answer in slow} == {b"slow"}


def test_application_is_not_called_before_the_body_is_complete(caller: Caller, echo: Echo) -> None:
    (slow,) = caller.begin("10.0.0.1")
    time.sleep(0.05)
    assert echo.calls == 0
    caller.let_go()
    assert slow.result().body == b"slow"


def test_body_is_read_up_to_its_content_length(caller: Caller) -> None:
    """The following bytes belong to the next request of the connection."""
    assert caller.call(io.BytesIO(b"mine, not mine"), CONTENT_LENGTH="4").body == b"mine"


@pytest.mark.parametrize("length", ["", "0", "-1", "1e3", "٣", "+5"])
def test_content_length_that_is_no_number_needs_no_slot(caller: Caller, length: str) -> None:
    fill(caller)
    assert caller.call(io.BytesIO(), CONTENT_LENGTH=length).status == "200 OK"


def test_chunked_body_is_read_up_to_one_byte_over_the_limit(caller: Caller) -> None:
    """The extra byte shows the application that the body is too large."""
    body = CountedBody()
    answer = caller.call(body, HTTP_TRANSFER_ENCODING="chunked")
    assert body.asked == len(answer.body) == MAX_BODY + 1


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), str(MAX_BODY + 2), "9" * 5000], ids=["+1", "+2", "long"])
def test_body_with_a_content_length_over_the_limit_is_not_read(caller: Caller, length: str) -> None:
    """Neither by the buffer, so it needs no slot, nor by the application, which has no timeout."""
    fill(caller)
    answer = caller.call(UnreadBody(b"x"), CONTENT_LENGTH=length)
    assert (answer.status, answer.body) == ("200 OK", b"")


@pytest.mark.parametrize("length", [MAX_BODY - 1, MAX_BODY])
def test_body_with_a_content_length_up_to_the_limit_needs_a_slot(caller: Caller, length: int) -> None:
    fill(caller)
    assert refused(caller.call(UnreadBody(b"x"), CONTENT_LENGTH=str(length)))


@pytest.mark.parametrize(
    ("size", "chunked", "status"),
    [
        (MAX_BODY - 1, False, 400),
        (MAX_BODY, False, 400),
        (MAX_BODY, True, 400),
        (MAX_BODY + 1, False, 413),
        (MAX_BODY + 2, False, 413),
        (MAX_BODY + 1, True, 413),
        (2 * MAX_BODY, True, 413),
    ],
)
def test_flask_answers_413_by_the_length_alone(size: int, chunked: bool, status: int) -> None:
    """Up to the limit the body is parsed; this one is not JSON."""
    body = io.BytesIO(b"x" * size) if chunked or size <= MAX_BODY else UnreadBody(b"x")
    length = {"HTTP_TRANSFER_ENCODING": "chunked"} if chunked else {"CONTENT_LENGTH": str(size)}
    for caller in calling(create_app(settings_with_clients()).wsgi_app):
        path = {"PATH_INFO": "/login", "CONTENT_TYPE": "application/json", "wsgi.url_scheme": "http"}
        assert caller.call(body, **length, **path, HTTP_HOST="localhost").status.startswith(str(status))


def test_content_length_with_leading_zeros_needs_a_slot(caller: Caller) -> None:
    fill(caller)
    assert refused(caller.call(io.BytesIO(b"x"), CONTENT_LENGTH="0000000001"))


def test_address_beyond_its_quota_gets_server_busy(caller: Caller) -> None:
    """Another address is served."""
    slow = caller.begin("10.0.0.1", MAX_PER_ADDRESS)
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"))), "the address has used its quota")
    assert caller.call(io.BytesIO(b"x"), "10.0.0.2").status == "200 OK"
    caller.let_go()
    assert {answer.result().status for answer in slow} == {"200 OK"}


def test_slow_bodies_are_counted_however_many_others_come(caller: Caller) -> None:
    """If the address were forgotten, it could hold more and more threads."""
    caller.begin("10.0.0.1", MAX_PER_ADDRESS)
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"))), "the address has used its quota")
    others = [caller.call(io.BytesIO(b"x"), f"10.{number // 256}.{number % 256}.2") for number in range(10_000)]
    assert {answer.status for answer in others} == {"200 OK"}
    assert refused(caller.call(io.BytesIO(b"x")))


def test_at_most_an_eighth_of_the_threads_read_bodies(caller: Caller) -> None:
    """Beyond that, a new address is refused too."""
    fill(caller)
    assert refused(caller.call(io.BytesIO(b"x"), "10.9.0.1"))


def test_requests_with_a_body_leave_an_eighth_of_the_threads_to_checks() -> None:
    """Here the application is slow, as with a silent WeChat."""
    stuck = Stuck()
    for caller in calling(wrapped(stuck)):
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            held = [pool.submit(caller.call, io.BytesIO(b"x"), f"10.0.{number}.1") for number in range(MAX_REQUESTS)]
            wait_until(lambda: stuck.calls == MAX_REQUESTS, "all of them wait")
            assert refused(caller.call(io.BytesIO(b"x"), "10.9.0.1"))
            assert caller.call().status == "200 OK"
            stuck.go_on.set()
        assert {answer.result().status for answer in held} == {"200 OK"}
        assert caller.call(io.BytesIO(b"x"), "10.9.0.1").status == "200 OK"


def test_with_few_threads_one_address_cannot_use_all_slots(of_few_threads: Caller) -> None:
    of_few_threads.begin("10.0.0.1", MAX_PER_ADDRESS)
    wait_until(lambda: refused(of_few_threads.call(io.BytesIO(b"x"))), "the address has used its quota")
    assert of_few_threads.call(io.BytesIO(b"x"), "10.0.0.2").status == "200 OK"


def test_flood_from_one_address_leaves_slots_to_others(caller: Caller) -> None:
    """Requests over the quota of an address wait, and are refused later. Half of the threads may wait."""
    flood = caller.begin("10.0.0.1", MAX_PER_ADDRESS + MAX_WAITING + 1)
    wait_until(lambda: sum(answer.done() for answer in flood) == 1, "one is refused at once")
    assert caller.call(io.BytesIO(b"x"), "10.0.0.2").status == "200 OK"
    time.sleep(QUICK)
    caller.let_go()
    assert sum(refused(answer.result()) for answer in flood) == MAX_WAITING + 1


def test_request_without_a_body_never_waits(caller: Caller) -> None:
    fill(caller)
    start = time.monotonic()
    assert {caller.call().status for _ in range(100)} == {"200 OK"}
    assert time.monotonic() - start < QUICK


@pytest.fixture
def of_the_service() -> Iterator[Caller]:
    origins = frozenset({"https://shop.example.com"})
    settings = dataclasses.replace(settings_with_clients(), threads=THREADS, cors_origins=origins)
    yield from calling(create_app(settings).wsgi_app)


def test_server_busy_is_a_problem_with_retry_after(of_the_service: Caller) -> None:
    fill(of_the_service)
    start = time.monotonic()
    answer = of_the_service.call(io.BytesIO(b"x"))
    assert time.monotonic() - start < QUICK
    problem = json.loads(answer.body)
    assert (problem["code"], problem["action"], problem["status"]) == ("server_busy", "retry", 503)
    assert problem["request_id"]
    assert {"Retry-After", "X-Content-Type-Options"} <= set(answer.headers)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/token", "/device_authorization"])
def test_server_busy_has_the_form_of_rfc_6749_on_its_routes(of_the_service: Caller, path: str) -> None:
    fill(of_the_service)
    answer = of_the_service.call(io.BytesIO(b"x"), PATH_INFO=path)
    assert answer.status.startswith("503 ")
    assert json.loads(answer.body)["error"] == "temporarily_unavailable"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["/login", "/token"])
def test_server_busy_can_be_read_by_a_page_of_another_origin(of_the_service: Caller, path: str) -> None:
    """Otherwise the page could not see when to try again."""
    fill(of_the_service)
    answer = of_the_service.call(io.BytesIO(b"x"), PATH_INFO=path, HTTP_ORIGIN="https://shop.example.com")
    assert refused(answer)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example.com"
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_request_that_was_refused_is_in_the_access_log(
    of_the_service: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    fill(of_the_service)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert refused(of_the_service.call(io.BytesIO(b"x"), PATH_INFO="/login"))
    lines = [line for line in caplog.records if line.getMessage() == "request"]
    assert [(line.status, line.problem) for line in lines] == [(503, "server_busy")]  # type: ignore[attr-defined]


class Closing(Iterator[bytes]):
    """An answer of WSGI without a chunk, as that of Flask to HEAD."""

    closed = False

    def __next__(self) -> bytes:
        raise StopIteration

    def close(self) -> None:
        self.closed = True


def test_answer_without_a_chunk_gets_an_empty_one_and_is_closed() -> None:
    """Hypercorn sends the headers with the first chunk."""
    answer = Closing()
    settings = settings_with_clients()
    app = wrap(lambda environ, start_response: answer, settings, unused_cache(), redis_client(settings))
    assert app(request(None, "10.0.0.1", {}), lambda *_: lambda _: None) == [b""]
    assert answer.closed


def test_request_id_ends_with_the_refused_request(caller: Caller) -> None:
    fill(caller)
    assert refused(caller.call(io.BytesIO(b"x")))
    assert current_environ.get(None) is None


def test_burst_of_quick_bodies_from_one_address_is_served(caller: Caller) -> None:
    """Many users of a mobile network share one address."""
    with ThreadPoolExecutor(MAX_WAITING) as pool:
        answers = list(pool.map(lambda _: caller.call(io.BytesIO(b"x")), range(500)))
    assert {answer.status for answer in answers} == {"200 OK"}


def test_broken_connection_frees_its_slot(caller: Caller) -> None:
    for _ in range(3 * MAX_READERS):
        with pytest.raises(ConnectionResetError):
            caller.call(BrokenBody(b"x"))
    assert caller.call(io.BytesIO(b"x")).status == "200 OK"


def test_refusals_free_their_slots(caller: Caller) -> None:
    """After the slow bodies have arrived, the same number of slots is free as before."""
    fill(caller)
    with ThreadPoolExecutor(MAX_READERS) as pool:
        answers = list(pool.map(lambda _: caller.call(io.BytesIO(b"x"), "10.1.0.0"), range(3 * MAX_READERS)))
    assert all(map(refused, answers))
    caller.let_go()
    wait_until(lambda: not refused(caller.call(io.BytesIO(b"x"), "10.1.0.0")), "the buffer has slots again")
    caller.begin("10.1.0.1", MAX_PER_ADDRESS)
    assert caller.call(io.BytesIO(b"x"), "10.1.0.0").status == "200 OK"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        pytest.param("6.6.6.6, 203.0.113.7, 10.0.0.8", "203.0.113.7", id="the proxies wrote the last two"),
        pytest.param("203.0.113.7, 10.0.0.8", "203.0.113.7", id="just two"),
        pytest.param("6.6.6.6", "10.0.0.1", id="fewer than there are proxies"),
        pytest.param("", "10.0.0.1", id="none"),
        pytest.param('"6.6.6.6, 203.0.113.7, 10.0.0.8', "203.0.113.7", id="an unclosed quote of the caller's"),
        pytest.param('6.6.6.6\\", 203.0.113.7, 10.0.0.8', "203.0.113.7", id="an escaped quote of the caller's"),
        pytest.param('"6.6.6.6, 203.0.113.7", 10.0.0.8', "10.0.0.1", id="a quote that the proxy copied"),
        pytest.param("fe80::6%1, 10.0.0.8", "10.0.0.1", id="a scope id"),
        pytest.param(", 203.0.113.7,10.0.0.8", "203.0.113.7", id="an empty entry of the caller's"),
        pytest.param("6.6.6.6, , 10.0.0.8", "10.0.0.1", id="an empty entry of the proxy's"),
        pytest.param("6.6.6.6, unknown, 10.0.0.8", "10.0.0.1", id="no address"),
        pytest.param("6.6.6.6,\t[2001:db8::7]:567 , 10.0.0.8", "[2001:db8::7]:567", id="IPv6 with a port"),
    ],
)
def test_address_is_the_one_that_the_trusted_proxies_saw(proxied: Caller, forwarded: str, address: str) -> None:
    """With two proxies it is the second last of X-Forwarded-For. The caller can write those before it.

    An entry that is no plain address is ignored, and the address of the connection counts.
    """
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert proxied.call(None, "10.0.0.1", **headers).headers["X-Address"] == address


def test_x_forwarded_for_is_ignored_without_trusted_proxies(caller: Caller) -> None:
    """A new address in each request does not avoid the quota."""
    for number in range(MAX_PER_ADDRESS):
        caller.begin("10.0.0.1", HTTP_X_FORWARDED_FOR=f"203.0.113.{number}")
    wait_until(lambda: refused(caller.call(io.BytesIO(b"x"))), "the address has used its quota")
    assert caller.call(HTTP_X_FORWARDED_FOR="203.0.113.9").headers["X-Address"] == "10.0.0.1"
    assert refused(caller.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.9"))


def test_quota_counts_the_address_that_the_trusted_proxies_saw(proxied: Caller) -> None:
    """Slow bodies of one caller do not use the quota of another behind the same proxy."""
    proxied.begin("10.0.0.1", MAX_PER_ADDRESS, HTTP_X_FORWARDED_FOR="203.0.113.7, 10.0.0.8")
    wait_until(
        lambda: refused(proxied.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.7, 10.0.0.8")),
        "the address has used its quota",
    )
    assert not refused(proxied.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.9, 10.0.0.8"))


@pytest.mark.parametrize("proxies", [0, 1])
def test_the_first_x_forwarded_for_is_a_warning_if_no_proxy_is_trusted(
    proxies: int, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    """Each worker has one line, with what to set. Redis is away, and the request is answered."""
    for caller in calling(wrapped(echo, trusted_proxies=proxies)):
        for _ in range(3):
            caller.call(io.BytesIO(b"x"))
            assert [record for record in caplog.records if record.message == "proxy_not_trusted"] == []
        for _ in range(3):
            assert caller.call(io.BytesIO(b"x"), HTTP_X_FORWARDED_FOR="203.0.113.7").body == b"x"
    lines = [vars(record) for record in caplog.records if record.message == "proxy_not_trusted"]
    assert [line["hint"] for line in lines] == [FORWARDED_HINT] * (1 - proxies)
    assert "203.0.113.7" not in caplog.text
