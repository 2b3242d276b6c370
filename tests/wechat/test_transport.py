"""The transport against real sockets that misbehave: it keeps the deadline, the memory limit and the secrets."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import multiprocessing
import ssl
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest
import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from tests.support.rogue import (
    CHUNKED,
    FAULTS,
    FOUND,
    OK,
    Line,
    Rogue,
    Script,
    answer_once,
    answering,
    dripping,
    saying,
    self_signed,
)
from wxauth.errors import WeChatUnreachable
from wxauth.models import Secret
from wxauth.wechat import connections
from wxauth.wechat.connections import DeadlineAdapter, tls_context
from wxauth.wechat.transport import MAX_ANSWER, Request, Transport

APP_SECRET = "app-secret-that-nobody-may-see"
CODE = "code-that-nobody-may-see"
PATH = "/sns/jscode2session"
QUERY: dict[str, str | Secret] = {"secret": Secret(APP_SECRET), "js_code": CODE}
BUDGET = 0.5
#: The service's default deadline, for faults that must not end in a time-out on a busy machine.
AMPLE = 4.0
GRACE = 1.0
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """The result of one call. Each rule below checks the same results."""

    expected: str
    budget: float
    host: str
    error: Exception | None
    seconds: float
    peak: int
    log: str


def get(transport: Transport, budget: float = BUDGET) -> bytes:
    return transport.ask(Request(PATH, QUERY), time.monotonic() + budget)


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Collect the log lines of all libraries at DEBUG, with tracebacks."""
    root, written = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(written), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


def peak_of_get(url: str, budget: float) -> int:
    """Return the most bytes that Python held during a call."""
    transport = Transport(url)
    tracemalloc.start()
    with contextlib.suppress(WeChatUnreachable):
        get(transport, budget)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.fixture(scope="module")
def other_process() -> Iterator[ProcessPoolExecutor]:
    """A process without the threads that other tests have left in this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module", params=list(FAULTS.values()), ids=list(FAULTS))
def outcome(request: pytest.FixtureRequest, other_process: ProcessPoolExecutor) -> Outcome:
    place, expected = request.param
    budget = BUDGET if "timeout" in expected.split() else AMPLE
    error: Exception | None = None
    with place() as url, everything_logged() as log:
        transport = Transport(url)
        before = time.monotonic()
        try:
            get(transport, budget)
        except Exception as raised:
            error = raised
        seconds = time.monotonic() - before
        peak = other_process.submit(peak_of_get, url, budget).result()
    return Outcome(expected, budget, url.partition("//")[2], error, seconds, peak, log.getvalue())


def text_of(error: BaseException | None) -> str:
    """Return all text that `error` and the errors it came from could print."""
    if error is None:
        return ""
    lines = traceback.format_exception(error, chain=False)
    return "\n".join(
        [str(error), repr(error), repr(error.args), *lines, text_of(error.__context__), text_of(error.__cause__)]
    )


def test_get_raises_wechat_unreachable_with_the_reason(outcome: Outcome) -> None:
    """For every fault of the server there is one exception, with one word as its reason."""
    assert isinstance(outcome.error, WeChatUnreachable)
    assert outcome.error.reason in outcome.expected.split()


def test_get_keeps_the_deadline(outcome: Outcome) -> None:
    """The deadline holds for the whole call."""
    assert outcome.seconds < outcome.budget + GRACE


def test_get_uses_less_than_1_mib(outcome: Outcome) -> None:
    """The server can send any amount."""
    assert outcome.peak < MEBIBYTE


def test_error_holds_no_secret(outcome: Outcome) -> None:
    """Neither the error nor its context holds the AppSecret, the code or the URL."""
    text = text_of(outcome.error)
    assert [word for word in (APP_SECRET, CODE, PATH, outcome.host) if word in text] == []


def test_log_holds_no_secret(outcome: Outcome) -> None:
    """No log line of a library holds the AppSecret or the code, even at DEBUG."""
    assert [word for word in (APP_SECRET, CODE) if word in outcome.log] == []


@pytest.mark.parametrize(
    ("body", "head"),
    [
        pytest.param(b'{"openid": "o"}', b"Content-Type: text/plain\r\n", id="json-as-text"),
        pytest.param(b"<html></html>", b"Content-Type: text/html\r\n", id="html"),
        pytest.param(b"\xff\xfe", b"Content-Type: application/json; charset=utf-8\r\n", id="not-utf8"),
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"x" * MAX_ANSWER, b"", id="largest"),
        pytest.param(b"{}", b"Content-Encoding: identity\r\n", id="identity"),
    ],
)
def test_get_returns_the_body_unchanged(body: bytes, head: bytes) -> None:
    """The transport does not look at the Content-Type."""
    with Rogue(answering(body, head)) as rogue:
        assert get(Transport(rogue.url)) == body


def test_get_joins_chunks() -> None:
    with Rogue(saying(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")) as rogue:
        assert get(Transport(rogue.url)) == b"{}"


def test_get_does_not_follow_a_redirect() -> None:
    """The secret is not sent to the host that a redirect names."""
    with Rogue(answering(b"{}")) as second:
        to_second = saying(FOUND + second.url.encode() + b"/\r\nContent-Length: 0\r\n\r\n")
        with Rogue(to_second) as first, pytest.raises(WeChatUnreachable):
            get(Transport(first.url))
    assert second.connections == 0


def test_second_get_uses_the_same_connection() -> None:
    with Rogue(answering(b"{}")) as rogue:
        transport = Transport(rogue.url)
        get(transport)
        get(transport)
        assert (rogue.connections, len(rogue.requests)) == (1, 2)


@pytest.mark.parametrize("script", [answer_once, saying(OK + b"\r\n", Line.flood)], ids=["hung-up", "too-large"])
def test_get_after_a_broken_answer_opens_a_new_connection(script: Script) -> None:
    """A connection that was closed, or not read to its end, is not used again."""
    with Rogue(script) as rogue:
        transport = Transport(rogue.url)
        for _ in range(2):
            with contextlib.suppress(WeChatUnreachable):
                get(transport)
            time.sleep(0.1)
        assert rogue.connections == 2


def test_get_sends_no_cookie_back() -> None:
    with Rogue(answering(b"{}", b"Set-Cookie: track=1; Path=/\r\n")) as rogue:
        transport = Transport(rogue.url)
        get(transport)
        get(transport)
        assert b"cookie" not in rogue.requests[1].lower()


def test_get_asks_for_no_encoding_and_names_wxauth() -> None:
    """The request asks for no encoding, and its User-Agent is wxauth."""
    with Rogue(answering(b"{}")) as rogue:
        get(Transport(rogue.url))
        assert b"Accept-Encoding: identity\r\n" in rogue.requests[0]
        assert b"User-Agent: wxauth\r\n" in rogue.requests[0]


def test_get_ignores_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.netrc` with the host adds no credentials."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Rogue(answering(b"{}")) as rogue:
        get(Transport(rogue.url))
        assert b"authorization" not in rogue.requests[0].lower()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_get_ignores_a_proxy_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is sent to the configured address only."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Rogue(answering(b"{}")) as proxy, Rogue(answering(b"{}")) as rogue:
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
        with contextlib.suppress(WeChatUnreachable):
            get(Transport(rogue.url.replace("http:", "https:") if name == "HTTPS_PROXY" else rogue.url))
        assert (proxy.connections, rogue.connections) == (0, 1)


@pytest.mark.parametrize("path", ["/relay/../", "/./relay", "/%7erelay"])
def test_get_keeps_the_deadline_for_every_form_of_base_url(path: str) -> None:
    """The operator may write a relay's address in any form."""
    with Rogue(saying(OK + b"\r\n", dripping(b"{}"))) as rogue:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable):
            get(Transport(rogue.url + path))
        assert time.monotonic() - before < BUDGET + GRACE


