"""`/wechat/push`: off until it is configured. Answers `success` when the message is processed."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APP_SECRET, APPID, SESSION_KEY
from tests.support import vectors
from tests.support.clients import CLIENT_SECRET, SECOND
from tests.test_metrics import Gauge
from wxauth import logged_out
from wxauth.clock import Clock
from wxauth.models import Identity, Secret, User
from wxauth.sandbox.crypto import serialize, sign_push
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Client, Settings
from wxauth.web.app import create_app
from wxauth.web.routes.push import CANCELLED, COUNTED
from wxauth.wechat.push import HINTS

TOKEN, AES_KEY = "pushToken0123456789", "K" * 42 + "A"
MODES = pytest.mark.parametrize("aes_key", ["", AES_KEY], ids=["plain", "safe"])
FORMS = pytest.mark.parametrize("form", ["json", "xml"])


def configured(settings: Settings, **more: Any) -> Settings:
    clients = {"shop": Client(Secret(CLIENT_SECRET), None)}
    return dataclasses.replace(settings, push_token=Secret(TOKEN), clients=clients, **more)


def service(settings: Settings, store: SessionStore, aes_key: str = "", **more: Any) -> FlaskClient:
    chosen = configured(settings, push_aes_key=Secret(aes_key) if aes_key else None, **more)
    return create_app(chosen, store=store).test_client()


def deliver(client: FlaskClient, request: tuple[dict[str, str], bytes]) -> TestResponse:
    query, body = request
    return client.post("/wechat/push", query_string=query, data=body, content_type="text/plain")


def answered(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.text if response.mimetype == "text/plain" else response.get_json()["code"]


@pytest.fixture
def fake(settings: Settings, clock: Clock) -> FakeWeChat:
    return FakeWeChat(settings.apps, clock)


@pytest.fixture
def alices(fake: FakeWeChat, store: SessionStore) -> Identity:
    """The user alice of the fake. She is logged in twice."""
    identity = identity_of(fake, "alice")
    store.create(identity)
    store.create(identity)
    return identity


def identity_of(fake: FakeWeChat, user: str, appid: str = APPID) -> Identity:
    _, body = fake.push(appid, user, "none", TOKEN)
    openid = body.partition(b'"OpenID":"')[2].partition(b'"')[0].decode()
    return Identity(User(appid, openid), Secret(SESSION_KEY))


# --- Off and on


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_push_returns_404_without_a_token(client: FlaskClient, method: str) -> None:
    """Even if the request is signed correctly."""
    query = {"timestamp": "1714036504", "nonce": "1", "signature": sign_push("", "1714036504", "1")}
    response = client.open("/wechat/push", method=method, query_string=query, data=b"{}")
    assert answered(response) == (404, "not_found")


def test_official_check_of_the_address_is_echoed(settings: Settings, store: SessionStore, clock: Clock) -> None:
    """As plain text, so that no browser runs it as a page."""
    clock.advance(1714036504 - clock())
    app = create_app(dataclasses.replace(settings, push_token=vectors.PUSH_TOKEN), store=store)
    response = app.test_client().get("/wechat/push", query_string=vectors.ECHO_QUERY)
    assert answered(response) == (200, "4375120948345356249")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_official_message_returns_success(settings: Settings, store: SessionStore, clock: Clock) -> None:
    """The example of WeChat's documentation, in safe mode."""
    clock.advance(1714112445 - clock())
    chosen = dataclasses.replace(
        settings,
        apps={vectors.PUSH_APPID: Secret(APP_SECRET)},
        push_token=vectors.PUSH_TOKEN,
        push_aes_key=vectors.PUSH_AES_KEY,
    )
    body = serialize({"ToUserName": "gh_97417a04a28d", "Encrypt": vectors.SAFE_ENCRYPT}, "json")
    client = create_app(chosen, store=store).test_client()
    assert answered(deliver(client, (vectors.SAFE_QUERY, body))) == (200, "success")


# --- A closed account


