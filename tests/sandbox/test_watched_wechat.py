"""Watching the fake WeChat: every exchange is noted, none is changed, and no secret gets into a note."""

from __future__ import annotations

import json
import time

import pytest

from tests.conftest import APP_SECRET, APPID
from wxauth.errors import CodeInvalid, WeChatUnreachable
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sandbox.trace import Note, Trace
from wxauth.sandbox.watched_wechat import WatchedWeChat
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Transport

APPS = {APPID: Secret(APP_SECRET)}
URL = "https://api.weixin.qq.com"


@pytest.fixture
def trace() -> Trace:
    return Trace(lambda: "request")


@pytest.fixture
def fake() -> FakeWeChat:
    return FakeWeChat(APPS)


@pytest.fixture
def client(fake: FakeWeChat, trace: Trace) -> WeChatClient:
    return WeChatClient(APPS, Transport(URL, WatchedWeChat(fake, trace)), timeout=0.3, max_concurrent=1)


def notes(trace: Trace) -> list[Note]:
    return trace.of("request") or []


def test_the_exchange_is_as_without_a_watcher(client: WeChatClient, fake: FakeWeChat) -> None:
    """The service gets the identity that WeChat gave."""
    unwatched = WeChatClient(APPS, Transport(URL, fake), timeout=1, max_concurrent=1)
    identities = [asked.exchange(APPID, fake.wx_login("alice")) for asked in (client, unwatched)]
    assert identities[0] == identities[1]


def test_the_exchange_is_noted(client: WeChatClient, fake: FakeWeChat, trace: Trace) -> None:
    """What was asked and what came back, as HTTP, and how long it took."""
    code = fake.wx_login("alice")
    client.exchange(APPID, code)
    (note,) = notes(trace)
    assert note["request"]["line"].startswith(f"GET /sns/jscode2session?appid={APPID}&")
    assert f"js_code={code}" in note["request"]["line"]
    assert note["request"]["headers"]["Host"] == "api.weixin.qq.com"
    assert note["answer"]["line"] == "200 OK"
    assert note["ms"] >= 0


def test_bytes_are_counted_before_anything_is_hidden(client: WeChatClient, fake: FakeWeChat, trace: Trace) -> None:
    """They are those that went over the wire: line, headers, empty line, body."""
    client.exchange(APPID, fake.wx_login("alice"))
    request, shown = notes(trace)[0]["request"], notes(trace)[0]["request"]["line"].replace("•" * 8, APP_SECRET)
    headers = "".join(f"{name}: {text}\r\n" for name, text in request["headers"].items())
    assert request["bytes"] == len(f"{shown} HTTP/1.1\r\n{headers}\r\n")


def test_no_secret_is_noted(client: WeChatClient, fake: FakeWeChat, trace: Trace) -> None:
    """Neither the AppSecret nor the session_key gets beyond the server."""
    identity = client.exchange(APPID, fake.wx_login("alice"))
    text = json.dumps(notes(trace))
    assert identity.user.openid in text
    assert APP_SECRET not in text
    assert identity.session_key.reveal() not in text


def test_an_errcode_is_noted(client: WeChatClient, trace: Trace) -> None:
    """A refusal is an answer."""
    with pytest.raises(CodeInvalid):
        client.exchange(APPID, "never-given")
    assert json.loads(notes(trace)[0]["answer"]["body"])["errcode"] == 40029


def test_silence_is_noted(client: WeChatClient, fake: FakeWeChat, trace: Trace) -> None:
    """So is an answer that does not come in time, with the time that was waited."""
    code = fake.wx_login("alice", "stall")
    started_at = time.monotonic()
    with pytest.raises(WeChatUnreachable):
        client.exchange(APPID, code)
    waited = (time.monotonic() - started_at) * 1000
    (note,) = notes(trace)
    assert note["error"] == "no answer in time"
    assert "answer" not in note
    assert 0 < note["ms"] <= waited + 1


def test_what_is_no_json_is_noted_as_it_is(client: WeChatClient, fake: FakeWeChat, trace: Trace) -> None:
    """Whatever a gateway sends."""
    with pytest.raises(WeChatUnreachable):
        client.exchange(APPID, fake.wx_login("alice", "garbage"))
    assert notes(trace)[0]["answer"]["body"] == "<html>502 Bad Gateway</html>"
