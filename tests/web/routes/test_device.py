"""The routes for the phone and the image of a login by scan. On both kinds of Redis."""

from __future__ import annotations

import io
from typing import Any

import pytest
import requests
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone, worker
from tests.support.clients import SECOND, problem
from tests.support.qr import text_of
from tests.support.scans import DESK, GRANT_TYPE, PUBLIC_URL, Website, page_of, scan_settings
from wxauth.clock import Clock
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings

pytestmark = pytest.mark.usefixtures("start_of_a_window")

UNKNOWN = "BCDF-GHJK"
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"


class Drawing(FakeWeChat):
    """Counts the images. Answers with `image` where that is set, under the wrong Content-Type."""

    image: bytes | None = None
    images = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if "/wxa/getwxacodeunlimit" not in (request.url or ""):
            return super().send(request, *args, **kwargs)
        self.images += 1
        if self.image is None:
            return super().send(request, *args, **kwargs)
        headers = {"Content-Type": "text/plain"}
        raw = urllib3.HTTPResponse(io.BytesIO(self.image), headers, status=200, preload_content=False)
        return self.build_response(request, raw)


@pytest.fixture
def settings() -> Settings:
    return scan_settings()


@pytest.fixture
def wechat(settings: Settings) -> Drawing:
    return Drawing(settings.apps)


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID)


@pytest.fixture
def website(client: FlaskClient) -> Website:
    return Website(client)


def with_token(client: FlaskClient, token: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


# --- Without WXAUTH_PUBLIC_URL

ROUTES = {
    "page": ("GET", "/device", {}),
    "show": ("GET", f"/device/{UNKNOWN}", {}),
    "answer": ("POST", f"/device/{UNKNOWN}", {"json": {"approve": True}}),
    "image": ("GET", f"/device/{UNKNOWN}.png", {}),
    "ask": ("POST", "/device_authorization", {"data": {"client_id": "site"}}),
    "poll": ("POST", "/token", {"data": {"client_id": "site", "grant_type": GRANT_TYPE, "device_code": "x"}}),
    "metadata": ("GET", "/.well-known/oauth-authorization-server", {}),
}


@pytest.mark.parametrize(("method", "path", "more"), ROUTES.values(), ids=ROUTES.keys())
def test_routes_do_not_exist_without_a_public_url(
    settings: Settings, wechat: Drawing, store: SessionStore, method: str, path: str, more: dict[str, Any]
) -> None:
    client = worker(settings, store, wechat, public_url="")
    assert problem(client.open(path, method=method, **more)) == (404, "not_found")


def test_ticket_needs_no_public_url(settings: Settings, wechat: Drawing, store: SessionStore) -> None:
    phone = Phone(worker(settings, store, wechat, public_url=""), wechat).log_in(appid=APPID)
    assert phone.post("/ticket").status_code == 200


# --- The page for other cameras


def test_page_is_one_static_sentence_without_scripts(client: FlaskClient) -> None:
    response = client.get("/device")
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert "微信" in response.text
    assert "<script" not in response.text


def test_page_shows_nothing_of_its_address(client: FlaskClient) -> None:
    plain = client.get("/device")
    for query in ("user_code=BCDF-GHJK", "user_code=<script>alert(1)</script>"):
        assert client.get(f"/device?{query}").data == plain.data


# --- Who asks


def test_phone_is_shown_who_asks_when_and_from_where(phone: Phone, website: Website, clock: Clock) -> None:
    before = int(clock())
    asked = website.ask()
    body = phone.get(f"/device/{asked['user_code']}").get_json()
    assert body.keys() == {"client_id", "client_name", "created_at", "expires_in", "network"}
    assert (body["client_id"], body["client_name"], body["network"]) == (DESK, DESK, "192.0.2.0/24")
    assert before <= body["created_at"] <= before + 5
    assert 290 <= body["expires_in"] <= 300


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("", "unknown"),
    ],
)
def test_network_is_shortened(phone: Phone, website: Website, address: str, network: str) -> None:
    asked = website.post("/device_authorization", address, appid=APPID).get_json()
    assert phone.get(f"/device/{asked['user_code']}").get_json()["network"] == network