@MODES
@FORMS
def test_cancellation_deletes_sessions_and_session_keys_of_the_user(
    settings: Settings,
    store: SessionStore,
    fake: FakeWeChat,
    alices: Identity,
    raw_redis: Any,
    aes_key: str,
    form: str,
) -> None:
    client = service(settings, store, aes_key)
    assert len(raw_redis.keys()) == 1
    response = deliver(client, fake.push(APPID, "alice", CANCELLED, TOKEN, aes_key, form))
    assert answered(response) == (200, "success")
    assert [raw_redis.hkeys(key) for key in raw_redis.scan_iter()] == [[b"r"]]
    assert store.session_keys(alices.user) is None


def test_cancellation_deletes_nothing_of_other_users(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity
) -> None:
    """Not even of the same openid in another app."""
    bob = identity_of(fake, "bob")
    elsewhere = Identity(User(SECOND, alices.user.openid), Secret(SESSION_KEY))
    for other in (bob, elsewhere):
        store.create(other)
    client = service(settings, store, apps={APPID: Secret(APP_SECRET), SECOND: Secret(APP_SECRET)})
    deliver(client, fake.push(APPID, "alice", CANCELLED, TOKEN))
    assert [len(store.sessions_of(it.user)) for it in (alices, bob, elsewhere)] == [0, 1, 1]


def test_cancellation_deletes_a_session_key_without_sessions(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity, raw_redis: Any
) -> None:
    (hash,) = raw_redis.keys()
    raw_redis.hdel(hash, *(id for id in raw_redis.hkeys(hash) if id != b"k"))
    assert raw_redis.hkeys(hash) == [b"k"]
    deliver(service(settings, store), fake.push(APPID, "alice", CANCELLED, TOKEN))
    assert raw_redis.keys() == []


def test_repeated_message_returns_success(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity
) -> None:
    """WeChat sends a message three times if the answer is late."""
    client, request = service(settings, store), fake.push(APPID, "alice", CANCELLED, TOKEN)
    assert [answered(deliver(client, request)) for _ in range(3)] == [(200, "success")] * 3


def test_cancellation_sends_the_signal_logged_out(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity
) -> None:
    heard: list[User] = []
    with logged_out.connected_to(lambda sender, user: heard.append(user)):
        deliver(service(settings, store), fake.push(APPID, "alice", CANCELLED, TOKEN))
    assert heard == [alices.user]


def test_message_without_appid_is_for_the_only_app(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity
) -> None:
    """With several apps it is refused, because an openid belongs to one app."""
    query, body = fake.push(APPID, "alice", CANCELLED, TOKEN)
    unnamed = query, body.replace(b'"AppID"', b'"NoID"')
    two = service(settings, store, apps={APPID: Secret(APP_SECRET), SECOND: Secret(APP_SECRET)})
    assert answered(deliver(two, unnamed)) == (400, "bad_request")
    assert len(store.sessions_of(alices.user)) == 2
    assert answered(deliver(service(settings, store), unnamed)) == (200, "success")
    assert store.sessions_of(alices.user) == []


@pytest.mark.parametrize("openid", [b"", b"o ALICE", b"o" * 129, b"../../x"])
def test_malformed_openid_returns_bad_request(
    settings: Settings, store: SessionStore, fake: FakeWeChat, openid: bytes
) -> None:
    query, body = fake.push(APPID, "alice", CANCELLED, TOKEN)
    head, _, tail = body.partition(b'"OpenID":"')
    odd = head + b'"OpenID":"' + openid + b'"' + tail.partition(b'"')[2]
    assert answered(deliver(service(settings, store), (query, odd))) == (400, "bad_request")


def test_cancellation_returns_503_while_redis_is_down(settings: Settings, fake: FakeWeChat) -> None:
    """WeChat sends the message again."""
    client = create_app(configured(settings)).test_client()
    response = deliver(client, fake.push(APPID, "alice", CANCELLED, TOKEN))
    assert answered(response) == (503, "store_unavailable")


# --- Other messages


