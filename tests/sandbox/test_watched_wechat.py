"""The recording of exchanges with the fake WeChat: nothing is changed, and no note contains a secret."""

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


def test_a_recorded_exchange_returns_the_same_identity(client: WeChatClient, fake: FakeWeChat) -> None:
    direct = WeChatClient(APPS, Transport(URL, fake), timeout=1, max_concurrent=1)
    identities = [asked.exchange(APPID, fake.wx_login("alice")) for asked in (client, direct)]
    assert identities[0] == identities[1]


def test_an_exchange_is_a_note_with_request_answer_and_duration(
    client: WeChatClient, fake: FakeWeChat, trace: Trace
) -> None:
    code = fake.wx_login("alice")
    client.exchange(APPID, code)
    (note,) = notes(trace)
    assert note["request"]["line"].startswith(f"GET /sns/jscode2session?appid={APPID}&")
    assert f"js_code={code}" in note["request"]["line"]
    assert note["request"]["headers"]["Host"] == "api.weixin.qq.com"
    assert note["answer"]["line"] == "200 OK"
    assert note["ms"] >= 0


def test_the_size_in_a_note_is_that_of_the_unmasked_request(
    client: WeChatClient, fake: FakeWeChat, trace: Trace
) -> None:
    """Line, headers, empty line and body."""
    client.exchange(APPID, fake.wx_login("alice"))
    request, shown = notes(trace)[0]["request"], notes(trace)[0]["request"]["line"].replace("•" * 8, APP_SECRET)
    headers = "".join(f"{name}: {text}\r\n" for name, text in request["headers"].items())
    assert request["bytes"] == len(f"{shown} HTTP/1.1\r\n{headers}\r\n")


def test_a_note_contains_no_appsecret_and_no_session_key(
    client: WeChatClient, fake: FakeWeChat, trace: Trace
) -> None:
    identity = client.exchange(APPID, fake.wx_login("alice"))
    text = json.dumps(notes(trace))
    assert identity.user.openid in text
    assert APP_SECRET not in text
    assert identity.session_key.reveal() not in text


def test_an_errcode_is_in_the_note(client: WeChatClient, trace: Trace) -> None:
    with pytest.raises(CodeInvalid):
        client.exchange(APPID, "never-given")
    assert json.loads(notes(trace)[0]["answer"]["body"])["errcode"] == 40029


def test_a_timeout_is_a_note_with_an_error_and_the_waiting_time(
    client: WeChatClient, fake: FakeWeChat, trace: Trace
) -> None:
    code = fake.wx_login("alice", "stall")
    started_at = time.monotonic()
    with pytest.raises(WeChatUnreachable):
        client.exchange(APPID, code)
    waited = (time.monotonic() - started_at) * 1000
    (note,) = notes(trace)
    assert note["error"] == "no answer in time"
    assert "answer" not in note
    assert 0 < note["ms"] <= waited + 1


def test_an_answer_that_is_not_json_is_in_the_note_unchanged(
    client: WeChatClient, fake: FakeWeChat, trace: Trace
) -> None:
    with pytest.raises(WeChatUnreachable):
        client.exchange(APPID, fake.wx_login("alice", "garbage"))
    assert notes(trace)[0]["answer"]["body"] == "<html>502 Bad Gateway</html>"
