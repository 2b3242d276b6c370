"""The routes of RFC 8628 for websites: who may use them, what they answer, each error with its headers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import fakeredis
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APP_SECRET, APPID, RING_KEY, Phone, worker
from tests.support.clients import BACKEND, CLIENT_SECRET, LIMITED, SECOND, ask, basic, post, problem
from tests.support.scans import (
    DESK,
    DESK_SECOND,
    GRANT_TYPE,
    PUBLIC_URL,
    SITE,
    SITE_SECOND,
    Website,
    oauth,
    page_of,
    scan_settings,
)
from tests.web.test_mount import CONFIG, mounted
from wxauth.clock import Clock
from wxauth.keys import KeyRing
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionPolicy, SessionStore
from wxauth.settings import Client, Settings
from wxauth.storage.client import RedisClient
from wxauth.web.requests import MAX_BODY

pytestmark = pytest.mark.usefixtures("start_of_a_window")

FORM = "application/x-www-form-urlencoded"
BOTH = ["/device_authorization", "/token"]


@pytest.fixture
def settings() -> Settings:
    return scan_settings()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID)


@pytest.fixture
def website(client: FlaskClient) -> Website:
    return Website(client)


def approve(phone: Phone, asked: dict[str, Any], approve: bool = True) -> None:
    assert phone.post(f"/device/{asked['user_code']}", {"approve": approve}).status_code == 204


# --- Ask


def test_device_authorization_returns_what_rfc_8628_says(website: Website) -> None:
    asked = website.ask()
    code = asked["user_code"]
    assert re.fullmatch("[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", code)
    assert asked == {
        "device_code": asked["device_code"],
        "user_code": code,
        "verification_uri": f"{PUBLIC_URL}/device",
        "verification_uri_complete": f"{PUBLIC_URL}/device?user_code={code}",
        "expires_in": 300,
        "interval": 2,
        "qr_code": f"{PUBLIC_URL}/device/{code}.png",
    }
    assert len(asked["device_code"]) > 64


def test_answers_have_no_store_and_nosniff(website: Website, phone: Phone) -> None:
    first = website.post("/device_authorization", appid=APPID)
    asked = first.get_json()
    approve(phone, asked)
    for response in (first, website.poll(asked["device_code"])):
        assert (response.status_code, response.mimetype) == (200, "application/json")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_empty_form_is_valid_where_one_app_is_known(
    settings: Settings, store: SessionStore, wechat: FakeWeChat
) -> None:
    """With one app for all, or with a client that is limited to one."""
    one_app = worker(settings, store, wechat, apps={APPID: Secret(APP_SECRET)})
    two_apps = worker(settings, store, wechat)
    bodies: list[dict[str, Any]] = [{}, {"data": {}}, {"data": b"", "content_type": FORM}, {"data": {"appid": ""}}]
    for client, id in ((one_app, DESK), (two_apps, DESK_SECOND), (two_apps, LIMITED)):
        for body in bodies:
            response = client.post("/device_authorization", headers={"Authorization": basic(id)}, **body)
            assert response.status_code == 200, response.text
    assert two_apps.post("/device_authorization", data={"client_id": SITE_SECOND}).status_code == 200


@pytest.mark.parametrize("id", [DESK_SECOND, LIMITED])
def test_code_of_a_limited_client_is_for_its_app(website: Website, wechat: FakeWeChat, id: str) -> None:
    limited = Website(website.client, id)
    for appid in (None, SECOND):
        asked = limited.post("/device_authorization", **({"appid": appid} if appid else {})).get_json()
        second = Phone(website.client, wechat).log_in(appid=SECOND)
        approve(second, asked)
        token = limited.poll(asked["device_code"]).get_json()["access_token"]
        shown = website.client.get("/session", headers={"Authorization": token}).get_json()
        assert shown["appid"] == SECOND


@pytest.mark.parametrize(
    ("id", "form"),
    [
        (DESK, {}),
        (DESK, {"appid": "wxunknown"}),
        (DESK, {"appid": [APPID, APPID]}),
        (DESK, {"appid": [APPID, SECOND]}),
        (DESK_SECOND, {"appid": APPID}),
        (LIMITED, {"appid": APPID}),
    ],
)
def test_app_that_is_missing_unknown_twice_or_not_for_the_client_is_an_invalid_request(
    client: FlaskClient, id: str, form: dict[str, Any]
) -> None:
    """Two apps are configured."""
    response = client.post("/device_authorization", data=form, headers={"Authorization": basic(id)})
    assert oauth(response) == (400, "invalid_request")


# --- Poll


def test_whole_way_gives_a_bearer_token(phone: Phone, website: Website, clock: Clock) -> None:
    asked = website.ask()
    assert oauth(website.poll(asked["device_code"])) == (400, "authorization_pending")
    approve(phone, asked)
    assert oauth(website.poll(asked["device_code"])) == (400, "slow_down")
    clock.advance(asked["interval"] + 5)
    response = website.poll(asked["device_code"])
    body = response.get_json()
    assert (response.status_code, body["token_type"], body["expires_in"]) == (200, "Bearer", 604800)
    assert body["access_token"].startswith("wxa_")
    assert (response.headers["Cache-Control"], response.headers["Pragma"]) == ("no-store", "no-cache")


def test_token_is_that_of_the_user_who_approved(phone: Phone, website: Website) -> None:
    asked = website.ask()
    approve(phone, asked)
    body = website.poll(asked["device_code"]).get_json()
    assert body.keys() == {"access_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"] > 604700) == ("Bearer", True)
    shown = phone.client.get("/session", headers={"Authorization": f"Bearer {body['access_token']}"}).get_json()
    assert shown["openid"] == phone.get("/session").get_json()["openid"]


def test_denied_code_is_access_denied(phone: Phone, website: Website) -> None:
    asked = website.ask()
    approve(phone, asked, False)
    assert oauth(website.poll(asked["device_code"])) == (400, "access_denied")


def test_expired_code_is_expired_token(website: Website, clock: Clock) -> None:
    code = website.ask()["device_code"]
    clock.advance(301)
    assert [oauth(website.poll(code)) for _ in range(2)] == [(400, "expired_token")] * 2


def test_used_code_is_invalid_grant(phone: Phone, website: Website) -> None:
    asked = website.ask()
    approve(phone, asked)
    assert website.poll(asked["device_code"]).status_code == 200
    assert oauth(website.poll(asked["device_code"])) == (400, "invalid_grant")


@pytest.mark.parametrize("id", [BACKEND, DESK_SECOND, SITE])
def test_poll_of_another_client_is_invalid_grant_and_changes_nothing(phone: Phone, website: Website, id: str) -> None:
    asked = website.ask()
    other = Website(website.client, id, "" if id == SITE else CLIENT_SECRET)
    assert oauth(other.poll(asked["device_code"])) == (400, "invalid_grant")
    assert oauth(website.poll(asked["device_code"])) == (400, "authorization_pending")
    approve(phone, asked)
    assert oauth(other.poll(asked["device_code"])) == (400, "invalid_grant")


def test_pace_is_that_of_rfc_8628(website: Website, clock: Clock) -> None:
    code, found = website.ask()["device_code"], []
    for seconds in (0, 2, 1, 6.5, 13):
        clock.advance(seconds)
        found.append(oauth(website.poll(code))[1])
    pending = "authorization_pending"
    assert found == [pending, pending, "slow_down", "slow_down", pending]


@pytest.mark.parametrize("code", ["", "nonsense", "wxa_" + "A" * 65 + "." + "A" * 43, "x" * 4000, "\x00", "码"])
def test_text_that_is_no_device_code_is_invalid_grant(website: Website, code: str) -> None:
    assert oauth(website.poll(code)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"device_code": "x"}, "invalid_request"),
        ({"grant_type": GRANT_TYPE}, "invalid_request"),
        ({}, "invalid_request"),
        ({"grant_type": [GRANT_TYPE, GRANT_TYPE], "device_code": "x"}, "invalid_request"),
        ({"grant_type": GRANT_TYPE, "device_code": ["x", "x"]}, "invalid_request"),
        ({"grant_type": "authorization_code", "code": "x"}, "unsupported_grant_type"),
        ({"grant_type": "device_code", "device_code": "x"}, "unsupported_grant_type"),
        ({"grant_type": GRANT_TYPE.upper(), "device_code": "x"}, "unsupported_grant_type"),
        ({"grant_type": GRANT_TYPE, "device_code": "x", **{f"f{n}": "x" for n in range(9)}}, "invalid_request"),
    ],
)
def test_token_request_of_another_form_is_refused(client: FlaskClient, form: dict[str, Any], error: str) -> None:
    assert oauth(client.post("/token", data=form, headers={"Authorization": basic(DESK)})) == (400, error)


BODIES: dict[str, dict[str, Any]] = {
    "JSON": {"json": {"appid": SECOND, "grant_type": GRANT_TYPE, "device_code": "x"}},
    "text": {"data": f"appid={SECOND}", "content_type": "text/plain"},
    "no type": {"data": f"appid={SECOND}"},
    "multipart": {"data": {"appid": SECOND}, "content_type": "multipart/form-data"},
    "too large": {"data": {"appid": SECOND, "more": "x" * MAX_BODY}},
    "compressed": {"data": b"\x1f\x8b", "content_type": FORM, "headers": {"Content-Encoding": "gzip"}},
    "too many fields": {"data": {"appid": SECOND, **{f"f{number}": "x" for number in range(10)}}},
}


@pytest.mark.parametrize("more", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", BOTH)
def test_body_that_is_no_form_is_an_invalid_request(client: FlaskClient, path: str, more: dict[str, Any]) -> None:
    """It is not ignored, though the client is known by HTTP Basic."""
    headers = {"Authorization": basic(DESK_SECOND), **more.get("headers", {})}
    assert oauth(client.post(path, **{**more, "headers": headers})) == (400, "invalid_request")


# --- Clients

Credential = tuple[dict[str, str], dict[str, Any]]
GOOD: dict[str, Credential] = {
    "Basic": ({"Authorization": basic(DESK)}, {}),
    "Basic and its id": ({"Authorization": basic(DESK)}, {"client_id": DESK}),
    "form": ({}, {"client_id": DESK, "client_secret": CLIENT_SECRET}),
    "backend": ({"Authorization": basic()}, {}),
    "public": ({}, {"client_id": SITE}),
    "public and an empty secret": ({}, {"client_id": SITE, "client_secret": ""}),
    "Basic and empty fields": ({"Authorization": basic(DESK)}, {"client_id": "", "client_secret": ""}),
}
WRONG: dict[str, Credential] = {
    "none": ({}, {}),
    "wrong secret": ({"Authorization": basic(DESK, "guess")}, {}),
    "unknown id": ({"Authorization": basic("nobody")}, {}),
    "unknown public id": ({}, {"client_id": "nobody"}),
    "id without its secret": ({}, {"client_id": DESK}),
    "id and an empty secret": ({}, {"client_id": DESK, "client_secret": ""}),
    "backend without its secret": ({}, {"client_id": BACKEND}),
    "wrong secret in the form": ({}, {"client_id": DESK, "client_secret": "guess"}),
    "one of two secrets wrong": ({"Authorization": basic(DESK)}, {"client_id": DESK, "client_secret": "guess"}),
    "public id with a secret": ({}, {"client_id": SITE, "client_secret": "guess"}),
    "public id in Basic": ({"Authorization": basic(SITE, "")}, {}),
    "token of a user": ({"Authorization": "Bearer wxa_x"}, {}),
    "in the query": ({}, {}),
}


@pytest.mark.parametrize(("headers", "form"), GOOD.values(), ids=GOOD.keys())
def test_client_of_each_kind_may_ask(client: FlaskClient, headers: dict[str, str], form: dict[str, Any]) -> None:
    response = client.post("/device_authorization", data={"appid": APPID, **form}, headers=headers)
    assert response.status_code == 200, response.text
    code = response.get_json()["device_code"]
    more = {"grant_type": GRANT_TYPE, "device_code": code, **form}
    assert oauth(client.post("/token", data=more, headers=headers)) == (400, "authorization_pending")


@pytest.mark.parametrize(("headers", "form"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("path", BOTH)
def test_wrong_credential_is_invalid_client(
    client: FlaskClient, path: str, headers: dict[str, str], form: dict[str, Any]
) -> None:
    more = {"appid": APPID, "grant_type": GRANT_TYPE, "device_code": "x", **form}
    response = client.post(f"{path}?client_id={SITE}", data=more, headers=headers)
    assert oauth(response) == (401, "invalid_client")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="wxauth"'


@pytest.mark.parametrize("path", BOTH)
def test_two_clients_in_one_request_are_an_invalid_request(client: FlaskClient, path: str) -> None:
    both: list[Credential] = [
        ({"Authorization": basic(DESK)}, {"client_id": BACKEND}),
        ({"Authorization": basic(DESK)}, {"client_id": SITE}),
        ({}, {"client_id": [SITE, SITE_SECOND]}),
    ]
    for headers, form in both:
        assert oauth(client.post(path, data=form, headers=headers)) == (400, "invalid_request")


def test_basic_is_accepted_raw_and_form_urlencoded(
    settings: Settings, store: SessionStore, wechat: FakeWeChat
) -> None:
    id, secret = "odd_desk.v-2", "p+q%41 r:s/ä-secret~of*30(chars)"
    odd = {id: Client(Secret(secret), None, id, scan_only=True)}
    client = worker(settings, store, wechat, clients={**settings.clients, **odd})
    for authorization in (basic(id, secret), basic(quote_plus(id), quote_plus(secret))):
        headers = {"Authorization": authorization}
        response = client.post("/device_authorization", data={"appid": APPID}, headers=headers)
        assert response.status_code == 200, response.text


# --- What a client for scans alone may do

OTHERS = {
    "list": ("GET", f"/users/{APPID}/o/sessions"),
    "end all": ("DELETE", f"/users/{APPID}/o/sessions"),
    "ban": ("PUT", f"/users/{APPID}/o/ban"),
    "unban": ("DELETE", f"/users/{APPID}/o/ban"),
    "sign": ("POST", f"/users/{APPID}/o/signature"),
    "metrics": ("GET", "/metrics"),
}


@pytest.mark.parametrize("authorization", [basic(DESK), ""], ids=["scan", "public"])
@pytest.mark.parametrize(("method", "path"), OTHERS.values(), ids=OTHERS.keys())
def test_client_for_scans_gets_insufficient_scope_elsewhere(
    client: FlaskClient, method: str, path: str, authorization: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = client.open(path, method=method, headers=headers, data={"client_id": DESK if authorization else SITE})
    assert problem(response) == (403, "insufficient_scope")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxauth", error="insufficient_scope"'


@pytest.mark.parametrize("id", [DESK, SITE])
def test_client_for_scans_introspects_and_revokes_what_was_granted_to_it(
    phone: Phone, website: Website, id: str
) -> None:
    own = Website(website.client, id, CLIENT_SECRET if id == DESK else "")
    token = own.log_in(phone)
    body = own.post("/introspect", token=token).get_json()
    assert (body["active"], body["client_id"], body["scope"]) == (True, APPID, "")
    assert (own.post("/revoke", token=token).status_code, own.post("/revoke", token=token).get_json()) == (200, {})
    assert own.post("/introspect", token=token).get_json() == {"active": False}
    refused = phone.client.get("/session", headers={"Authorization": token})
    assert problem(refused) == (401, "session_revoked")


@pytest.mark.parametrize("id", [DESK, SITE])
def test_client_for_scans_sees_and_ends_no_other_session(phone: Phone, website: Website, id: str) -> None:
    """Neither the session of the phone, nor a page, nor a scan of another client, whatever their labels say."""
    own = Website(website.client, id, CLIENT_SECRET if id == DESK else "")
    other = Website(website.client, BACKEND)
    named = Phone(phone.client, phone.wechat).log_in(appid=APPID, device=id)
    tokens = [phone.token, named.token, page_of(phone, id), other.log_in(phone)]
    for token in tokens:
        assert own.post("/introspect", token=token).get_json() == {"active": False}
        assert own.post("/revoke", token=token).get_json() == {}
        assert phone.client.get("/session", headers={"Authorization": token}).status_code == 200


def test_client_for_scans_does_not_prolong_a_session_that_it_may_not_see(
    phone: Phone, website: Website, clock: Clock
) -> None:
    clock.advance(6 * 86400)
    website.post("/introspect", token=phone.token)
    clock.advance(86401)
    assert problem(phone.get("/session")) == (401, "token_invalid")


def test_backend_sees_and_ends_a_session_by_scan(phone: Phone, website: Website) -> None:
    token = website.log_in(phone)
    assert post(phone.client, "/introspect", token).get_json()["active"]
    post(phone.client, "/revoke", token)
    assert not post(phone.client, "/introspect", token).get_json()["active"]
    assert phone.get("/session").status_code == 200


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
def test_unknown_public_id_is_no_client_of_introspect_and_revoke(client: FlaskClient, path: str) -> None:
    response = client.post(path, data={"token": "x", "client_id": "nobody"})
    assert problem(response) == (401, "client_unauthorized")


def test_ban_by_the_operator_denies_an_approved_code(phone: Phone, website: Website) -> None:
    openid = phone.get("/session").get_json()["openid"]
    asked = website.ask()
    approve(phone, asked)
    assert ask(phone.client, "PUT", f"/users/{APPID}/{openid}/ban").status_code == 204
    assert oauth(website.poll(asked["device_code"])) == (400, "access_denied")


# --- Limits


def test_public_clients_have_the_limit_of_logins(settings: Settings, store: SessionStore, wechat: FakeWeChat) -> None:
    """Everyone can ask for a code. A client with a secret has the limit of clients."""
    client = worker(settings, store, wechat, login_rate="2/minute")
    site, desk = Website(client, SITE, ""), Website(client)
    found = [site.post("/device_authorization", appid=APPID) for _ in range(3)]
    assert [response.status_code for response in found] == [200, 200, 429]
    assert oauth(found[-1]) == (429, "rate_limited")
    assert 1 <= int(found[-1].headers["Retry-After"]) <= 60
    assert [desk.post("/device_authorization", appid=APPID).status_code for _ in range(4)] == [200] * 4
    assert site.post("/device_authorization", "198.51.100.1", appid=APPID).status_code == 200


@pytest.mark.parametrize("path", BOTH)
def test_limit_of_clients_is_rate_limited_with_the_wait(
    settings: Settings, store: SessionStore, wechat: FakeWeChat, path: str
) -> None:
    """Wrong credentials count too: the limit slows down guesses."""
    client = worker(settings, store, wechat, client_rate="2/minute")
    wrong = {"Authorization": basic(DESK, "guess")}
    found = [client.post(path, headers=wrong) for _ in range(3)]
    assert [oauth(it) for it in found] == [(401, "invalid_client")] * 2 + [(429, "rate_limited")]
    assert 1 <= int(found[-1].headers["Retry-After"]) <= 60


# --- Metadata


def test_metadata_is_that_of_rfc_8414(client: FlaskClient) -> None:
    response = client.get("/.well-known/oauth-authorization-server")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    body = response.get_json()
    assert body["issuer"] == PUBLIC_URL
    for name in ("device_authorization", "token", "introspection", "revocation"):
        path = {"introspection": "introspect", "revocation": "revoke"}.get(name, name)
        assert body[f"{name}_endpoint"] == f"{PUBLIC_URL}/{path}"
    methods = ["client_secret_basic", "client_secret_post", "none"]
    assert sorted(body["token_endpoint_auth_methods_supported"]) == methods
    assert body["response_types_supported"] == []
    assert body["grant_types_supported"] == [GRANT_TYPE]


def test_metadata_names_none_only_where_there_are_public_clients(
    settings: Settings, store: SessionStore, wechat: FakeWeChat
) -> None:
    def methods(**more: Any) -> list[str]:
        client = worker(settings, store, wechat, **more)
        body = client.get("/.well-known/oauth-authorization-server").get_json()
        return sorted(body["token_endpoint_auth_methods_supported"])

    assert methods(public_clients={}) == ["client_secret_basic", "client_secret_post"]
    assert methods(clients={}) == ["none"]


# --- Redis is down


class Outage:
    """A service over a fake Redis that can be stopped."""

    def __init__(self, settings: Settings) -> None:
        self._server = fakeredis.FakeServer()
        raw = fakeredis.FakeRedis(server=self._server, protocol=2)
        self._redis = RedisClient(lambda: raw)
        ring, policy = KeyRing([Secret(RING_KEY)]), SessionPolicy(604800, 2592000, 10)
        self.store = SessionStore(self._redis, ring, policy, Clock())
        self.wechat = FakeWeChat(settings.apps)
        self.client = worker(settings, self.store, self.wechat)
        self.phone = Phone(self.client, self.wechat).log_in(appid=APPID)
        self.website = Website(self.client)

    def during(self, request: Callable[[], TestResponse]) -> TestResponse:
        """Send a request while Redis is down."""
        self._server.connected = False
        response = request()
        self._server.connected = True
        self._redis.reset()
        return response


@pytest.fixture
def outage(settings: Settings) -> Outage:
    return Outage(settings)


def test_outage_is_temporarily_unavailable_at_token_and_uses_nothing(outage: Outage) -> None:
    asked = outage.website.ask()
    approve(outage.phone, asked)
    response = outage.during(lambda: outage.website.poll(asked["device_code"]))
    assert oauth(response) == (503, "temporarily_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert outage.website.poll(asked["device_code"]).status_code == 200


def test_outage_is_temporarily_unavailable_at_device_authorization(outage: Outage) -> None:
    for website in (outage.website, Website(outage.client, SITE, "")):
        response = outage.during(lambda it=website: it.post("/device_authorization", appid=APPID))  # type: ignore[misc]
        assert oauth(response) == (503, "temporarily_unavailable")
        assert int(response.headers["Retry-After"]) >= 1


def test_outage_does_not_hide_a_wrong_credential_or_request(outage: Outage) -> None:
    wrong = outage.during(lambda: outage.client.post("/token", headers={"Authorization": basic(DESK, "guess")}))
    assert oauth(wrong) == (401, "invalid_client")
    assert oauth(outage.during(lambda: outage.website.poll("nonsense"))) == (400, "invalid_grant")


def test_outage_is_store_unavailable_for_the_phone_and_the_image_and_answers_nothing(outage: Outage) -> None:
    asked = outage.website.ask()
    path, phone = f"/device/{asked['user_code']}", outage.phone
    requests: list[Callable[[], TestResponse]] = [
        lambda: phone.get(path),
        lambda: phone.post(path, {"approve": True}),
        lambda: phone.post(path, {"approve": False}),
        lambda: phone.client.get(f"{path}.png"),
        lambda: phone.post("/ticket"),
    ]
    for request in requests:
        response = outage.during(request)
        assert problem(response) == (503, "store_unavailable")
        assert response.headers["Retry-After"]
    assert oauth(outage.website.poll(asked["device_code"])) == (400, "authorization_pending")
    approve(phone, asked)


def test_outage_uses_no_ticket(outage: Outage) -> None:
    ticket = outage.phone.post("/ticket").get_json()["ticket"]
    refused = outage.during(lambda: outage.client.post("/login", json={"ticket": ticket}))
    assert problem(refused) == (503, "store_unavailable")
    assert outage.client.post("/login", json={"ticket": ticket}).status_code == 200


def test_outage_refuses_a_signature(outage: Outage) -> None:
    openid = outage.phone.get("/session").get_json()["openid"]
    path, headers = f"/users/{APPID}/{openid}/signature", {"Authorization": basic()}
    refused = outage.during(lambda: outage.client.post(path, json={"message": "x"}, headers=headers))
    assert problem(refused) == (503, "store_unavailable")


# --- In an application


def test_routes_below_a_prefix_are_404_without_clients(store: SessionStore, wechat: FakeWeChat) -> None:
    client = mounted(store, wechat, WXAUTH_PUBLIC_URL=f"{PUBLIC_URL}/auth").test_client()
    posts = ["/device_authorization", "/token", "/introspect", "/revoke", "/device/BCDF-GHJK"]
    gets = ["/device", "/device/BCDF-GHJK", "/device/BCDF-GHJK.png", "/.well-known/oauth-authorization-server"]
    found = [client.post(f"/auth{path}", data={"client_id": SITE}) for path in posts]
    found += [client.get(f"/auth{path}") for path in gets]
    assert [problem(response) for response in found] == [(404, "not_found")] * len(found)


@pytest.mark.parametrize(
    "names", [{"WXAUTH_CLIENTS": f"{DESK}!scan:{CLIENT_SECRET}"}, {"WXAUTH_PUBLIC_CLIENTS": SITE}]
)
def test_whole_way_below_a_prefix(store: SessionStore, wechat: FakeWeChat, names: dict[str, str]) -> None:
    config = {**names, "WXAUTH_PUBLIC_URL": f"{PUBLIC_URL}/auth"}
    client = mounted(store, wechat, **config).test_client()
    is_public = "WXAUTH_PUBLIC_CLIENTS" in names
    headers = {} if is_public else {"Authorization": basic(DESK)}
    form = {"client_id": SITE} if is_public else {}
    asked = client.post("/auth/device_authorization", data=form, headers=headers).get_json()
    assert asked["qr_code"] == f"{PUBLIC_URL}/auth/device/{asked['user_code']}.png"
    assert client.get(f"/auth/device/{asked['user_code']}.png").mimetype == "image/png"
    login = client.post("/auth/login", json={"code": wechat.wx_login("alice")}).get_json()["token"]
    answer = client.post(
        f"/auth/device/{asked['user_code']}", json={"approve": True}, headers={"Authorization": login}
    )
    assert answer.status_code == 204
    more = {"grant_type": GRANT_TYPE, "device_code": asked["device_code"], **form}
    token = client.post("/auth/token", data=more, headers=headers).get_json()["access_token"]
    assert client.get("/orders", headers={"Authorization": token}).status_code == 200
    assert oauth(client.post("/auth/token", data=more, headers=headers)) == (400, "invalid_grant")


def test_settings_of_the_application_name_scan_clients() -> None:
    settings = Settings.from_env(CONFIG | {"WXAUTH_CLIENTS": f"{DESK}@{APPID}!scan:{CLIENT_SECRET}"})
    client = settings.clients[DESK]
    assert (client.scan_only, client.appids, client.id) == (True, frozenset({APPID}), DESK)