@pytest.mark.parametrize("event", ["user_authorization_revoke", "user_info_modified", "debug_demo", ""])
def test_other_event_returns_success_and_changes_nothing(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity, event: str
) -> None:
    response = deliver(service(settings, store), fake.push(APPID, "alice", event, TOKEN))
    assert answered(response) == (200, "success")
    assert len(store.sessions_of(alices.user)) == 2


@MODES
def test_message_with_a_wrong_signature_app_or_age_ends_nothing(
    settings: Settings, store: SessionStore, fake: FakeWeChat, alices: Identity, aes_key: str
) -> None:
    client = service(settings, store, aes_key)
    for appid, token in ((APPID, "another"), (SECOND, TOKEN)):
        response = deliver(client, fake.push(appid, "alice", CANCELLED, token, aes_key))
        assert answered(response) == (400, "bad_request")
    old = FakeWeChat({}, lambda: 1_600_000_000).push(APPID, "alice", CANCELLED, TOKEN, aes_key)
    assert answered(deliver(client, old)) == (400, "bad_request")
    assert len(store.sessions_of(alices.user)) == 2


def test_reason_of_a_refusal_is_in_the_log_only(
    settings: Settings, store: SessionStore, fake: FakeWeChat, caplog: pytest.LogCaptureFixture
) -> None:
    """The answers differ in the request_id only."""
    client = service(settings, store)
    wrong = [fake.push(APPID, "a", "x", "another"), fake.push(APPID, "a", "x", TOKEN, AES_KEY)]
    answers = [deliver(client, request).get_json() | {"request_id": ""} for request in wrong]
    lines = [line for line in caplog.records if line.getMessage() == "push_refused"]
    assert [(line.__dict__["reason"], line.levelno) for line in lines] == [
        (reason, logging.WARNING) for reason in ("signature", "aes_key")
    ]
    assert [line.__dict__["hint"] for line in lines] == [HINTS[line.__dict__["reason"]] for line in lines]
    assert answers == [answers[0]] * 2


@pytest.mark.parametrize("text", ["x]]></Content>", "x]]></Content>&", "x]]></Content><b", "nonsense"])
def test_text_that_breaks_a_signed_message_is_acknowledged_without_effect(
    settings: Settings,
    store: SessionStore,
    fake: FakeWeChat,
    alices: Identity,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    """WeChat gives up on an address that refuses what it has signed."""
    query, _ = fake.push(APPID, "alice", "x", TOKEN)
    body = f"<xml><MsgType>text</MsgType><Content><![CDATA[{text}]]></Content></xml>" if "x]" in text else text
    response = deliver(service(settings, store), (query, body.encode()))
    assert answered(response) == (200, "success")
    assert [line.__dict__["reason"] for line in caplog.records if line.getMessage() == "push_refused"] == ["content"]
    assert len(store.sessions_of(alices.user)) == 2


def test_body_over_16_kib_returns_too_large(settings: Settings, store: SessionStore, fake: FakeWeChat) -> None:
    query, _ = fake.push(APPID, "alice", "x", TOKEN)
    assert answered(deliver(service(settings, store), (query, b"x" * 16385))) == (413, "too_large")


def test_events_are_counted_under_fixed_labels(settings: Settings, store: SessionStore, fake: FakeWeChat) -> None:
    """A request must not create a label."""
    client = service(settings, store)
    gauge = Gauge(client)
    for event in (*sorted(COUNTED), "debug_demo", 'x"} 1', ""):
        deliver(client, fake.push(APPID, "alice", event, TOKEN))
    deliver(client, fake.push(APPID, "alice", CANCELLED, "another"))
    counts = {**dict.fromkeys(COUNTED, 1), "other": 3, "refused": 1}
    assert gauge.moved("pushes_total") == {("pushes_total", event): count for event, count in counts.items()}


def test_failed_message_is_not_counted(settings: Settings, fake: FakeWeChat) -> None:
    """WeChat will send it again."""
    client = create_app(configured(settings)).test_client()
    gauge = Gauge(client)
    deliver(client, fake.push(APPID, "alice", CANCELLED, TOKEN))
    assert gauge.moved("pushes_total") == {}
