"""`/verify`: forward auth, decided by `Authorization` only. On both kinds of Redis."""

from __future__ import annotations

import io
import json
import logging
import string
from typing import Any

import hypothesis.strategies as st
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.conftest import ALICE, APPID, Phone
from tests.support.clients import problem, settings_with_clients
from tests.support.servers import free_port
from wxauth.logs import current_environ
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionStore
from wxauth.web.app import create_app
from wxauth.web.services import EXTENSION

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "X"]
#: Headers that other forward-auth services trusted.
TEMPTING = [
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Host",
    "X-Forwarded-For",
    "X-Original-URI",
    "X-Original-URL",
    "X-Original-Method",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-WX-AppID",
    "X-WX-OpenID",
    "X-WX-UnionID",
    "X_WX_OpenID",
    "X-Forwarded-User",
    "X-Access-Token",
    "Proxy-Authorization",
    "Authorization2",
    "Cookie",
    "User-Agent",
    "Host",
    "Connection",
    "Upgrade",
    "Expect",
    "Content-Type",
    "Content-Length",
    "Transfer-Encoding",
]
NAMES = st.sampled_from(TEMPTING) | st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1)
VALUES = st.text(st.characters(max_codepoint=0xFF))

Answer = tuple[str, list[tuple[str, str]], bytes]


@pytest.fixture
def token(store: SessionStore, alice: Identity) -> str:
    return store.create(alice)[0].reveal()


def verify(app: Flask, authorization: str | None, method: str = "GET", **more: Any) -> Answer:
    """Return the answer of `/verify` without its request_id. `more` goes into the WSGI environment."""
    environ = EnvironBuilder("/verify", method=method).get_environ() | more
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization
    chunks, status, headers = run_wsgi_app(app.wsgi_app, environ)
    body = b"".join(chunks)
    if body:
        body = json.dumps(json.loads(body) | {"request_id": None}).encode()
    return status, list(headers), body


def test_verify_returns_204_with_the_identity_of_the_token(app: Flask, token: str, alice: Identity) -> None:
    """The headers have the names of WeChat Cloud Run, and caches must not store the answer."""
    assert verify(app, f"Bearer {token}") == (
        "204 No Content",
        [
            ("X-WX-AppID", APPID),
            ("X-WX-OpenID", ALICE.openid),
            ("X-WX-UnionID", alice.unionid),
            ("Vary", "Authorization"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ],
        b"",
    )


def test_verify_sends_an_empty_unionid_header_if_there_is_none(app: Flask, store: SessionStore) -> None:
    """A proxy that copies it replaces the header of the caller."""
    token, _ = store.create(Identity(User(APPID, "oNOUNION"), Secret("k")))
    assert ("X-WX-UnionID", "") in verify(app, token.reveal())[1]


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "{}"])
def test_verify_accepts_bearer_and_bare_tokens(app: Flask, token: str, form: str) -> None:
    assert verify(app, form.format(token))[0] == "204 No Content"


@pytest.mark.parametrize(
    ("authorization", "code", "challenge"),
    [
        (None, "token_missing", 'Bearer realm="wxauth"'),
        ("", "token_missing", 'Bearer realm="wxauth"'),
        ("Bearer nonsense", "token_invalid", 'Bearer realm="wxauth", error="invalid_token"'),
        ("Bearer {}, Bearer {}", "token_invalid", 'Bearer realm="wxauth", error="invalid_token"'),
        ("Bearer {},Bearer {}", "token_invalid", 'Bearer realm="wxauth", error="invalid_token"'),
        ("Basic {}", "token_invalid", 'Bearer realm="wxauth", error="invalid_token"'),
        ("\xff", "token_invalid", 'Bearer realm="wxauth", error="invalid_token"'),
    ],
)
def test_verify_returns_401_without_identity_for_other_credentials(
    app: Flask, token: str, authorization: str | None, code: str, challenge: str
) -> None:
    """The problem is that of every other route."""
    status, headers, body = verify(app, authorization and authorization.replace("{}", token))
    assert (status, json.loads(body)["code"]) == ("401 UNAUTHORIZED", code)
    assert ("WWW-Authenticate", challenge) in headers
    assert not [name for name, _ in headers if name.startswith("X-WX-")]


def test_refusal_has_the_request_id_of_its_log_line(app: Flask, lines: io.StringIO) -> None:
    """The id ends with the request."""
    chunks, *_ = run_wsgi_app(app.wsgi_app, EnvironBuilder("/verify").get_environ())
    assert json.loads(b"".join(chunks))["request_id"] == json.loads(lines.getvalue())["request_id"]
    assert current_environ.get(None) is None


def test_verify_sends_each_header_once(app: Flask, token: str) -> None:
    """A proxy may take the first or the last."""
    for authorization in (token, "nonsense", None):
        names = [name for name, _ in verify(app, authorization)[1]]
        assert len(names) == len(set(names))