@pytest.mark.parametrize("change", [str.lower, lambda code: code.replace("-", ""), lambda code: f"-{code.lower()}-"])
def test_user_code_is_read_without_case_and_dash(phone: Phone, website: Website, change: Any) -> None:
    asked = website.ask()
    code = change(asked["user_code"])
    assert phone.get(f"/device/{code}").status_code == 200
    assert phone.client.get(f"/device/{code}.png").status_code == 200
    assert phone.post(f"/device/{code}", {"approve": True}).status_code == 204


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_phone_without_a_login_gets_401(client: FlaskClient, website: Website, method: str) -> None:
    code = website.ask()["user_code"]
    response = client.open(f"/device/{code}", method=method, json={"approve": True})
    assert problem(response) == (401, "token_missing")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxauth"'


def same_problem(responses: list[TestResponse]) -> dict[str, Any]:
    """Return the body that all answers have, without the request_id."""
    bodies = [{**response.get_json(), "request_id": ""} for response in responses]
    assert [response.status_code for response in responses] == [bodies[0]["status"]] * len(bodies)
    assert bodies == bodies[:1] * len(bodies)
    return bodies[0]


def test_unknown_expired_and_answered_codes_are_one_404(phone: Phone, website: Website, clock: Clock) -> None:
    expired = website.ask()["user_code"]
    clock.advance(301)
    denied, approved, used = (website.ask() for _ in range(3))
    phone.post(f"/device/{denied['user_code']}", {"approve": False})
    for asked in (approved, used):
        phone.post(f"/device/{asked['user_code']}", {"approve": True})
    website.poll(used["device_code"])
    codes = [UNKNOWN, "nonsense", expired, *(asked["user_code"] for asked in (denied, approved, used))]
    shown = [phone.get(f"/device/{code}") for code in codes]
    answered = [phone.post(f"/device/{code}", {"approve": True}) for code in codes[2:]]
    images = [phone.client.get(f"/device/{code}.png") for code in codes]
    assert same_problem([*shown, *answered, *images])["code"] == "not_found"


def test_phone_of_another_app_gets_the_404_of_an_unknown_code(
    phone: Phone, website: Website, wechat: Drawing
) -> None:
    code = website.ask(SECOND)["user_code"]
    other = Phone(phone.client, wechat).log_in(appid=SECOND)
    refused = [phone.get(f"/device/{code}"), phone.post(f"/device/{code}", {"approve": True})]
    assert same_problem([*refused, phone.get(f"/device/{UNKNOWN}")])["code"] == "not_found"
    assert other.post(f"/device/{code}", {"approve": True}).status_code == 204


# --- The answer


@pytest.mark.parametrize("body", [{}, {"approve": 1}, {"approve": "true"}, {"approve": None}, {"approve": [True]}])
def test_answer_that_is_no_boolean_is_refused_and_answers_nothing(
    phone: Phone, website: Website, body: dict[str, Any]
) -> None:
    asked = website.ask()
    assert problem(phone.post(f"/device/{asked['user_code']}", body)) == (400, "bad_request")
    assert website.poll(asked["device_code"]).get_json()["error"] == "authorization_pending"


def test_answer_that_is_no_json_is_refused(phone: Phone, website: Website) -> None:
    path = f"/device/{website.ask()['user_code']}"
    for data in ("approve=true", b""):
        response = phone.client.post(path, data=data, headers=phone.headers)
        assert problem(response) == (415, "unsupported_media_type")
    assert problem(phone.post(path, {"approve": True, "x": "x" * 20000})) == (413, "too_large")


def test_get_approves_nothing(phone: Phone, website: Website) -> None:
    """RFC 8628, 5.6: a scan alone is no approval."""
    asked = website.ask()
    phone.get(f"/device/{asked['user_code']}")
    phone.client.get(f"/device?user_code={asked['user_code']}")
    assert website.poll(asked["device_code"]).get_json()["error"] == "authorization_pending"


def test_session_by_scan_is_in_the_list_with_the_id_of_its_client_and_is_ended_from_the_phone(
    phone: Phone, website: Website
) -> None:
    token = website.log_in(phone)
    listed = phone.get("/sessions").get_json()["sessions"]
    (scan,) = [it for it in listed if not it["current"]]
    assert scan["device"] == DESK
    shown = phone.client.get("/session", **with_token(phone.client, token)).get_json()
    assert (shown["id"], shown["device"], shown["appid"]) == (scan["id"], DESK, APPID)
    assert phone.delete(f"/sessions/{scan['id']}").status_code == 204
    refused = phone.client.get("/session", **with_token(phone.client, token))
    assert problem(refused) == (401, "session_revoked")
    assert refused.get_json()["action"] == "ask"


