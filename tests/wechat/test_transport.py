"""The door to `requests`, against real sockets that misbehave: one deadline, little memory, no word of a secret."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.rogue import (
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
from wxauth.wechat.transport import MAX_ANSWER, DeadlineAdapter, Transport

APP_SECRET = "app-secret-that-nobody-may-see"
CODE = "code-that-nobody-may-see"
PATH = "/sns/jscode2session"
QUERY: dict[str, str | Secret] = {"secret": Secret(APP_SECRET), "js_code": CODE}
BUDGET = 0.5
#: The service's own: for what must not end in a timeout, however busy the machine is.
AMPLE = 4.0
GRACE = 1.0
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """What became of one call: every rule below is held against the same one."""

    expected: str
    budget: float
    host: str
    error: Exception | None
    seconds: float
    peak: int
    log: str


def get(transport: Transport, budget: float = BUDGET) -> bytes:
    return transport.get(PATH, QUERY, time.monotonic() + budget)


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Every log line of every library, at the most talkative level, tracebacks and all."""
    root, written = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(written), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture(scope="module", params=list(FAULTS.values()), ids=list(FAULTS))
def outcome(request: pytest.FixtureRequest) -> Outcome:
    place, expected = request.param
    budget = BUDGET if "timeout" in expected.split() else AMPLE
    error: Exception | None = None
    with place() as url, everything_logged() as log:
        transport = Transport(url)
        tracemalloc.start()
        before = time.monotonic()
        try:
            get(transport, budget)
        except Exception as raised:
            error = raised
        seconds, (_, peak) = time.monotonic() - before, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return Outcome(expected, budget, url.partition("//")[2], error, seconds, peak, log.getvalue())


def told_by(error: BaseException | None) -> str:
    """Everything that `error` and what it came from would say to whoever prints it."""
    if error is None:
        return ""
    lines = traceback.format_exception(error, chain=False)
    return "\n".join(
        [str(error), repr(error), repr(error.args), *lines, told_by(error.__context__), told_by(error.__cause__)]
    )


def test_fault_is_one_error(outcome: Outcome) -> None:
    """Whatever the other side does, the caller gets WeChatUnreachable with one word for it."""
    assert isinstance(outcome.error, WeChatUnreachable)
    assert outcome.error.reason in outcome.expected.split()


def test_fault_costs_the_deadline_at_most(outcome: Outcome) -> None:
    """The deadline is for the whole call, however the time is spent."""
    assert outcome.seconds < outcome.budget + GRACE


def test_fault_costs_little_memory(outcome: Outcome) -> None:
    """However much the other side sends, less than 1 MiB of it is ever held."""
    assert outcome.peak < MEBIBYTE


def test_error_tells_no_secret(outcome: Outcome) -> None:
    """Neither the error nor anything it came from holds the AppSecret, the code or the address."""
    text = told_by(outcome.error)
    assert [word for word in (APP_SECRET, CODE, PATH, outcome.host) if word in text] == []


def test_log_tells_no_secret(outcome: Outcome) -> None:
    """No library's log line holds the AppSecret or the code, even at DEBUG."""
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
def test_body_comes_back_as_it_is(body: bytes, head: bytes) -> None:
    """What a 200 answer of at most 64 KiB means is for others to judge, whatever type it claims to be."""
    with Rogue(answering(body, head)) as rogue:
        assert get(Transport(rogue.url)) == body


