"""Bad bytes on the wire: each request gets one refusal, and Redis gets no command."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.faults.support.raw_http import ask
from tests.faults.support.rig import redis_commands
from tests.faults.support.slow_wechat import SlowWeChat, code
from tests.support.proxies import Application, Proxy
from tests.support.servers import RedisServer, wait_until
from tests.support.service import Service, environment

GET = b"GET /session HTTP/1.1\r\nHost: a\r\n"
LOGIN = b"POST /login HTTP/1.1\r\nHost: a\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(redis_server: RedisServer) -> Iterator[Service]:
    with SlowWeChat() as wechat, Service(environment(redis_server.url, wechat.url, WEB_CONCURRENCY="2")) as running:
        wait_until(lambda: running.output().count("Started worker") == 2, "two workers")
        yield running


@pytest.fixture(scope="module")
def nginx(service: Service) -> Iterator[Proxy]:
    with Application() as application, Proxy("nginx", service.port, application.port) as running:
        yield running


@pytest.fixture
def token(service: Service) -> str:
    """A live token. No test here ends it."""
    answer = requests.post(f"{service.url}/login", json={"code": code(0, user())}, timeout=5)
    token: str = answer.json()["token"]
    return token


def user() -> str:
    return f"USER-{secrets.token_hex(8)}"


def is_alive(service: Service, token: str) -> bool:
    return requests.get(f"{service.url}/session", headers={"Authorization": token}, timeout=5).ok


def in_arabic(token: bytes) -> bytes:
    """Return the token with Arabic digits."""
    return re.sub(rb"\d", lambda digit: chr(0x660 + int(digit.group())).encode(), token)


#: The header lines that replace `Authorization` with the live token `t`.
TOKENS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda t: b"Authorization: ",
    "Bearer and nothing": lambda t: b"Authorization: Bearer ",
    "a byte short": lambda t: b"Authorization: " + t[:-1],
    "a byte long": lambda t: b"Authorization: " + t + b"A",
    "8 KiB": lambda t: b"Authorization: " + t + b"A" * 8192,
    "1 MiB": lambda t: b"Authorization: " + t + b"A" * 1048576,
    "NUL in it": lambda t: b"Authorization: " + t[:20] + b"\0" + t[20:],
    "NUL behind it": lambda t: b"Authorization: " + t + b"\0",
    "CR LF in it": lambda t: b"Authorization: " + t[:20] + b"\r\n" + t[20:],
    "CR in it": lambda t: b"Authorization: " + t[:20] + b"\r" + t[20:],
    "LF in it": lambda t: b"Authorization: " + t[:20] + b"\n" + t[20:],
    "folded": lambda t: b"Authorization: " + t[:20] + b"\r\n " + t[20:],
    "a vertical tab behind it": lambda t: b"Authorization: " + t + b"\x0b",
    "a next line behind it": lambda t: b"Authorization: " + t + b"\xc2\x85",
    "an escaped newline behind it": lambda t: b"Authorization: " + t + b"%0A",
    "other scripts' digits": lambda t: b"Authorization: " + in_arabic(t),
    "not UTF-8": lambda t: b"Authorization: " + t[:-1] + b"\xff",
    "two headers": lambda t: b"Authorization: " + t + b"\r\nAuthorization: " + t,
    "two headers, one empty": lambda t: b"Authorization: " + t + b"\r\nAuthorization: ",
    "joined by a comma": lambda t: b"Authorization: " + t + b"," + t,
    "Basic": lambda t: b"Authorization: Basic " + base64.b64encode(b"user:" + t),
    "Basic, and bare": lambda t: b"Authorization: Basic " + t,
    "Bearer twice": lambda t: b"Authorization: Bearer Bearer " + t,
    "in quotes": lambda t: b'Authorization: Bearer "' + t + b'"',
    "wrong signature": lambda t: b"Authorization: " + t.partition(b".")[0] + b"." + b"A" * 43,
    "in another header": lambda t: b"Proxy-Authorization: Bearer " + t,
    "in a header of nearly that name": lambda t: b"Authorization_: Bearer " + t,
    "in a cookie": lambda t: b"Cookie: Authorization=" + t + b"; token=" + t,
}


@pytest.mark.parametrize("name", TOKENS)
def test_malformed_token_is_refused_without_a_redis_command(
    service: Service, redis_server: RedisServer, token: str, name: str
) -> None:
    """The status is 401, or the 400 or 431 of the server."""
    with redis_server.client() as client:
        before = redis_commands(client)
        answers = ask(service.port, GET + TOKENS[name](token.encode()) + b"\r\nConnection: close\r\n\r\n")
        assert redis_commands(client) == before
    assert answers.status in (400, 401, 431)
    if answers.status == 401:
        head, body = answers.raw.split(b"\r\n\r\n", 1)
        assert json.loads(body)["code"] in ("token_invalid", "token_missing")
        assert {b"www-authenticate", b"cache-control"} <= {line.partition(b":")[0] for line in head.split(b"\r\n")}
    assert is_alive(service, token)


def with_length(body: bytes, *headers: bytes) -> bytes:
    return LOGIN + b"".join(headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


PART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
MULTIPART = b"Content-Type: multipart/form-data; boundary=x\r\n"
ONE_TOO_MANY = b'{"code": "' + b"a" * (16 * 1024 - 11) + b'"}'

BODIES: dict[str, tuple[bytes, int, str]] = {
    "0 bytes": (with_length(b"", JSON), 400, "bad_request"),
    "0 bytes, chunked": (LOGIN + JSON + CHUNKED + b"0\r\n\r\n", 400, "bad_request"),
    "no length at all": (LOGIN + JSON + b"\r\n", 400, "bad_request"),
    "a byte too large": (with_length(ONE_TOO_MANY, JSON), 413, "too_large"),
    "1 MiB": (with_length(b" " * 1048576, JSON), 413, "too_large"),
    "1 EiB, announced": (LOGIN + JSON + b"Content-Length: %d\r\n\r\n{" % 2**60, 413, "too_large"),
    "a byte too large, chunked": (LOGIN + JSON + CHUNKED + chunks(ONE_TOO_MANY) + b"0\r\n\r\n", 413, "too_large"),
    "chunked without end": (LOGIN + JSON + CHUNKED + chunks(*[b" " * 1024] * 2048), 413, "too_large"),
    "one-byte chunks without end": (LOGIN + JSON + CHUNKED + chunks(*[b" "] * 100_000), 413, "too_large"),
    "a chunk of 1 EiB": (LOGIN + JSON + CHUNKED + b"%x\r\n" % 2**60 + b" " * 65536, 413, "too_large"),
    "gzip": (with_length(b"\x1f\x8b", JSON, b"Content-Encoding: gzip\r\n"), 415, "unsupported_media_type"),
    "multipart": (with_length(PART + b"--x--\r\n", MULTIPART), 415, "unsupported_media_type"),
    "multipart of 100,000 parts": (
        with_length(PART * 100_000 + b"--x--\r\n", MULTIPART),
        415,
        "unsupported_media_type",
    ),
    "nesting 8,000 deep": (with_length(b"[" * 8000 + b"]" * 8000, JSON), 400, "bad_request"),
}


@pytest.mark.parametrize("name", BODIES)
def test_malformed_body_is_refused_without_a_redis_command(
    service: Service, redis_server: RedisServer, name: str
) -> None:
    """The problem comes at once, also if the caller would send more."""
    data, status, problem = BODIES[name]
    with redis_server.client() as client:
        before = redis_commands(client)
        answers = ask(service.port, data)
        assert redis_commands(client) == before
    assert (answers.status, problem.encode() in answers.raw) == (status, True)


def smuggling(token: str) -> dict[str, bytes]:
    """Return requests that some servers read as two. The second would log `token` out."""
    hidden = f"DELETE /session HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n".encode()
    post = b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n" % (len(hidden) + 5)
    return {
        "CL.TE": post + length + CHUNKED + b"0\r\n\r\n" + hidden,
        "TE.CL": post + b"Content-Length: 4\r\n" + CHUNKED + chunks(hidden) + b"0\r\n\r\n",
        "two lengths": post + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden,
        "a list of lengths": post + b"Content-Length: 0, %d\r\n\r\n" % len(hidden) + hidden,
        "a length with a sign": post + b"Content-Length: +0\r\n\r\n" + hidden,
        "a length too long": post + b"Content-Length: " + b"0" * 5000 + b"9" * 30 + b"\r\n\r\n" + hidden,
        "two encodings": post + length + b"Transfer-Encoding: identity\r\n" + CHUNKED + b"0\r\n\r\n" + hidden,
        "an unknown encoding": post + length + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
        "an encoding before the colon": post + length + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
        "an encoding behind a tab": post + length + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
        "an encoding that is folded": post + length + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hidden,
        "an underscore": post + length + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
        "chunks in HTTP/1.0": post.replace(b"1.1", b"1.0") + length + CHUNKED + b"0\r\n\r\n" + hidden,
        "a chunk size with 0x": post + CHUNKED + b"0x0\r\n\r\n" + hidden,
        "a chunk size out of range": post + CHUNKED + b"10000000000000000\r\n\r\n" + hidden,
        "a chunk ended by LF": post + CHUNKED + b"0\n\n" + hidden,
        "a header that is folded": post + b"X-A: b\r\n " + hidden,
        "a body to GET": b"GET /session HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n" + b" " * 5 + hidden,
        "a body that the service does not read": post
        + b"Content-Length: %d\r\n\r\n" % (len(hidden) * 300)
        + hidden * 300,
        "absolute form": b"GET http://other.example/session?a HTTP/1.1\r\nHost: a\r\n\r\n",
        "absolute form of another scheme": b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        "authority form": b"CONNECT other.example:80 HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n" + b" " * 5 + hidden,
        "two hosts": b"GET /session HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    }


#: nginx accepts LF as a line end: it reads two requests and passes two on.
TWO_TO_NGINX = {"a chunk ended by LF"}


@pytest.mark.parametrize("name", smuggling(""))
def test_request_gets_one_answer_and_smuggles_nothing(service: Service, token: str, name: str) -> None:
    """The hidden request would log the token out."""
    assert_one_answer(service.port, smuggling(token)[name], token)


@pytest.mark.parametrize("name", [name for name in smuggling("") if name not in TWO_TO_NGINX])
def test_request_through_nginx_gets_one_answer_and_smuggles_nothing(nginx: Proxy, token: str, name: str) -> None:
    """On the connections that nginx keeps, the next caller gets its own answer."""
    assert_one_answer(nginx.port, smuggling(token)[name], token)


def assert_one_answer(port: int, data: bytes, token: str) -> None:
    answers = ask(port, data)
    assert len(answers.statuses) == 1
    assert answers.status in (400, 401, 404, 405, 411, 413, 415, 501)
    for _ in range(5):
        other = ask(port, GET + f"Authorization: {token}\r\nConnection: close\r\n\r\n".encode())
        assert other.status == 200


def test_pipelined_requests_are_answered_in_order(service: Service, nginx: Proxy, token: str) -> None:
    good = GET + f"Authorization: {token}\r\n\r\n".encode()
    bad = GET + b"Authorization: unknown\r\n\r\n"
    read = with_length(b"{}", JSON)
    for port in (service.port, nginx.port):
        assert ask(port, good + bad + read + good).statuses == [200, 401, 400, 200]


@pytest.fixture(scope="module")
def behind_proxies(redis_server: RedisServer) -> Iterator[Service]:
    """The service with two trusted proxies. Each address may log in twice."""
    more = {"WEB_CONCURRENCY": "1", "WXAUTH_TRUSTED_PROXIES": "2", "WXAUTH_LOGIN_RATE": "2/hour"}
    with SlowWeChat() as wechat, Service(environment(redis_server.url, wechat.url, **more)) as running:
        yield running


#: What the service gets: the caller's part, with a number that it changes, then the caller's address and a proxy's.
FORWARDED: dict[str, str] = {
    "an address": "X-Forwarded-For: 6.6.6.{number}, {address}, 10.0.0.8",
    "an unclosed quote": 'X-Forwarded-For: 6.6.6.{number}, "x, {address}, 10.0.0.8',
    "an escaped quote": 'X-Forwarded-For: 6.6.6.{number}, "\\", {address}, 10.0.0.8',
    "a port": "X-Forwarded-For: {address}:1{number}, 10.0.0.8",
    "two lines": "X-Forwarded-For: 6.6.6.{number}\r\nX-Forwarded-For: {address}, 10.0.0.8",
    "a line for each proxy": "X-Forwarded-For: 6.6.6.{number}, {address}\r\nX-Forwarded-For: 10.0.0.8",
    "a scope id": "X-Forwarded-For: {address}, ::ffff:6.6.6.{number}%1, 10.0.0.8",
}


@pytest.mark.parametrize("name", FORWARDED)
def test_x_forwarded_for_does_not_let_a_caller_choose_its_address(behind_proxies: Service, name: str) -> None:
    """Granian joins the lines of a header in their order."""
    address = f"203.0.113.{[*FORWARDED].index(name)}"
    found = []
    for number in range(3):
        forwarded = FORWARDED[name].format(number=number, address=address).encode() + b"\r\n"
        body = json.dumps({"code": code(0, secrets.token_hex(8))}).encode()
        found.append(ask(behind_proxies.port, with_length(body, JSON, forwarded)).status)
    assert found == [200, 200, 429]
