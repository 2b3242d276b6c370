"""WXAUTH_CORS_ORIGINS: what pages of another origin may call and read, and what stays closed."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone, worker
from tests.support.clients import basic
from tests.support.scans import DESK, GRANT_TYPE, SITE, scan_settings
from tests.support.servers import free_port
from tests.web.test_mount import mounted
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings

pytestmark = pytest.mark.usefixtures("start_of_a_window")

SHOP = "https://shop.example.com"
DEV = "http://localhost:5173"
CORS = [
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "Access-Control-Max-Age",
]
#: Each open route, and its methods.
OPEN = {
    "/login": "POST",
    "/ticket": "POST",
    "/session": "DELETE, GET",
    "/sessions": "DELETE, GET",
    "/sessions/AAAAAAAAAAAAAAAAAAAAAA": "DELETE",
    "/userdata/decrypt": "POST",
    "/userdata/verify": "POST",
    "/phone": "POST",
    "/device/BCDF-GHJK": "GET, POST",
    "/device/BCDF-GHJK.png": "GET",
    "/device_authorization": "POST",
    "/token": "POST",
}
CLOSED = [
    ("POST", "/introspect"),
    ("POST", "/revoke"),
    ("GET", "/verify"),
    ("GET", "/verify/any"),
    ("GET", f"/users/{APPID}/o/sessions"),
    ("PUT", f"/users/{APPID}/o/ban"),
    ("POST", f"/users/{APPID}/o/signature"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("POST", "/wechat/push"),
    ("GET", "/none"),
]


@pytest.fixture
def settings() -> Settings:
    return scan_settings(cors_origins=frozenset({SHOP, DEV}))


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID)


def cors(response: TestResponse) -> dict[str, str]:
    return {name: response.headers[name] for name in CORS if name in response.headers}


def vary(response: TestResponse) -> set[str]:
    return {name.strip() for line in response.headers.getlist("Vary") for name in line.split(",")}


def preflight(client: FlaskClient, path: str, method: str, origin: str = SHOP) -> TestResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return client.options(path, headers=headers)


READABLE = {
    "Access-Control-Allow-Origin": SHOP,
    "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate",
}


@pytest.mark.parametrize(("path", "methods"), OPEN.items())
def test_preflight_allows_the_methods_and_the_two_headers(client: FlaskClient, path: str, methods: str) -> None:
    response = preflight(client, path, methods.split(", ")[0])
    assert response.status_code == 204
    found = cors(response)
    assert found["Access-Control-Allow-Origin"] == SHOP
    assert found["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert found["Access-Control-Allow-Methods"] == methods
    assert "Access-Control-Allow-Credentials" not in found
    assert "Origin" in vary(response)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.data == b""


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize(
    "origin",
    [
        "https://other.example.com",
        "null",
        "https://shop.example.com.evil.example",
        "https://shop.example.com:8443",
        "http://shop.example.com",
        "https://evil.example/https://shop.example.com",
        "",
    ],
)
def test_other_origins_get_no_cors_headers(client: FlaskClient, path: str, origin: str) -> None:
    """`Vary` is there: a cache must not give them the answer to an allowed origin, or the other way round."""
    for response in (preflight(client, path, "POST", origin), client.get(path, headers={"Origin": origin})):
        assert cors(response) == {}
        assert response.status_code == 405 or "Origin" in vary(response)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_closed_routes_have_no_cors_headers(client: FlaskClient, method: str, path: str) -> None:
    assert cors(preflight(client, path, method)) == {}
    headers = {"Origin": SHOP, "Authorization": basic()}
    response = client.open(path, method=method, headers=headers, data={"token": "x"} if method == "POST" else None)
    assert cors(response) == {}
    assert "Origin" not in vary(response)


def test_page_reads_a_login_and_a_session(client: FlaskClient, phone: Phone, wechat: FakeWeChat) -> None:
    ticket = phone.post("/ticket").get_json()["ticket"]
    login = client.post("/login", json={"ticket": ticket}, headers={"Origin": SHOP})
    headers = {"Origin": SHOP, "Authorization": login.get_json()["token"]}
    shown = client.get("/session", headers=headers)
    for response in (login, shown):
        assert response.status_code == 200
        assert cors(response) == READABLE
        assert "Origin" in vary(response)
    assert vary(shown) == {"Authorization", "Origin"}


def test_each_origin_gets_its_own_name(client: FlaskClient) -> None:
    for origin in (SHOP, DEV):
        response = client.get("/session", headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin


def test_page_reads_the_answers_of_a_login_by_scan(client: FlaskClient) -> None:
    headers, form = {"Origin": SHOP}, {"client_id": SITE}
    asked = client.post("/device_authorization", data={**form, "appid": APPID}, headers=headers)
    code = asked.get_json()["device_code"]
    polled = client.post("/token", data={**form, "grant_type": GRANT_TYPE, "device_code": code}, headers=headers)
    image = client.get(f"/device/{asked.get_json()['user_code']}.png", headers=headers)
    assert [cors(response) for response in (asked, polled, image)] == [READABLE] * 3
    assert (asked.status_code, polled.status_code, image.status_code) == (200, 400, 200)


ERRORS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "401 of a token": (401, "GET", "/session", {}),
    "401 of a client": (401, "POST", "/token", {"headers": {"Authorization": basic(DESK, "guess")}}),
    "400": (400, "POST", "/login", {"json": {}}),
    "415": (415, "POST", "/login", {"data": "x"}),
    "413": (413, "POST", "/login", {"json": {"code": "x" * 20000}}),
    "404 of a code": (404, "GET", "/device/BCDF-GHJK.png", {}),
    "400 of a website": (400, "POST", "/device_authorization", {"headers": {"Authorization": basic(DESK)}}),
}


@pytest.mark.parametrize(("status", "method", "path", "more"), ERRORS.values(), ids=ERRORS.keys())
def test_page_reads_an_error(client: FlaskClient, status: int, method: str, path: str, more: dict[str, Any]) -> None:
    headers = {"Origin": SHOP, **more.get("headers", {})}
    response = client.open(path, method=method, **{**more, "headers": headers})
    assert response.status_code == status
    assert cors(response) == READABLE
    assert "Origin" in vary(response)


def test_page_reads_429_with_its_wait(settings: Settings, store: SessionStore, wechat: FakeWeChat) -> None:
    client = worker(settings, store, wechat, login_rate="1/minute", client_rate="1/minute")
    headers = {"Origin": SHOP}
    for path, body in (
        ("/login", {"json": {"code": "x", "appid": APPID}}),
        ("/token", {"data": {"client_id": SITE}}),
    ):
        found = [client.post(path, headers=headers, **body) for _ in range(2)]
        assert found[1].status_code == 429
        assert cors(found[1]) == READABLE
        assert "Retry-After" in found[1].headers


def test_page_reads_503_while_redis_is_down(wechat: FakeWeChat) -> None:
    settings = scan_settings(free_port(), cors_origins=frozenset({SHOP}))
    client = worker(settings, None, wechat)
    form = {"client_id": SITE, "appid": APPID}
    found = [
        client.post("/login", json={"code": "x", "appid": APPID}, headers={"Origin": SHOP}),
        client.post("/device_authorization", data=form, headers={"Origin": SHOP}),
        client.get("/device/BCDF-GHJK.png", headers={"Origin": SHOP}),
    ]
    assert [response.status_code for response in found] == [503] * 3
    assert [cors(response) for response in found] == [READABLE] * 3


def test_preflight_needs_no_redis_and_no_login(wechat: FakeWeChat) -> None:
    settings = scan_settings(free_port(), cors_origins=frozenset({SHOP}))
    assert preflight(worker(settings, None, wechat), "/session", "GET").status_code == 204


def test_without_the_variable_there_are_no_cors_headers(
    store: SessionStore, wechat: FakeWeChat, settings: Settings
) -> None:
    client = worker(settings, store, wechat, cors_origins=frozenset())
    for path in OPEN:
        asked, response = preflight(client, path, "POST"), client.get(path, headers={"Origin": SHOP})
        assert asked.status_code == 405
        assert (cors(asked), cors(response)) == ({}, {})
        assert "Origin" not in vary(asked) | vary(response)


def test_origin_is_compared_without_case_and_given_back_as_sent(client: FlaskClient) -> None:
    """Browsers send it in lower case."""
    response = client.get("/session", headers={"Origin": SHOP.upper()})
    assert cors(response).get("Access-Control-Allow-Origin") in (None, SHOP.upper())


def test_preflight_below_a_prefix(store: SessionStore, wechat: FakeWeChat) -> None:
    client = mounted(store, wechat, WXAUTH_CORS_ORIGINS=SHOP).test_client()
    response = preflight(client, "/auth/session", "GET")
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (204, SHOP)
    assert cors(client.get("/auth/session", headers={"Origin": SHOP})) == READABLE
    for path in ("/orders", "/upload", "/missing", "/nowhere"):
        assert cors(client.get(path, headers={"Origin": SHOP})) == {}
        assert cors(preflight(client, path, "GET")) == {}
    assert cors(preflight(client, "/auth/introspect", "POST")) == {}


def test_client_that_is_no_browser_gets_the_answer_without_cors_headers(phone: Phone) -> None:
    response = phone.get("/session")
    assert (response.status_code, cors(response)) == (200, {})
