"""WXAUTH_WECHAT_PROXY: the transport through a real HTTP proxy, to a plain and to a TLS WeChat."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.support.leaks import hits
from tests.support.connect_proxy import PASSWORD, USER, ConnectProxy
from tests.support.rogue import FOUND, OK, Line, Rogue, Script, answering, dripping, nobody, saying, self_signed
from wxauth.errors import WeChatUnreachable
from wxauth.models import Secret
from wxauth.wechat.transport import MAX_ANSWER, Request, Transport

APP_SECRET = "app-secret-that-nobody-may-see"
QUERY: dict[str, str | Secret] = {"secret": Secret(APP_SECRET)}
BUDGET = 0.5
GRACE = 1.0
AMPLE = 4.0


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The TLS context of WeChat, whose authority is in SSL_CERT_FILE; None for plain HTTP."""
    if request.param == "http":
        return None
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return context


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as proxy:
        yield proxy


def through(url: str, proxy_url: str) -> Transport:
    return Transport(url, proxy=Secret(proxy_url))


def ask(transport: Transport, budget: float = AMPLE) -> bytes:
    return transport.ask(Request("/sns/jscode2session", QUERY), time.monotonic() + budget)


def reason_of(transport: Transport, budget: float = AMPLE) -> str:
    with pytest.raises(WeChatUnreachable) as caught:
        ask(transport, budget)
    return caught.value.reason


def test_ask_through_a_proxy_returns_the_body(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"{}"), tls) as wechat:
        assert ask(through(wechat.url, proxy.url())) == b"{}"
        assert f"GET /sns/jscode2session?secret={APP_SECRET} HTTP/1.1".encode() in wechat.requests[0]
        assert len(proxy.heads) == 1


def test_post_through_a_proxy_sends_the_body(proxy: ConnectProxy, tls: Any) -> None:
    def script(line: Line) -> None:
        assert line.read(2) == b'{"'
        line.send(OK + b"Content-Length: 2\r\n\r\n{}")

    with Rogue(script, tls) as wechat:
        request = Request("/cgi-bin/stable_token", {}, {"secret": Secret(APP_SECRET)})
        assert through(wechat.url, proxy.url()).ask(request, time.monotonic() + AMPLE) == b"{}"


def test_a_second_request_uses_the_same_connection(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"{}"), tls) as wechat:
        transport = through(wechat.url, proxy.url())
        assert [ask(transport), ask(transport)] == [b"{}", b"{}"]
        assert (wechat.connections, len(wechat.requests), len(proxy.heads)) == (1, 2, 1)