def test_verify_returns_401_after_logout(app: Flask, phone: Phone) -> None:
    phone.log_in()
    assert verify(app, phone.token)[0] == "204 No Content"
    phone.delete("/session")
    assert verify(app, phone.token)[0] == "401 UNAUTHORIZED"


@pytest.mark.parametrize("method", METHODS)
def test_verify_answers_every_method_alike(app: Flask, token: str, method: str) -> None:
    """A proxy may use the caller's method. Only HEAD has no body."""
    assert verify(app, token, method) == verify(app, token)
    status, headers, body = verify(app, None)
    assert verify(app, None, method) == (status, headers, b"" if method == "HEAD" else body)


PATHS_BELOW = [
    "/verify/",
    "/verify/verify",
    "/verify/orders/7",
    "/verify//orders",
    "/verify/../login",
    "/verify/\xff",
]


@pytest.mark.parametrize("path", PATHS_BELOW)
@pytest.mark.parametrize("method", METHODS)
def test_path_below_verify_returns_200_with_the_headers_of_verify(
    app: Flask, token: str, path: str, method: str
) -> None:
    """Envoy appends the path of the request, and takes no other status than 200."""
    _, headers, _ = verify(app, token, method)
    assert verify(app, token, method, PATH_INFO=path) == ("200 OK", [*headers, ("Content-Length", "0")], b"")


@pytest.mark.parametrize("path", PATHS_BELOW)
def test_path_below_verify_refuses_as_verify_does_and_is_not_logged(
    app: Flask, lines: io.StringIO, path: str
) -> None:
    for authorization in (None, "Bearer nonsense"):
        assert verify(app, authorization, PATH_INFO=path) == verify(app, authorization)
    logged = [json.loads(line)["route"] for line in lines.getvalue().splitlines()]
    assert logged == ["/verify"] * 4


@pytest.mark.parametrize("path", ["/verify", *PATHS_BELOW])
def test_answer_from_the_cache_is_the_same(
    app: Flask, store: SessionStore, token: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [verify(app, authorization, PATH_INFO=path) for authorization in (token, f"Bearer {token}")]
    cache = app.extensions[EXTENSION].cache
    monkeypatch.setattr(cache, "find", {token: store.resolve(token)}.get)
    monkeypatch.setattr(cache, "resolve", pytest.fail)
    assert [verify(app, authorization, PATH_INFO=path) for authorization in (token, f"Bearer {token}")] == answers


@pytest.mark.parametrize("path", ["//verify", "//verify/x", "/Verify", "/verifyx", "/x/verify", "/verify%00"])
def test_other_spelling_of_the_path_returns_404(client: FlaskClient, token: str, path: str) -> None:
    response = client.get(path, headers={"Authorization": token})
    assert problem(response) == (404, "not_found")


def name_in_wsgi(name: str) -> str:
    bare = name.upper().replace("-", "_")
    return bare if bare in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{bare}"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(headers=st.dictionaries(NAMES.map(name_in_wsgi), VALUES), query=VALUES, method=st.sampled_from(METHODS[2:]))
def test_other_headers_query_and_method_change_nothing(
    app: Flask, token: str, headers: dict[str, str], query: str, method: str
) -> None:
    more = {name: value for name, value in headers.items() if name != "HTTP_AUTHORIZATION"}
    for authorization in (token, "Bearer nonsense", None):
        assert verify(app, authorization, method, QUERY_STRING=query, **more) == verify(app, authorization)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=NAMES.map(name_in_wsgi), form=st.sampled_from(["{}", "Bearer {}", "access_token={}", "token={}; a=b"]))
def test_token_in_another_header_query_or_cookie_returns_401(app: Flask, token: str, name: str, form: str) -> None:
    text = form.replace("{}", token)
    more = {"QUERY_STRING": text, "HTTP_COOKIE": text} | ({} if name == "HTTP_AUTHORIZATION" else {name: text})
    assert verify(app, None, **more) == verify(app, None)


def test_verify_does_not_read_the_body(client: FlaskClient, token: str) -> None:
    for body in ({"token": token}, {"access_token": token}):
        assert problem(client.post("/verify", data=body)) == (401, "token_missing")
        assert client.post("/verify", data=body, headers={"Authorization": token}).status_code == 204


def test_outage_returns_503_and_logs_the_reason(token: str, caplog: pytest.LogCaptureFixture) -> None:
    without_redis = create_app(settings_with_clients(free_port()))
    status, headers, body = verify(without_redis, token)
    assert (status, json.loads(body)["code"]) == ("503 SERVICE UNAVAILABLE", "store_unavailable")
    assert ("Retry-After", "1") in headers
    events = [record for record in caplog.records if record.message == "store_unavailable"]
    assert [(event.levelno, event.__dict__["reason"]) for event in events] == [(logging.WARNING, "unreachable")]


def test_forged_token_returns_401_while_redis_is_down(token: str) -> None:
    """The signature is checked without Redis."""
    without_redis = create_app(settings_with_clients(free_port()))
    assert verify(without_redis, f"{token[:-8]}AAAAAAAA")[0] == "401 UNAUTHORIZED"
