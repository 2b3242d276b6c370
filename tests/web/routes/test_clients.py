"""The routes for the operator's backends: who may use them, and what they answer. On both kinds of Redis."""

from __future__ import annotations

import base64
import dataclasses
import logging
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

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
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Client, Settings
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
    """All wrong credentials get the same 401 with a Basic challenge and the code of RFC 6749."""
    response = client.open(path, method=method, headers={"Authorization": authorization} if authorization else {})
    assert problem(response) == (401, "client_unauthorized")
    assert response.get_json()["error"] == "invalid_client"
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


#: Its form-urlencoded spelling differs. openid-client 6 encodes `-`, `.` and `_` too.
ODD_ID, ODD_SECRET = "odd_shop.v-2", "p+q%41 r:s/ä-secret~of*30(chars)"


def encoded(text: str) -> str:
    return "".join(char if char.isalnum() and char.isascii() else quote(char, safe="") for char in text)


def open_id_client(text: str) -> str:
    """Encode as openid-client 6 does."""
    return "".join(f"%{ord(char):02X}" if char in "-_.!~*'()" else quote_plus(char, safe="") for char in text)


@pytest.fixture
def odd(settings: Settings, store: SessionStore, phone: Phone) -> FlaskClient:
    """The service with a client whose id and secret have special characters. `phone` is logged in there too."""
    clients = {**settings.clients, ODD_ID: Client(Secret(ODD_SECRET), None)}
    return create_app(dataclasses.replace(settings, clients=clients), store=store).test_client()


CREDENTIALS: dict[str, tuple[str, str]] = {
    "raw": (ODD_ID, ODD_SECRET),
    "form-urlencoded": (quote_plus(ODD_ID), quote_plus(ODD_SECRET)),
    "as openid-client": (open_id_client(ODD_ID), open_id_client(ODD_SECRET)),
    "percent-encoded": (encoded(ODD_ID), encoded(ODD_SECRET)),
    "only the secret encoded": (ODD_ID, quote(ODD_SECRET, safe="")),
}


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_basic_is_accepted_raw_and_form_urlencoded(
    odd: FlaskClient, phone: Phone, credential: tuple[str, str]
) -> None:
    """RFC 6749, section 2.3.1, and what most clients send."""
    assert post(odd, "/introspect", phone.token, basic(*credential)).get_json()["active"]
    wrong = basic(credential[0], credential[1][:-1] + "x")
    assert problem(post(odd, "/introspect", phone.token, wrong)) == (401, "client_unauthorized")


def send_form(
    client: FlaskClient, token: str, fields: dict[str, str | list[str]], authorization: str | None = None
) -> TestResponse:
    headers = {"Authorization": authorization} if authorization else {}
    return client.post("/introspect", data={"token": token, **fields}, headers=headers)


OURS: dict[str, str | list[str]] = {"client_id": BACKEND, "client_secret": CLIENT_SECRET}
PROVEN: dict[str, tuple[dict[str, str | list[str]], str | None]] = {
    "in the form": (OURS, None),
    "in both": (OURS, basic()),
    "the id in both": ({"client_id": BACKEND}, basic()),
    "the same twice in the form": ({name: [str(text)] * 2 for name, text in OURS.items()}, None),
    "in the form, beside a bearer token": (OURS, "Bearer of-another-user"),
}


@pytest.mark.parametrize(("fields", "authorization"), PROVEN.values(), ids=PROVEN.keys())
def test_credential_in_the_form_is_accepted(
    phone: Phone, fields: dict[str, str | list[str]], authorization: str | None
) -> None:
    assert send_form(phone.client, phone.token, fields, authorization).get_json()["active"]


def test_form_with_special_characters_is_accepted(odd: FlaskClient, phone: Phone) -> None:
    assert send_form(odd, phone.token, {"client_id": ODD_ID, "client_secret": ODD_SECRET}).get_json()["active"]


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
def test_limited_client_in_the_form_stays_limited(phone: Phone, path: str) -> None:
    fields = {"token": phone.token, "client_id": LIMITED, "client_secret": CLIENT_SECRET}
    assert phone.client.post(path, data=fields).get_json() == ({"active": False} if path == "/introspect" else {})
    assert phone.get("/session").status_code == 200