def late(line: Line) -> None:
    line.send(OK + b"\r\n")
    line.hold(1.4)
    line.send(b"{")
    line.hold()


def test_get_keeps_the_deadline_after_a_late_byte() -> None:
    """The last read gets what is left of the deadline, not a time-out of its own."""
    with Rogue(late) as rogue:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable):
            get(Transport(rogue.url), 1.5)
        assert time.monotonic() - before < 1.5 + GRACE


def test_get_refuses_an_untrusted_certificate(tmp_path: Path) -> None:
    """The server gets no request."""
    context, _ = self_signed(tmp_path)
    with Rogue(answering(b"{}"), context) as rogue:
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "tls"):
            get(Transport(rogue.url))
        assert (rogue.connections, rogue.requests) == (1, [])


def test_get_ignores_a_certificate_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of `requests` makes a certificate trusted."""
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Rogue(answering(b"{}"), context) as rogue, pytest.raises(WeChatUnreachable):
        get(Transport(rogue.url))


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server. SSL_CERT_FILE names its certificate."""
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return context


def test_get_over_tls_returns_the_body(trusted: ssl.SSLContext) -> None:
    """The connection is kept alive, too."""
    with Rogue(answering(b"{}"), trusted) as rogue:
        transport = Transport(rogue.url)
        assert [get(transport, AMPLE), get(transport, AMPLE), rogue.connections] == [b"{}", b"{}", 1]


def test_get_over_tls_keeps_the_deadline(trusted: ssl.SSLContext) -> None:
    with Rogue(saying(OK + b"\r\n", dripping(b"{}")), trusted) as rogue:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "timeout"):
            get(Transport(rogue.url))
        assert time.monotonic() - before < BUDGET + GRACE