# --- What the other kinds of session may do

FORBIDDEN = [
    ("POST", "/ticket", None),
    ("POST", f"/device/{UNKNOWN}", {"approve": True}),
    ("DELETE", "/sessions", None),
    ("DELETE", "/sessions?keep=current", None),
    ("DELETE", "/sessions/AAAAAAAAAAAAAAAAAAAAAA", None),
]
ALLOWED = [("GET", "/session", 200), ("GET", "/sessions", 200), ("DELETE", "/session", 204)]


@pytest.mark.parametrize("kind", ["scan", "ticket"])
@pytest.mark.parametrize(("method", "path", "body"), FORBIDDEN, ids=[f"{it[0]} {it[1]}" for it in FORBIDDEN])
def test_session_by_scan_or_ticket_gets_insufficient_scope(
    phone: Phone, website: Website, kind: str, method: str, path: str, body: Any
) -> None:
    token = website.log_in(phone) if kind == "scan" else page_of(phone)
    response = phone.client.open(path, method=method, json=body, **with_token(phone.client, token))
    assert problem(response) == (403, "insufficient_scope")
    assert response.get_json()["action"] == "none"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxauth", error="insufficient_scope"'
    assert len(phone.get("/sessions").get_json()["sessions"]) == 2


@pytest.mark.parametrize("kind", ["scan", "ticket"])
@pytest.mark.parametrize(("method", "path", "status"), ALLOWED)
def test_session_by_scan_or_ticket_may_do_the_rest(
    phone: Phone, website: Website, kind: str, method: str, path: str, status: int
) -> None:
    token = website.log_in(phone) if kind == "scan" else page_of(phone)
    response = phone.client.open(path, method=method, **with_token(phone.client, token))
    assert response.status_code == status
    assert phone.get("/session").status_code == 200


@pytest.mark.parametrize("kind", ["scan", "ticket"])
def test_session_by_scan_or_ticket_is_shown_who_asks(phone: Phone, website: Website, kind: str) -> None:
    """Section 1.2 forbids the answer alone."""
    token = website.log_in(phone) if kind == "scan" else page_of(phone)
    code = website.ask()["user_code"]
    assert phone.client.get(f"/device/{code}", **with_token(phone.client, token)).status_code == 200


# --- Guesses


def guess(phone: Phone, times: int, code: str = UNKNOWN) -> list[int]:
    return [phone.get(f"/device/{code}").status_code for _ in range(times)]


def test_eleventh_guess_of_a_user_gets_429_and_so_does_a_right_code(
    phone: Phone, website: Website, clock: Clock
) -> None:
    asked = website.ask()
    assert guess(phone, 10) == [404] * 10
    response = phone.get(f"/device/{asked['user_code']}")
    assert problem(response) == (429, "rate_limited")
    assert 1 <= int(response.headers["Retry-After"]) <= 300
    assert "q=10;w=300" in response.headers["RateLimit-Policy"]
    assert problem(phone.post(f"/device/{asked['user_code']}", {"approve": True})) == (429, "rate_limited")
    assert website.poll(asked["device_code"]).get_json()["error"] == "authorization_pending"
    clock.advance(301)
    assert phone.get(f"/device/{website.ask()['user_code']}").status_code == 200


def test_guesses_of_all_phones_of_a_user_count_together(phone: Phone, wechat: Drawing) -> None:
    other = Phone(phone.client, wechat).log_in(appid=APPID)
    assert guess(phone, 5) + guess(other, 5) == [404] * 10
    assert guess(other, 1) + guess(phone, 1) == [429] * 2


def test_guesses_by_post_and_of_another_form_count_too(phone: Phone) -> None:
    for number in range(5):
        assert phone.post(f"/device/{UNKNOWN}", {"approve": number % 2 == 0}).status_code == 404
    assert guess(phone, 5, "short") == [404] * 5
    assert guess(phone, 1) == [429]


def test_right_and_answered_codes_are_no_guesses(phone: Phone, website: Website) -> None:
    asked = website.ask()
    assert guess(phone, 15, asked["user_code"]) == [200] * 15
    phone.post(f"/device/{asked['user_code']}", {"approve": True})
    assert guess(phone, 15, asked["user_code"]) == [404] * 15
    assert guess(phone, 1) == [404]