def test_a_tunnel_shows_the_proxy_no_request(
    proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AppSecret is inside of the TLS connection to WeChat."""
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Rogue(answering(b"{}"), context) as wechat:
        ask(through(wechat.url, proxy.url()))
        assert proxy.heads[0].startswith(f"CONNECT {wechat.host} HTTP/1.".encode())
        assert APP_SECRET.encode() not in proxy.heads[0]


def test_only_the_proxy_gets_its_credentials(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"{}"), tls) as wechat:
        ask(through(wechat.url, proxy.url()))
        assert b"Proxy-Authorization: Basic " in proxy.heads[0]
        assert b"uthorization" not in wechat.requests[0]
        assert hits({"password": PASSWORD}, "WeChat", wechat.requests[0]) == []


def test_an_untrusted_certificate_of_wechat_is_refused_through_a_proxy(proxy: ConnectProxy, tmp_path: Path) -> None:
    context, _ = self_signed(tmp_path)
    with Rogue(answering(b"{}"), context) as wechat:
        assert reason_of(through(wechat.url, proxy.url())) == "tls"
        assert wechat.requests == []


def test_a_proxy_without_a_password_gets_the_whole_url() -> None:
    with Rogue(answering(b"{}")) as proxy:
        assert ask(through("http://wechat.test", proxy.url)) == b"{}"
        head = proxy.requests[0]
        assert head.startswith(b"GET http://wechat.test/sns/jscode2session?secret=")
        assert b"\r\nHost: wechat.test\r\n" in head
        assert b"uthorization" not in head


def test_a_proxy_that_refuses_the_password_is_named_with_407(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"{}"), tls) as wechat:
        assert reason_of(through(wechat.url, proxy.url("wrong"))) == "proxy_407"
        assert wechat.connections == 0


def test_a_proxy_that_cannot_reach_wechat_is_named_with_502(proxy: ConnectProxy, tls: Any) -> None:
    with nobody() as url:
        address = url.replace("http:", "https:") if tls else url
        assert reason_of(through(address, proxy.url())) == "proxy_502"


def test_a_proxy_that_does_not_listen_is_named(tls: Any) -> None:
    with Rogue(answering(b"{}"), tls) as wechat, nobody() as url:
        assert reason_of(through(wechat.url, url)) == "proxy"
        assert wechat.connections == 0


@pytest.mark.parametrize("script", [Line.hold, dripping(b"HTTP/1.1 200 OK"), saying(OK, dripping(b"A: b\r\n"))])
def test_a_proxy_that_stalls_in_connect_holds_no_thread_past_the_deadline(script: Script, tls: Any) -> None:
    scheme = "https" if tls else "http"
    with Rogue(script) as proxy:
        before = time.monotonic()
        assert reason_of(through(f"{scheme}://127.0.0.1:1", proxy.url), BUDGET) == "timeout"
        assert time.monotonic() - before < BUDGET + GRACE
        assert proxy.connections == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_opens_the_tunnel_late_leaves_no_more_time(scheme: str) -> None:
    """The handshake in the tunnel gets what is left of the deadline."""

    def script(line: Line) -> None:
        line.hold(1.8)
        line.send(b"HTTP/1.1 200 OK\r\n\r\n")
        line.hold()

    with Rogue(script) as proxy:
        before = time.monotonic()
        assert reason_of(through(f"{scheme}://127.0.0.1:1", proxy.url), 2.0) == "timeout"
        assert time.monotonic() - before < 2.0 + GRACE


def test_a_proxy_that_hangs_up_is_named() -> None:
    with Rogue(saying(b"")) as proxy:
        assert reason_of(through("http://wechat.test", proxy.url)) == "proxy"


def test_a_wechat_that_stalls_behind_a_proxy_holds_no_thread_past_the_deadline(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(saying(OK + b"\r\n", dripping(b"{}")), tls) as wechat:
        before = time.monotonic()
        assert reason_of(through(wechat.url, proxy.url()), BUDGET) == "timeout"
        assert time.monotonic() - before < BUDGET + GRACE


def test_an_answer_through_a_proxy_has_the_same_limit(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"x" * (MAX_ANSWER + 1)), tls) as wechat:
        assert reason_of(through(wechat.url, proxy.url())) == "too_large"


def test_a_proxy_that_floods_the_answer_to_connect_is_cut_off(tls: Any) -> None:
    scheme = "https" if tls else "http"
    with Rogue(saying(OK, lambda line: line.flood(b"A: b\r\n" * 1024))) as proxy:
        assert reason_of(through(f"{scheme}://127.0.0.1:1", proxy.url)) in ("connection", "too_large")


def test_a_redirect_through_a_proxy_is_not_followed(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"{}")) as other:
        redirect = saying(FOUND + other.url.encode() + b"/\r\nContent-Length: 0\r\n\r\n")
        with Rogue(redirect, tls) as wechat:
            assert reason_of(through(wechat.url, proxy.url())) == ("http_302" if tls else "proxy_302")
        assert other.connections == 0


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Collect the log lines of all libraries at DEBUG, with tracebacks."""
    root, log = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(log), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield log
    root.setLevel(level)
    root.removeHandler(handler)


def secrets_in(text: str) -> list[str]:
    return hits(
        {"app secret": APP_SECRET, "password": PASSWORD, "login": f"{USER}:{PASSWORD}"}, "here", text.encode()
    )


@pytest.mark.parametrize("fault", ["407", "502", "silent"])
def test_an_error_through_a_proxy_and_the_log_hold_no_secret(fault: str, proxy: ConnectProxy, tls: Any) -> None:
    """The log is at DEBUG, with tracebacks. The error has no context."""
    script = Line.hold if fault == "silent" else answering(b"{}")
    with Rogue(script, tls) as wechat, nobody() as url, everything_logged() as log:
        address = url.replace("http:", f"{wechat.url.partition(':')[0]}:") if fault == "502" else wechat.url
        transport = through(address, proxy.url(PASSWORD + ("!" if fault == "407" else "")))
        with pytest.raises(WeChatUnreachable) as caught:
            ask(transport, BUDGET if fault == "silent" else AMPLE)
    assert caught.value.__context__ is caught.value.__cause__ is None
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(transport))
    assert secrets_in(told + log.getvalue()) == []


def test_no_library_logs_a_request_through_a_proxy(proxy: ConnectProxy, tls: Any) -> None:
    with Rogue(answering(b"{}"), tls) as wechat, everything_logged() as log:
        ask(through(wechat.url, proxy.url()))
    assert log.getvalue() == ""


def test_credentials_may_have_any_character(proxy: ConnectProxy) -> None:
    """The URL holds them percent-encoded."""
    assert set("/+ ?=") < set(PASSWORD)
    with Rogue(answering(b"{}")) as wechat:
        assert ask(through(wechat.url, proxy.url())) == b"{}"


def test_a_fork_makes_new_connections_through_the_proxy(proxy: ConnectProxy) -> None:
    with Rogue(answering(b"{}")) as wechat:
        transport = through(wechat.url, proxy.url())
        ask(transport)
        transport.reset()
        ask(transport)
        assert len(proxy.heads) == 2


def test_the_proxy_is_connected_to_over_ipv6() -> None:
    with contextlib.closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as listener:
        transport = through("http://127.0.0.1:1", f"http://[::1]:{listener.getsockname()[1]}")
        assert reason_of(transport, BUDGET) == "timeout"
        listener.settimeout(5)
        listener.accept()[0].close()
