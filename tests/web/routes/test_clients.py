"""The routes for the operator's backends: who may use them, and what they answer. On both kinds of Redis."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import APPID, Phone
from tests.support.clients import (
    BACKEND,
    CLIENT_SECRET,
    LIMITED,
    SECOND,
    ask,
    basic,
    post,
    problem,
    settings_with_clients,
)
from tests.support.servers import free_port
from wxauth.clock import Clock
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.app import create_app

FORM = "application/x-www-form-urlencoded"
NOT_ALIVE = b'{"active":false}\n'


@pytest.fixture
def settings() -> Settings:
    return settings_with_clients()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID, device="iPhone")


GUARDED = {
    "introspect": ("POST", "/introspect"),
    "revoke": ("POST", "/revoke"),
    "list": ("GET", f"/users/{APPID}/o/sessions"),
    "end all": ("DELETE", f"/users/{APPID}/o/sessions"),
    "ban": ("PUT", f"/users/{APPID}/o/ban"),
    "unban": ("DELETE", f"/users/{APPID}/o/ban"),
    "metrics": ("GET", "/metrics"),
}

WRONG = {
    "missing": None,
    "empty": "",
    "wrong secret": basic(secret="guess"),
    "no secret": basic(secret=""),
    "unknown id": basic("nobody"),
    "unknown id, no secret": basic("nobody", ""),
    "no id": basic(""),
    "in clear": f"Basic {BACKEND}:{CLIENT_SECRET}",
    "another scheme": basic().replace("Basic", "Bearer"),
    "not base64": "Basic %%%",
    "not UTF-8": "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    "not ASCII": "Basic \xe9\xe9\xe9\xe9",
    "no colon": "Basic " + base64.b64encode(BACKEND.encode()).decode(),
    "twice": f"{basic()}, {basic()}",
    "something behind": f"{basic()} x",
    "the id with its app": basic(f"{LIMITED}@{SECOND}"),
}


@pytest.mark.parametrize("authorization", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize(("method", "path"), GUARDED.values(), ids=GUARDED.keys())
def test_wrong_credential_returns_client_unauthorized(
    client: FlaskClient, method: str, path: str, authorization: str | None
) -> None:
    """All wrong credentials get the same 401 with a Basic challenge."""
    response = client.open(path, method=method, headers={"Authorization": authorization} if authorization else {})
    assert problem(response) == (401, "client_unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="wxauth"'


@pytest.mark.parametrize(("method", "path"), GUARDED.values(), ids=GUARDED.keys())
def test_token_of_a_user_is_no_client_credential(phone: Phone, method: str, path: str) -> None:
    """Neither as a bearer token nor as id or secret."""
    for authorization in (f"Bearer {phone.token}", phone.token, basic(phone.token, ""), basic(BACKEND, phone.token)):
        assert problem(ask(phone.client, method, path, authorization)) == (401, "client_unauthorized")


@pytest.mark.parametrize(
    "credential", [basic(), f"Bearer {CLIENT_SECRET}", CLIENT_SECRET, f"{BACKEND}:{CLIENT_SECRET}"]
)
def test_credential_of_a_client_is_no_token(client: FlaskClient, credential: str) -> None:
    """Routes for users refuse it, and introspection answers inactive."""
    for path in ("/session", "/verify"):
        response = client.get(path, headers={"Authorization": credential})
        assert problem(response) == (401, "token_invalid")
    assert post(client, "/introspect", credential).data == NOT_ALIVE


def test_scheme_basic_is_accepted_in_any_case(phone: Phone) -> None:
    """RFC 9110 makes schemes case-insensitive."""
    for scheme in ("basic", "BASIC"):
        assert post(phone.client, "/introspect", phone.token, basic().replace("Basic", scheme)).get_json()["active"]


def test_introspect_returns_exactly_the_members_of_the_contract(phone: Phone) -> None:
    """The times are whole seconds."""
    session = phone.get("/session").get_json()
    body = post(phone.client, "/introspect", phone.token).get_json()
    assert body == {
        "active": True,
        "sub": session["openid"],
        "client_id": APPID,
        "token_type": "Bearer",
        "iat": session["created_at"],
        "exp": body["exp"],
        "unionid": session["unionid"],
    }
    assert type(body["iat"]) is int
    assert type(body["exp"]) is int
    assert 0 <= body["exp"] - time.time() - session["expires_in"] + 1 <= 3


def test_introspect_omits_unionid_if_there_is_none(client: FlaskClient, store: SessionStore, alice: Any) -> None:
    """Omitted, not null."""
    token, _ = store.create(type(alice)(alice.user, alice.session_key))
    body = post(client, "/introspect", token.reveal()).get_json()
    assert set(body) == {"active", "sub", "client_id", "token_type", "iat", "exp"}


def test_introspect_extends_the_idle_time(phone: Phone, clock: Clock) -> None:
    """A backend asks because its user is active."""
    for _ in range(3):
        clock.advance(500000)
        assert post(phone.client, "/introspect", phone.token).get_json()["active"]


def test_introspect_answers_all_dead_tokens_with_the_same_bytes(phone: Phone, clock: Clock) -> None:
    expired = phone.token
    clock.advance(604801)
    phone.token = ""
    revoked = phone.log_in(appid=APPID).token
    phone.delete("/session")
    forged = f"{revoked[:-8]}AAAAAAAA"
    dead = [
        expired,
        revoked,
        forged,
        "",
        " ",
        "wxa_",
        "x" * 8192,
        "\0",
        "a\r\nb",
        "代码",
        f"Bearer {revoked}",
        "null",
    ]
    assert {post(phone.client, "/introspect", token).data for token in dead} == {NOT_ALIVE}


def test_limited_client_sees_and_ends_no_session_of_another_app(phone: Phone) -> None:
    """Introspection answers inactive and revocation 200, and the session stays live."""
    assert post(phone.client, "/introspect", phone.token, basic(LIMITED)).data == NOT_ALIVE
    assert post(phone.client, "/revoke", phone.token, basic(LIMITED)).status_code == 200
    assert phone.get("/session").status_code == 200


def test_limited_client_does_not_extend_a_session_of_another_app(phone: Phone, clock: Clock) -> None:
    for _ in range(2):
        clock.advance(300000)
        assert post(phone.client, "/introspect", phone.token, basic(LIMITED)).data == NOT_ALIVE
    clock.advance(5000)
    assert phone.get("/session").status_code == 401


def test_limited_client_extends_a_session_of_its_app(client: FlaskClient, wechat: FakeWeChat, clock: Clock) -> None:
    phone = Phone(client, wechat).log_in(appid=SECOND)
    for _ in range(3):
        clock.advance(500000)
        assert post(client, "/introspect", phone.token, basic(LIMITED)).get_json()["active"]


def test_limited_client_may_use_every_route_for_its_app(client: FlaskClient, wechat: FakeWeChat) -> None:
    phone = Phone(client, wechat).log_in(appid=SECOND)
    body = post(client, "/introspect", phone.token, basic(LIMITED)).get_json()
    assert body["client_id"] == SECOND
    assert ask(client, "GET", f"/users/{SECOND}/{body['sub']}/sessions", basic(LIMITED)).get_json()["sessions"]
    post(client, "/revoke", phone.token, basic(LIMITED))
    assert phone.get("/session").status_code == 401


def test_revoke_ends_the_session_and_can_be_repeated(phone: Phone) -> None:
    for _ in range(2):
        response = post(phone.client, "/revoke", phone.token)
        assert (response.status_code, response.data) == (200, b"")
    assert phone.get("/session").status_code == 401


@pytest.mark.parametrize("token", ["", "nonsense", "wxa_" + "a" * 91])
def test_revoke_of_an_invalid_token_returns_200(client: FlaskClient, token: str) -> None:
    """RFC 7009, section 2.2."""
    assert post(client, "/revoke", token).status_code == 200


BAD_BODIES: dict[str, tuple[bytes, str, int, str]] = {
    "empty": (b"", FORM, 400, "bad_request"),
    "no token": (b"tokem=a", FORM, 400, "bad_request"),
    "twice": (b"token=a&token=a", FORM, 400, "bad_request"),
    "twice, encoded": (b"token=a&%74oken=b", FORM, 400, "bad_request"),
    "not UTF-8": (b"token=\xff", FORM, 400, "bad_request"),
    "1000 fields": (b"a=b&" * 1000 + b"token=a", FORM, 400, "bad_request"),
    "too large": (b"token=" + b"a" * 17000, FORM, 413, "too_large"),
    "JSON": (b'{"token": "a"}', "application/json", 415, "unsupported_media_type"),
    "multipart": (b"--x--", "multipart/form-data; boundary=x", 415, "unsupported_media_type"),
    "untyped": (b"token=a", "", 415, "unsupported_media_type"),
}


@pytest.mark.parametrize(("body", "kind", "status", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
def test_body_that_is_no_form_with_one_token_is_refused(
    client: FlaskClient, path: str, body: bytes, kind: str, status: int, code: str
) -> None:
    """An inactive token would hide the bug of the caller."""
    response = client.post(path, data=body, content_type=kind, headers={"Authorization": basic()})
    assert problem(response) == (status, code)


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
def test_token_in_the_query_string_is_ignored(phone: Phone, path: str) -> None:
    assert problem(ask(phone.client, "POST", f"{path}?token={phone.token}"))[0] in (400, 415)
    assert phone.get("/session").status_code == 200


def test_outage_returns_503_from_every_route(phone: Phone) -> None:
    """A backend that got {"active": false} would log its user out."""
    without_redis = create_app(settings_with_clients(free_port())).test_client()
    answers = [post(without_redis, "/introspect", phone.token), post(without_redis, "/revoke", phone.token)]
    answers += [ask(without_redis, method, path) for method, path in GUARDED.values() if path.startswith("/users")]
    assert {problem(response) for response in answers} == {(503, "store_unavailable")}
    assert all(response.headers["Retry-After"] for response in answers)