def test_chunks_are_joined() -> None:
    """A body may come in chunks."""
    with Rogue(saying(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")) as rogue:
        assert get(Transport(rogue.url)) == b"{}"


def test_redirect_is_not_followed() -> None:
    """The secret never travels to a host that a redirect names."""
    with Rogue(answering(b"{}")) as second:
        to_second = saying(FOUND + second.url.encode() + b"/\r\nContent-Length: 0\r\n\r\n")
        with Rogue(to_second) as first, pytest.raises(WeChatUnreachable):
            get(Transport(first.url))
    assert second.connections == 0


def test_connection_is_kept_alive() -> None:
    """Two calls use one connection."""
    with Rogue(answering(b"{}")) as rogue:
        transport = Transport(rogue.url)
        get(transport)
        get(transport)
        assert (rogue.connections, len(rogue.on_revoked)) == (1, 2)


@pytest.mark.parametrize("script", [answer_once, saying(OK + b"\r\n", Line.flood)], ids=["hung-up", "too-large"])
def test_spent_connection_is_not_used_again(script: Script) -> None:
    """A connection that was closed, or not read to its end, is followed by a new one."""
    with Rogue(script) as rogue:
        transport = Transport(rogue.url)
        for _ in range(2):
            with contextlib.suppress(WeChatUnreachable):
                get(transport)
            time.sleep(0.1)
        assert rogue.connections == 2


def test_cookies_do_not_come_back() -> None:
    """A cookie that the other side sets is not sent on the next call."""
    with Rogue(answering(b"{}", b"Set-Cookie: track=1; Path=/\r\n")) as rogue:
        transport = Transport(rogue.url)
        get(transport)
        get(transport)
        assert b"cookie" not in rogue.on_revoked[1].lower()


def test_request_is_plain() -> None:
    """The request asks for no encoding and names nothing but this program."""
    with Rogue(answering(b"{}")) as rogue:
        get(Transport(rogue.url))
        assert b"Accept-Encoding: identity\r\n" in rogue.on_revoked[0]
        assert b"User-Agent: wxauth\r\n" in rogue.on_revoked[0]


def test_netrc_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.netrc` that knows the host adds no credentials."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Rogue(answering(b"{}")) as rogue:
        get(Transport(rogue.url))
        assert b"authorization" not in rogue.on_revoked[0].lower()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_proxy_in_the_environment_is_ignored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a configured address gets the secret, never a proxy that the environment names."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Rogue(answering(b"{}")) as proxy, Rogue(answering(b"{}")) as rogue:
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
        with contextlib.suppress(WeChatUnreachable):
            get(Transport(rogue.url.replace("http:", "https:") if name == "HTTPS_PROXY" else rogue.url))
        assert (proxy.connections, rogue.connections) == (0, 1)


@pytest.mark.parametrize("path", ["/relay/../", "/./relay", "/%7erelay"])
def test_every_form_of_the_base_address_keeps_the_deadline(path: str) -> None:
    """However the operator writes the address of a relay, the call ends in time."""
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


def test_silence_after_a_late_byte_keeps_the_deadline() -> None:
    """A byte buys no time: the last read has what is left of the whole, not a share of its own."""
    with Rogue(late) as rogue:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable):
            get(Transport(rogue.url), 1.5)
        assert time.monotonic() - before < 1.5 + GRACE


class Trusting(DeadlineAdapter):
    """Trusts one certificate, as a real client trusts those of the authorities."""

    def __init__(self, certificate: Path) -> None:
        super().__init__()
        self._certificate = str(certificate)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        return super().send(request, *args, **(kwargs | {"verify": self._certificate}))


def test_certificate_is_checked(tmp_path: Path) -> None:
    """A server whose certificate nobody has signed gets no request."""
    context, _ = self_signed(tmp_path)
    with Rogue(answering(b"{}"), context) as rogue:
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "tls"):
            get(Transport(rogue.url))
        assert (rogue.connections, rogue.on_revoked) == (1, [])


def test_certificate_in_the_environment_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of `requests` makes a certificate trusted."""
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Rogue(answering(b"{}"), context) as rogue, pytest.raises(WeChatUnreachable):
        get(Transport(rogue.url))


def test_tls_answers(tmp_path: Path) -> None:
    """Over TLS a trusted server is heard, on a connection that is kept alive."""
    context, certificate = self_signed(tmp_path)
    with Rogue(answering(b"{}"), context) as rogue:
        transport = Transport(rogue.url, Trusting(certificate))
        assert [get(transport), get(transport), rogue.connections] == [b"{}", b"{}", 1]


def test_tls_keeps_the_deadline(tmp_path: Path) -> None:
    """Over TLS the deadline is for the whole call too."""
    context, certificate = self_signed(tmp_path)
    with Rogue(saying(OK + b"\r\n", dripping(b"{}")), context) as rogue:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "timeout"):
            get(Transport(rogue.url, Trusting(certificate)))
        assert time.monotonic() - before < BUDGET + GRACE


def post(transport: Transport, budget: float = BUDGET) -> bytes:
    body: dict[str, str | bool | Secret] = {"secret": Secret(APP_SECRET), "force_refresh": False}
    return transport.post("/cgi-bin/stable_token", QUERY, body, time.monotonic() + budget)


class Read:
    """Plays `script` once the JSON that was posted has been read too."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.bodies: list[bytes] = []

    def __call__(self, line: Line) -> None:
        length = int(line.head.lower().partition(b"content-length:")[2].split()[0])
        self.bodies.append(line.read(length))
        self._script(line)


def test_a_post_carries_json() -> None:
    """The body is JSON, says so, and holds the secrets as they are."""
    read = Read(answer_once)
    with Rogue(read) as rogue:
        assert post(Transport(rogue.url)) == b"{}"
        assert rogue.on_revoked[0].startswith(b"POST /cgi-bin/stable_token?")
        assert b"Content-Type: application/json\r\n" in rogue.on_revoked[0]
        assert json.loads(read.bodies[0]) == {"secret": APP_SECRET, "force_refresh": False}


@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
def test_a_posts_redirect_is_not_followed(status: bytes) -> None:
    """Not even where the body would be sent along: the AppSecret is in it."""
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
def test_a_posts_fault_is_one_error_that_tells_no_secret(script: Script, reason: str) -> None:
    """As a GET's: within the deadline, sent once, and neither query nor body in the error or in any log."""
    with Rogue(Read(script)) as rogue, everything_logged() as log:
        before = time.monotonic()
        with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == reason) as caught:
            post(Transport(rogue.url))
        assert time.monotonic() - before < BUDGET + GRACE
        assert rogue.connections == 1
    told = "".join(traceback.format_exception(caught.value)) + log.getvalue()
    assert [secret for secret in (APP_SECRET, CODE) if secret in told] == []
