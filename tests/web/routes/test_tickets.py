"""`POST /ticket` and `POST /login` with a ticket; signatures under the session_key. On both kinds of Redis."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import ALICE, APPID, Phone
from tests.support.clients import LIMITED, basic, problem
from tests.support.scans import page_of, scan_settings
from wxauth import logged_in, logged_out, wx_session
from wxauth.clock import Clock
from wxauth.models import Identity, Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings

pytestmark = pytest.mark.usefixtures("start_of_a_window")

#: From WeChat's "virtual payment": key, message, signature.
VECTORS = [
    (
        "9hAb/NEYUlkaMBEsmFgzig==",
        '{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}',
        "089d9e8dc5d308977360c4b79ec600a93d736802802a807d634192328032f6c7",
    ),
    (
        "o0q0otL8aEzpcZL/FT9WsQ==",
        '{"foo":"bar"}',
        "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b",
    ),
    (
        "gDyVgzwa0mFz9uUP7M6GQQ==",
        "1559129713_67297598215591297148AP6DT9ybtniUJfbwx20afc706a711eefc",
        "b002b824688dd8593a6079e11d8c5e8734fbcb39a6d5906eb347bfbcad79c617",
    ),
]


@pytest.fixture
def settings() -> Settings:
    return scan_settings()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID, device="iPhone")


def redeem(phone: Phone, body: dict[str, Any], token: str = "") -> TestResponse:
    return phone.client.post("/login", json=body, headers={"Authorization": token} if token else {})


def get(phone: Phone, token: str) -> TestResponse:
    return phone.client.get("/session", headers={"Authorization": f"Bearer {token}"})


# --- Tickets


def test_ticket_is_returned_with_its_life(phone: Phone) -> None:
    response = phone.post("/ticket")
    body = response.get_json()
    assert (response.status_code, body.keys(), body["expires_in"]) == (200, {"ticket", "expires_in"}, 60)
    assert response.headers["Cache-Control"] == "no-store"
    assert body["ticket"].isascii()
    assert body["ticket"].replace("_", "").replace("-", "").replace(".", "").isalnum()


def test_ticket_without_a_login_is_401(client: FlaskClient) -> None:
    assert problem(client.post("/ticket")) == (401, "token_missing")


def test_login_with_a_ticket_is_a_session_of_its_user(phone: Phone) -> None:
    body = redeem(phone, {"ticket": phone.post("/ticket").get_json()["ticket"], "device": "shop\x00 page"}).get_json()
    assert body == {"token": body["token"], "token_type": "Bearer", "expires_in": body["expires_in"]}
    page, mine = get(phone, body["token"]).get_json(), phone.get("/session").get_json()
    assert (page["openid"], page["unionid"], page["device"]) == (mine["openid"], mine["unionid"], "shop page")
    assert page["id"] != mine["id"]


@pytest.mark.parametrize("device", [None, "", 7, ["x"], "\x00"])
def test_page_that_does_not_name_itself_is_labelled_web_view(phone: Phone, device: Any) -> None:
    ticket = phone.post("/ticket").get_json()["ticket"]
    token = redeem(phone, {"ticket": ticket, "device": device}).get_json()["token"]
    assert get(phone, token).get_json()["device"] == "web-view"


def test_pages_are_listed_on_the_phone_and_are_ended_there(phone: Phone) -> None:
    token = page_of(phone)
    listed = phone.get("/sessions").get_json()["sessions"]
    assert [(it["device"], it["current"]) for it in listed] == [("iPhone", True), ("web-view", False)]
    assert phone.delete(f"/sessions/{listed[1]['id']}").status_code == 204
    assert problem(get(phone, token)) == (401, "session_revoked")


def test_logout_of_the_phone_ends_its_pages(phone: Phone) -> None:
    token = page_of(phone)
    assert phone.delete("/session").status_code == 204
    assert problem(get(phone, token)) == (401, "token_invalid")


def test_logout_everywhere_from_the_phone_ends_its_pages_without_a_reason(phone: Phone) -> None:
    token = page_of(phone)
    assert phone.delete("/sessions").status_code == 204
    assert problem(get(phone, token)) == (401, "token_invalid")


def same_problem(responses: list[TestResponse]) -> dict[str, Any]:
    bodies = [{**response.get_json(), "request_id": ""} for response in responses]
    assert bodies == bodies[:1] * len(bodies)
    return bodies[0]


def test_ticket_that_is_not_good_is_one_code_invalid(phone: Phone, clock: Clock) -> None:
    """Unknown, used, expired, of an ended session, and of a banned user who is allowed again."""
    used = phone.post("/ticket").get_json()["ticket"]
    redeem(phone, {"ticket": used})
    expired = phone.post("/ticket").get_json()["ticket"]
    clock.advance(61)
    other = Phone(phone.client, phone.wechat).log_in(appid=APPID)
    ended = other.post("/ticket").get_json()["ticket"]
    other.delete("/session")
    texts = ["", "nonsense", phone.token, "wxt_" + "A" * 65 + "." + "A" * 43, used, expired, ended, "票", "x" * 9000]
    body = same_problem([redeem(phone, {"ticket": text}) for text in texts])
    assert (body["status"], body["code"], body["action"]) == (400, "code_invalid", "login")


@pytest.mark.parametrize(
    "body",
    [
        {"ticket": "x", "code": "y"},
        {"ticket": None, "code": "y"},
        {"ticket": 1},
        {"ticket": None},
        {"ticket": ["x"]},
        {},
    ],
)
def test_login_with_both_or_with_no_text_is_refused(phone: Phone, body: dict[str, Any]) -> None:
    assert problem(redeem(phone, body)) == (400, "bad_request")


def test_login_with_both_uses_neither(phone: Phone) -> None:
    ticket, code = phone.post("/ticket").get_json()["ticket"], phone.wechat.wx_login("alice")
    assert problem(redeem(phone, {"ticket": ticket, "code": code, "appid": APPID})) == (400, "bad_request")
    assert redeem(phone, {"ticket": ticket}).status_code == 200
    assert redeem(phone, {"code": code, "appid": APPID}).status_code == 200


def test_login_by_ticket_ends_the_session_of_the_token_sent_along(phone: Phone) -> None:
    before = page_of(phone)
    ticket = phone.post("/ticket").get_json()["ticket"]
    token = redeem(phone, {"ticket": ticket}, f"Bearer {before}").get_json()["token"]
    assert (get(phone, before).status_code, get(phone, token).status_code) == (401, 200)


def test_login_by_ticket_counts_against_the_limit_of_logins(phone: Phone, app: Flask) -> None:
    """Guesses too: 300 in a minute for each address."""
    statuses = [redeem(phone, {"ticket": "guess"}).status_code for _ in range(300)]
    assert (set(statuses[:299]), statuses[299]) == ({400}, 429)


def test_banned_user_gets_no_page(phone: Phone, store: SessionStore) -> None:
    ticket, token = phone.post("/ticket").get_json()["ticket"], page_of(phone)
    openid = phone.get("/session").get_json()["openid"]
    headers = {"Authorization": basic()}
    assert phone.client.put(f"/users/{APPID}/{openid}/ban", headers=headers).status_code == 204
    assert problem(redeem(phone, {"ticket": ticket})) == (400, "code_invalid")
    assert problem(get(phone, token)) == (403, "user_banned")


def test_login_by_ticket_sends_the_signals_of_a_login(phone: Phone, app: Flask) -> None:
    """The token of the session that asked for the ticket ends nothing, so it sends no logout."""
    told: list[str] = []

    def note_login(sender: Flask, session: Any) -> None:
        told.append(session.kind)

    def note_logout(sender: Flask, user: Any) -> None:
        told.append("out")

    with logged_in.connected_to(note_login, app), logged_out.connected_to(note_logout, app):
        token = page_of(phone)
        ticket = phone.post("/ticket").get_json()["ticket"]
        redeem(phone, {"ticket": ticket}, token)
        redeem(phone, {"ticket": phone.post("/ticket").get_json()["ticket"]}, phone.token)
    assert told == ["ticket", "out", "ticket", "ticket"]


# --- Signatures


def sign(client: FlaskClient, body: Any, openid: str = ALICE.openid, authorization: str = "") -> TestResponse:
    path = f"/users/{APPID}/{openid}/signature"
    return client.post(path, json=body, headers={"Authorization": authorization or basic()})


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_signature_is_that_of_wechats_documentation(
    client: FlaskClient, store: SessionStore, key: str, message: str, signature: str
) -> None:
    store.create(Identity(ALICE, Secret(key)))
    response = sign(client, {"message": message})
    assert (response.status_code, response.get_json()) == (200, {"signature": signature})


@pytest.mark.parametrize("message", ["支付", "\x00", " ", "é\n", "x" * 10000])
def test_signature_is_over_the_utf_8_bytes(client: FlaskClient, store: SessionStore, message: str) -> None:
    store.create(Identity(ALICE, Secret("key")))
    expected = hmac.new(b"key", message.encode(), hashlib.sha256).hexdigest()
    assert sign(client, {"message": message}).get_json() == {"signature": expected}


def test_signature_is_under_the_newest_session_key(client: FlaskClient, store: SessionStore) -> None:
    for key in ("old", "new"):
        store.create(Identity(ALICE, Secret(key)))
    expected = hmac.new(b"new", b"x", hashlib.sha256).hexdigest()
    assert sign(client, {"message": "x"}).get_json() == {"signature": expected}


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": None}, {"message": 1}, {"message": {"a": 1}}])
def test_message_that_is_empty_or_no_text_is_refused(client: FlaskClient, store: SessionStore, body: Any) -> None:
    store.create(Identity(ALICE, Secret("key")))
    assert problem(sign(client, body)) == (400, "bad_request")


def test_surrogate_which_utf_8_cannot_encode_is_refused(client: FlaskClient, store: SessionStore) -> None:
    store.create(Identity(ALICE, Secret("key")))
    assert problem(sign(client, {"message": "\ud800"})) == (400, "bad_request")


def test_message_that_is_no_json_is_refused(client: FlaskClient) -> None:
    path = f"/users/{APPID}/o/signature"
    response = client.post(path, data={"message": "x"}, headers={"Authorization": basic()})
    assert problem(response) == (415, "unsupported_media_type")


def test_user_without_a_session_key_is_409(client: FlaskClient, store: SessionStore) -> None:
    """Never logged in, or logged out: the session_keys go with the last session."""
    assert problem(sign(client, {"message": "x"})) == (409, "session_key_stale")
    _, session = store.create(Identity(ALICE, Secret("key")))
    store.revoke(session)
    response = sign(client, {"message": "x"})
    assert problem(response) == (409, "session_key_stale")
    assert response.get_json()["action"] == "login"


def test_signature_of_a_user_of_another_app_is_404_for_a_limited_client(client: FlaskClient) -> None:
    assert problem(sign(client, {"message": "x"}, authorization=basic(LIMITED))) == (404, "not_found")


def test_signature_without_a_credential_is_401(client: FlaskClient) -> None:
    response = client.post(f"/users/{APPID}/o/signature", json={"message": "x"})
    assert problem(response) == (401, "client_unauthorized")


def test_view_signs_for_its_own_user(app: Flask, store: SessionStore) -> None:
    key, message, signature = VECTORS[0]
    session = store.create(Identity(ALICE, Secret(key)))[1]
    assert session.sign(message) == signature
    with app.test_request_context(), pytest.raises(LookupError):
        wx_session.sign(message)