def test_a_name_that_is_only_the_common_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9525: only the subjectAltName counts."""
    context, certificate = self_signed(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Rogue(answering(b"{}"), context) as rogue:
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "tls"):
            get(Transport(rogue.url.replace("127.0.0.1", "localhost")), AMPLE)
        assert rogue.requests == []


def test_what_follows_an_answer_in_its_tls_record_answers_nobody(trusted: ssl.SSLContext) -> None:
    """OpenSSL has it already, so that it cannot be seen at the socket. The first 8192 bytes are read at once."""
    head = OK + b"Content-Length: %d\r\n\r\n"
    body = b"x" * (8192 - len(head % 8000))

    def script(line: Line) -> None:
        line.send(head % len(body) + body + head % 4 + b"EVIL")
        line.hold()

    with Rogue(script, trusted) as rogue:
        transport = Transport(rogue.url)
        assert [get(transport, AMPLE), get(transport, AMPLE)] == [body, body]
        assert rogue.connections == 2


def test_a_response_that_is_closed_twice_gives_its_connection_back_once() -> None:
    """Otherwise two threads would share it, and get each other's answers."""
    with Rogue(answering(b"{}")) as rogue:
        adapter, request = DeadlineAdapter(8, None), requests.Request("GET", rogue.url + PATH).prepare()
        response = adapter.send(request, timeout=AMPLE)
        assert response.raw.read(8) == b"{}"
        response.close()
        response.close()
        with adapter.send(request, timeout=AMPLE), adapter.send(request, timeout=AMPLE):
            assert rogue.connections == 2


def test_the_first_requests_of_many_threads_make_one_tls_context(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context takes long to make, and a storm of logins may be the first requests of a worker."""
    with Rogue(answering(b"{}"), trusted) as rogue, ThreadPoolExecutor(8) as pool:
        make = Mock(side_effect=tls_context)
        monkeypatch.setattr(connections, "tls_context", make)
        transport = Transport(rogue.url, pool_size=8)
        assert list(pool.map(lambda _: get(transport, AMPLE), range(8))) == [b"{}"] * 8
        assert make.call_count == 1


def test_ssl_cert_file_adds_to_the_public_authorities(trusted: ssl.SSLContext) -> None:
    """A file for the private authority of Redis does not shut WeChat out."""
    public = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH).cert_store_stats()["x509_ca"]
    assert tls_context().cert_store_stats()["x509_ca"] == public + 1
    assert tls_context().verify_mode == ssl.CERT_REQUIRED
    assert tls_context().check_hostname


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_get_with_a_useless_ssl_cert_file_says_tls(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "tls"):
        get(Transport("https://127.0.0.1:1"))


def post(transport: Transport, budget: float = BUDGET) -> bytes:
    body: dict[str, str | bool | Secret] = {"secret": Secret(APP_SECRET), "force_refresh": False}
    return transport.ask(Request("/cgi-bin/stable_token", QUERY, body), time.monotonic() + budget)


class Read:
    """Read the posted JSON, then play `script`."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.bodies: list[bytes] = []

    def __call__(self, line: Line) -> None:
        length = int(line.head.lower().partition(b"content-length:")[2].split()[0])
        self.bodies.append(line.read(length))
        self._script(line)


def test_post_sends_json() -> None:
    """The body holds the secrets in the clear and has the JSON Content-Type."""
    read = Read(answer_once)
    with Rogue(read) as rogue:
        assert post(Transport(rogue.url)) == b"{}"
        assert rogue.requests[0].startswith(b"POST /cgi-bin/stable_token?")
        assert b"Content-Type: application/json\r\n" in rogue.requests[0]
        assert json.loads(read.bodies[0]) == {"secret": APP_SECRET, "force_refresh": False}


@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
def test_post_does_not_follow_a_redirect(status: bytes) -> None:
    """307 and 308 would send the body again, and the AppSecret is in it."""
    with Rogue(answering(b"{}")) as other:
        head = b"HTTP/1.1 %b\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, other.url.encode())
        with Rogue(Read(saying(head))) as rogue:
            with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == f"http_{status[:3].decode()}"):
                post(Transport(rogue.url))
            assert other.connections == 0


POST_FAULTS: dict[str, tuple[Script, str]] = {
    "silent": (Line.hold, "timeout"),
    "drips-body": (saying(OK + b"\r\n", dripping(b"{}")), "timeout"),
    "hangs-up": (saying(b""), "connection"),
    "500": (saying(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "http_500"),
    "too-large": (answering(b"x" * (MAX_ANSWER + 1)), "too_large"),
    "encoded": (answering(b"{}", b"Content-Encoding: gzip\r\n"), "encoded"),
}


@pytest.mark.parametrize(("script", "reason"), POST_FAULTS.values(), ids=POST_FAULTS)
def test_post_raises_wechat_unreachable_without_a_secret(script: Script, reason: str) -> None:
    """It keeps the deadline, sends once, and no error or log line holds the query or the body."""
    with Rogue(Read(script)) as rogue, everything_logged() as log:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == reason) as caught:
            post(Transport(rogue.url))
        assert time.monotonic() - before < BUDGET + GRACE
        assert rogue.connections == 1
    told = "".join(traceback.format_exception(caught.value)) + log.getvalue()
    assert [secret for secret in (APP_SECRET, CODE) if secret in told] == []
