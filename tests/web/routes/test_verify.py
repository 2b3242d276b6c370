"""`/verify`: forward-auth as a function of `Authorization` alone, on both kinds of Redis."""

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

from tests.clients import problem, settings_with_clients
from tests.conftest import ALICE, APPID, Phone
from tests.servers import free_port
from wxauth.logs import answering
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionStore
from wxauth.web.app import create_app

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "X"]
#: Headers that others' forward-auth has believed.
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
    """What `/verify` answers, less the request_id, which is never the same; `more` goes into the WSGI environment."""
    environ = EnvironBuilder("/verify", method=method).get_environ() | more
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization
    chunks, status, headers = run_wsgi_app(app.wsgi_app, environ)
    body = b"".join(chunks)
    if body:
        body = json.dumps(json.loads(body) | {"request_id": None}).encode()
    return status, list(headers), body


def test_a_live_token_gives_its_identity(app: Flask, token: str, alice: Identity) -> None:
    """204 without a body, the three names of WeChat Cloud Run, and nothing that a cache could keep."""
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


def test_all_three_headers_are_there_without_a_unionid(app: Flask, store: SessionStore) -> None:
    """Empty, so that a proxy which copies them overwrites what a caller has sent."""
    token, _ = store.create(Identity(User(APPID, "oNOUNION"), Secret("k")))
    assert ("X-WX-UnionID", "") in verify(app, token.reveal())[1]


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "{}"])
def test_the_token_is_taken_as_everywhere(app: Flask, token: str, form: str) -> None:
    """With the word Bearer or bare."""
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
def test_no_live_token_is_a_401(app: Flask, token: str, authorization: str | None, code: str, challenge: str) -> None:
    """The same problem as from any other route, with its challenge and without any identity."""
    status, headers, body = verify(app, authorization and authorization.replace("{}", token))
    assert (status, json.loads(body)["code"]) == ("401 Unauthorized", code)
    assert ("WWW-Authenticate", challenge) in headers
    assert not [name for name, _ in headers if name.startswith("X-WX-")]


def test_a_refusal_names_the_request_of_its_line(app: Flask, lines: io.StringIO) -> None:
    """The problem has the id of the line, and what the thread does next is not done for that request."""
    chunks, *_ = run_wsgi_app(app.wsgi_app, EnvironBuilder("/verify").get_environ())
    assert json.loads(b"".join(chunks))["request_id"] == json.loads(lines.getvalue())["request_id"]
    assert answering.get() is None


def test_each_header_of_an_answer_is_there_once(app: Flask, token: str) -> None:
    """A proxy may take the first or the last."""
    for authorization in (token, "nonsense", None):
        names = [name for name, _ in verify(app, authorization)[1]]
        assert len(names) == len(set(names))


def test_a_logout_holds_here_too(app: Flask, phone: Phone) -> None:
    """From the moment it was confirmed."""
    phone.log_in()
    assert verify(app, phone.token)[0] == "204 No Content"
    phone.delete("/session")
    assert verify(app, phone.token)[0] == "401 Unauthorized"


@pytest.mark.parametrize("method", METHODS)
def test_any_method_will_do(app: Flask, token: str, method: str) -> None:
    """The proxy may ask with the caller's own; only HEAD has no body."""
    assert verify(app, token, method) == verify(app, token)
    status, headers, body = verify(app, None)
    assert verify(app, None, method) == (status, headers, b"" if method == "HEAD" else body)


@pytest.mark.parametrize("path", ["//verify", "/verify/", "/Verify", "/verify/x", "/x/verify", "/verify%00"])
def test_only_its_own_path_is_answered(client: FlaskClient, token: str, path: str) -> None:
    """Whatever is spelled otherwise is nobody's."""
    response = client.get(path, headers={"Authorization": token})
    assert problem(response) == (404, "not_found")


def name_in_wsgi(name: str) -> str:
    bare = name.upper().replace("-", "_")
    return bare if bare in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{bare}"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(headers=st.dictionaries(NAMES.map(name_in_wsgi), VALUES), query=VALUES, method=st.sampled_from(METHODS[2:]))
def test_nothing_but_authorization_changes_the_answer(
    app: Flask, token: str, headers: dict[str, str], query: str, method: str
) -> None:
    """Whatever other headers say, whatever they are called, whatever the query and the method are."""
    more = {name: value for name, value in headers.items() if name != "HTTP_AUTHORIZATION"}
    for authorization in (token, "Bearer nonsense", None):
        assert verify(app, authorization, method, QUERY_STRING=query, **more) == verify(app, authorization)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=NAMES.map(name_in_wsgi), form=st.sampled_from(["{}", "Bearer {}", "access_token={}", "token={}; a=b"]))
def test_a_token_elsewhere_does_not_pass(app: Flask, token: str, name: str, form: str) -> None:
    """Not in any other header, nor in the query, nor in a cookie."""
    text = form.replace("{}", token)
    more = {"QUERY_STRING": text, "HTTP_COOKIE": text} | ({} if name == "HTTP_AUTHORIZATION" else {name: text})
    assert verify(app, None, **more) == verify(app, None)


def test_a_body_changes_nothing(client: FlaskClient, token: str) -> None:
    """It is not even read."""
    for body in ({"token": token}, {"access_token": token}):
        assert problem(client.post("/verify", data=body)) == (401, "token_missing")
        assert client.post("/verify", data=body, headers={"Authorization": token}).status_code == 204


def test_an_outage_is_no_401(token: str, caplog: pytest.LogCaptureFixture) -> None:
    """503 with Retry-After for a live token; and the log says what to do."""
    dark = create_app(settings_with_clients(free_port()))
    status, headers, body = verify(dark, token)
    assert (status, json.loads(body)["code"]) == ("503 Service Unavailable", "store_unavailable")
    assert ("Retry-After", "1") in headers
    events = [record for record in caplog.records if record.message == "store_unavailable"]
    assert [(event.levelno, event.__dict__["reason"]) for event in events] == [(logging.WARNING, "unreachable")]


def test_a_forged_token_is_refused_in_an_outage_too(token: str) -> None:
    """Its signature tells it; nobody has to be asked."""
    dark = create_app(settings_with_clients(free_port()))
    assert verify(dark, f"{token[:-8]}AAAAAAAA")[0] == "401 Unauthorized"