def test_guesses_of_one_user_do_not_stop_another_of_the_same_address(
    phone: Phone, website: Website, wechat: Drawing
) -> None:
    guess(phone, 11)
    bob = Phone(phone.client, wechat, "bob").log_in(appid=APPID)
    assert guess(bob, 1, website.ask()["user_code"]) == [200]


def test_301st_guess_of_an_address_gets_429_images_included(
    client: FlaskClient, phone: Phone, website: Website, clock: Clock
) -> None:
    """A phone of that address gets it too. Another address does not."""
    code = website.ask()["user_code"]

    def image(code: str, address: str = "127.0.0.1") -> int:
        environ = {"REMOTE_ADDR": address}
        return client.get(f"/device/{code}.png", environ_overrides=environ).status_code

    assert guess(phone, 1) + [image(UNKNOWN) for _ in range(299)] == [404] * 300
    assert (image(code), guess(phone, 1, code)) == (429, [429])
    assert image(code, "192.0.2.200") == 200
    clock.advance(301)
    assert image(website.ask()["user_code"]) == 200


def test_images_of_a_right_code_are_no_guesses(client: FlaskClient, website: Website) -> None:
    code = website.ask()["user_code"]
    assert {client.get(f"/device/{code}.png").status_code for _ in range(305)} == {200}


# --- The image


def test_image_is_wechats_with_the_user_code_as_its_scene(
    client: FlaskClient, website: Website, wechat: Drawing
) -> None:
    """The fake WeChat draws a QR code of the scene."""
    asked = website.ask()
    assert asked["qr_code"].startswith(f"{PUBLIC_URL}/device/")
    response = client.get(asked["qr_code"].removeprefix(PUBLIC_URL))
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/png")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert text_of(response.data) == asked["user_code"].replace("-", "")


@pytest.mark.parametrize(("start", "mimetype"), [(PNG, "image/png"), (JPEG, "image/jpeg")])
def test_type_of_the_image_is_told_by_its_first_bytes(
    client: FlaskClient, website: Website, wechat: Drawing, start: bytes, mimetype: str
) -> None:
    wechat.image = start + bytes(1000)
    response = client.get(f"/device/{website.ask()['user_code']}.png")
    assert (response.status_code, response.headers["Content-Type"]) == (200, mimetype)
    assert response.data == wechat.image


def test_image_is_fetched_once_by_several_workers(
    app: Flask, settings: Settings, website: Website, wechat: Drawing, store: SessionStore
) -> None:
    code = website.ask()["user_code"]
    workers = [app.test_client(), worker(settings, store, wechat), worker(settings, store, wechat)]
    images = {client.get(f"/device/{code}.png").data for client in workers * 2}
    assert (len(images), wechat.images) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"errcode": 45009, "errmsg": "x"}', (503, "wechat_misconfigured")),
        (b'{"errcode": 41030, "errmsg": "x"}', (503, "wechat_misconfigured")),
        (b'{"errcode": 48001, "errmsg": "x"}', (503, "wechat_misconfigured")),
        (b'{"errcode": 40097, "errmsg": "x"}', (502, "wechat_error")),
        (b'{"errcode": 45011, "errmsg": "x"}', (429, "rate_limited")),
        (b'{"errcode": -1, "errmsg": "x"}', (503, "wechat_busy")),
        (b"<html>", (503, "wechat_unreachable")),
    ],
)
def test_errcode_of_wechat_is_a_problem_and_is_not_kept(
    client: FlaskClient, website: Website, wechat: Drawing, answer: bytes, expected: tuple[int, str]
) -> None:
    code = website.ask()["user_code"]
    wechat.image = answer
    response = client.get(f"/device/{code}.png")
    assert problem(response) == expected
    assert response.mimetype == "application/problem+json"
    assert (response.status_code in (429, 503)) == ("Retry-After" in response.headers)
    wechat.image = None
    assert client.get(f"/device/{code}.png").status_code == 200


def test_scan_link_is_a_qr_code_of_the_complete_address_without_wechat(
    settings: Settings, wechat: Drawing, store: SessionStore
) -> None:
    client = worker(settings, store, wechat, scan_link=True)
    asked = Website(client).ask()
    response = client.get(f"/device/{asked['user_code'].lower()}.png")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/png")
    assert text_of(response.data) == asked["verification_uri_complete"]
    assert wechat.images == 0
    assert problem(client.get(f"/device/{UNKNOWN}.png")) == (404, "not_found")
