"""What tracers and error reports get. tests/deploy/test_tracing.py runs OpenTelemetry and Sentry themselves."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from typing import Any

import pytest
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from tests.conftest import APPID
from tests.support.service import ROOT
from wxauth.models import Identity
from wxauth.sessions.store import SessionStore
from wxauth.web.middleware.body_buffer import REFUSED
from wxauth.web.services import EXTENSION
from wxauth.web.tracing import hide_variables

#: Neither package is installed.
WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("sentry_sdk", "opentelemetry"))
from flask import Flask
from wxauth import WxAuth
from wxauth.testing import Sandbox
WxAuth(app := Flask("shop"), url_prefix="/auth")
print(Sandbox(app).client("alice").get("/auth/session").status)
"""


def event_of(*modules: str | None, part: str = "exception") -> dict[str, Any]:
    """Return an error report with these calls, the outermost first. Each function has a variable."""
    frames = [{"module": module, "vars": {"it": "secret"}} for module in modules]
    return {part: {"values": [{"stacktrace": {"frames": frames}}]}}


def kept(event: dict[str, Any]) -> list[bool]:
    """Say for each function whether it still has its variables."""
    (part,) = event.values()
    return ["vars" in frame for frame in part["values"][0]["stacktrace"]["frames"]]


@pytest.mark.parametrize("part", ["exception", "threads"])
def test_functions_of_wxauth_and_those_that_they_call_lose_their_variables(part: str) -> None:
    event = event_of("flask.app", "shop.views", "wxauth.web.actions", "urllib3.connection", "http.client", part=part)
    assert kept(hide_variables(event)) == [False, True, False, False, False]


def test_a_guarded_view_keeps_its_variables() -> None:
    event = event_of("flask.app", "wxauth.web.guard", "shop.views", "shop.models", None)
    assert kept(hide_variables(event)) == [False, False, True, True, True]


@pytest.mark.parametrize("modules", [("flask.app", "shop.views"), ("wxauthentication.views",), (None,), ()])
def test_an_error_without_a_function_of_wxauth_is_not_changed(modules: tuple[str | None, ...]) -> None:
    event = event_of(*modules)
    assert hide_variables(copy.deepcopy(event)) == event


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"exception": None},
        {"exception": {}},
        {"exception": {"values": [{}, {"stacktrace": None}]}},
        {"spans": []},
    ],
)
def test_an_event_without_frames_is_not_changed(event: dict[str, Any]) -> None:
    assert hide_variables(copy.deepcopy(event)) == event


#: What a middleware of OpenTelemetry around the service notes before the service sees the request.
SECRET_PATH = "/users/oALICE?token=secret"
NOTED = {
    "http.target": SECRET_PATH,
    "http.url": f"http://localhost{SECRET_PATH}",
    "url.full": f"http://localhost{SECRET_PATH}",
    "url.path": "/users/oALICE",
    "url.query": "token=secret",
}


def span_of(
    client: FlaskClient, path: str, attributes: dict[str, str], headers: dict[str, str] | None = None
) -> ReadableSpan:
    """Send a request within a span."""
    with TracerProvider().get_tracer("tests").start_as_current_span(path, attributes=attributes) as span:
        client.get(path, headers=headers)
    assert isinstance(span, ReadableSpan)
    return span


@pytest.mark.parametrize(
    ("path", "route"), [(f"/verify{SECRET_PATH}", "/"), (f"/none{SECRET_PATH}", "/"), ("/session", "/session")]
)
def test_a_span_has_the_route_in_place_of_the_path(client: FlaskClient, path: str, route: str) -> None:
    """Also if Flask does not answer, as for /verify."""
    span = span_of(client, path, NOTED)
    url = f"http://localhost{route}"
    safe = {"http.target": route, "http.url": url, "url.full": url, "url.path": route, "url.query": ""}
    assert (span.name, span.attributes) == (f"GET {route}", safe)


def test_a_span_of_an_answer_from_the_cache_has_no_path(
    client: FlaskClient, store: SessionStore, alice: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.resolve(store.create(alice)[0].reveal())
    monkeypatch.setattr(client.application.extensions[EXTENSION].cache, "find", lambda _: session)
    span = span_of(client, f"/verify{SECRET_PATH}", NOTED, {"Authorization": "token"})
    assert (span.name, (span.attributes or {})["url.path"]) == ("GET /", "/")


def test_a_span_gets_no_attribute_that_it_did_not_have(client: FlaskClient) -> None:
    assert span_of(client, "/session", {"other": "a"}).attributes == {"other": "a"}


def test_a_span_of_flask_has_the_route_also_if_the_body_was_refused(client: FlaskClient) -> None:
    """OpenTelemetry's span of Flask begins behind the middleware."""
    app, tracer = client.application, TracerProvider().get_tracer("tests")
    path = f"/users/{APPID}/oALICE/ban?token=secret"
    with (
        app.test_request_context(path, method="PUT", environ_base={REFUSED: True}),
        tracer.start_as_current_span("PUT", attributes=NOTED) as span,
    ):
        assert app.full_dispatch_request().status_code == 503
    assert isinstance(span, ReadableSpan)
    assert span.attributes["url.path"] == "/users/<appid>/<openid>/ban"  # type: ignore[index]
    assert not {"oALICE", "secret"} & set(re.findall(r"\w+", f"{span.name} {span.attributes}"))


def test_an_application_needs_neither_package() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("200 OK\n", "")