UNPROVEN: dict[str, tuple[dict[str, str | list[str]], str | None]] = {
    "wrong secret": ({"client_id": BACKEND, "client_secret": "guess"}, None),
    "no secret": ({"client_id": BACKEND}, None),
    "empty secret": ({"client_id": BACKEND, "client_secret": ""}, None),
    "no id": ({"client_secret": CLIENT_SECRET}, None),
    "unknown id": ({"client_id": "nobody", "client_secret": CLIENT_SECRET}, None),
    "unknown id, empty secret": ({"client_id": "nobody", "client_secret": ""}, None),
    "encoded twice": ({"client_id": ODD_ID, "client_secret": quote_plus(ODD_SECRET)}, None),
    "right and wrong secret": ({"client_id": BACKEND, "client_secret": [CLIENT_SECRET, "guess"]}, None),
    "wrong secret beside right Basic": ({"client_id": BACKEND, "client_secret": "guess"}, basic()),
    "right secret beside wrong Basic": (OURS, basic(secret="guess")),
}


@pytest.mark.parametrize(("fields", "authorization"), UNPROVEN.values(), ids=UNPROVEN.keys())
def test_wrong_credential_in_the_form_returns_client_unauthorized(
    odd: FlaskClient, phone: Phone, fields: dict[str, str | list[str]], authorization: str | None
) -> None:
    """Each credential of the request must be right."""
    response = send_form(odd, phone.token, fields, authorization)
    assert problem(response) == (401, "client_unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="wxauth"'


CONFLICTS: dict[str, tuple[dict[str, str | list[str]], str | None]] = {
    "Basic and the form": ({"client_id": LIMITED, "client_secret": CLIENT_SECRET}, basic()),
    "Basic and an id": ({"client_id": LIMITED}, basic()),
    "an unknown id": ({"client_id": "nobody"}, basic()),
    "two in the form": ({"client_id": [BACKEND, LIMITED], "client_secret": CLIENT_SECRET}, None),
    "malformed Basic": (OURS, "Basic %%%"),
}


@pytest.mark.parametrize(("fields", "authorization"), CONFLICTS.values(), ids=CONFLICTS.keys())
def test_two_clients_in_one_request_return_invalid_request(
    phone: Phone, fields: dict[str, str | list[str]], authorization: str | None
) -> None:
    """Whether or not both are proven: the answer tells nothing about them."""
    response = send_form(phone.client, phone.token, fields, authorization)
    assert problem(response) == (400, "bad_request")
    assert response.get_json()["error"] == "invalid_request"


def test_client_secret_in_the_query_or_in_json_is_no_credential(phone: Phone) -> None:
    query = f"client_id={BACKEND}&client_secret={CLIENT_SECRET}"
    for response in (
        phone.client.get(f"/metrics?{query}"),
        phone.client.post(f"/introspect?{query}", data={"token": phone.token}),
        phone.client.post("/introspect", json={"token": phone.token, **OURS}),
    ):
        assert problem(response) == (401, "client_unauthorized")


def test_failed_login_of_a_client_is_a_warning(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """The line of the access log is the warning, so that a flood writes one line for each request."""
    caplog.set_level(logging.INFO)
    post(client, "/introspect", "a", basic(secret="guess"))
    post(client, "/introspect", "a")
    lines = [(record.levelname, vars(record).get("problem")) for record in caplog.records if record.msg == "request"]
    assert lines == [("WARNING", "client_unauthorized"), ("INFO", None)]


def test_log_contains_no_secret_of_a_form(phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of an accepted nor of a refused one, nor the id."""
    caplog.set_level(logging.DEBUG)
    send_form(phone.client, phone.token, OURS)
    send_form(phone.client, phone.token, {"client_id": "planted-id", "client_secret": "planted-guess"})
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "client_unauthorized" in logged
    assert [text for text in (CLIENT_SECRET, "planted-id", "planted-guess") if text in logged] == []


def test_introspect_returns_exactly_the_members_of_the_contract(phone: Phone) -> None:
    """The times are whole seconds."""
    session = phone.get("/session").get_json()
    body = post(phone.client, "/introspect", phone.token).get_json()
    assert body == {
        "active": True,
        "sub": session["openid"],
        "username": session["openid"],
        "client_id": APPID,
        "scope": "",
        "token_type": "Bearer",
        "iat": session["created_at"],
        "exp": body["exp"],
        "unionid": session["unionid"],
    }
    assert type(body["iat"]) is int
    assert type(body["exp"]) is int
    # Both are rounded down, and the second may have passed in between.
    assert -1 <= body["exp"] - int(time.time()) - session["expires_in"] <= 1


def test_introspect_omits_unionid_if_there_is_none(client: FlaskClient, store: SessionStore, alice: Any) -> None:
    """Omitted, not null."""
    token, _ = store.create(type(alice)(alice.user, alice.session_key))
    body = post(client, "/introspect", token.reveal()).get_json()
    assert set(body) == {"active", "sub", "username", "client_id", "scope", "token_type", "iat", "exp"}


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
        assert (response.status_code, response.data, response.content_type) == (200, b"{}\n", "application/json")
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
