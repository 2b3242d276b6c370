"""Tokens of nobody's signature end in front of Flask, and nobody could tell from the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from tests.conftest import Phone
from wxauth.errors import TokenInvalid
from wxauth.sandbox import create_app
from wxauth.sessions.cache import SessionCache
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.middleware import Forgeries

GUARDED = [(method, path) for method in ("GET", "HEAD", "DELETE") for path in ("/session", "/sessions?keep=current")]
FORGED = f"wxa_{'A' * 47}.{'A' * 43}"


class Inner:
    """What stands behind: it notes that it was asked."""

    asked = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.asked = True
        start_response("200 OK", [])
        return []


def reaches_flask(app: Flask, method: str, target: str, authorization: str | None) -> bool:
    inner = Inner()
    headers = [] if authorization is None else [("Authorization", authorization)]
    environ = EnvironBuilder(target, method=method, headers=headers).get_environ()
    run_wsgi_app(Forgeries(inner, app.extensions["wxauth"].cache), environ)
    return inner.asked


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("text", [FORGED, f"Bearer {FORGED}", "Bearer nonsense", "Basic YTpi", "Bearer", "\xff"])
def test_what_nobody_here_signed_ends_in_front(app: Flask, method: str, path: str, text: str) -> None:
    """Whatever stands in Authorization."""
    assert not reaches_flask(app, method, path, text)


ELSEWHERE = [
    ("POST", "/session"),
    ("OPTIONS", "/session"),
    ("GET", "/session?access_token=a"),
    ("DELETE", "/sessions/a"),
    ("POST", "/login"),
    ("GET", "/nowhere"),
    ("GET", "//session"),
]


@pytest.mark.parametrize(("method", "target"), ELSEWHERE)
def test_elsewhere_flask_has_to_be_asked(app: Flask, method: str, target: str) -> None:
    """There something else is looked at first, the token does not matter, or a parameter stands in the path."""
    assert reaches_flask(app, method, target, FORGED)


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_what_we_signed_and_no_token_at_all_go_on(app: Flask, phone: Phone, method: str, path: str) -> None:
    """Alive or not: only Redis knows that."""
    phone.log_in()
    assert reaches_flask(app, method, path, phone.headers["Authorization"])
    phone.delete("/session")
    assert reaches_flask(app, method, path, phone.headers["Authorization"])
    assert reaches_flask(app, method, path, None)


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_the_answer_is_that_to_a_token_that_is_over(
    client: FlaskClient, phone: Phone, method: str, path: str
) -> None:
    """To the last header; but for the request's id."""
    phone.log_in()
    dead = phone.headers["Authorization"]
    phone.delete("/session")
    over, forged = (client.open(path, method=method, headers={"Authorization": text}) for text in (dead, FORGED))
    assert shown(forged) == shown(over)
    assert forged.status_code == 401


def shown(answer: TestResponse) -> tuple[str, list[tuple[str, str]], dict[str, Any]]:
    body = {**answer.get_json(), "request_id": "any"} if answer.data else {}
    return answer.status, sorted(answer.headers), body


def test_the_service_has_it_and_the_sandbox_has_not(client: FlaskClient, settings: Settings) -> None:
    """The sandbox shows each request to whoever plays with it."""
    sandbox = create_app(dataclasses.replace(settings, sandbox=True)).test_client()
    for asked, ended_in_front in ((client, 1), (sandbox, 0)):
        before = ended()
        assert asked.get("/session", headers={"Authorization": FORGED}).status_code == 401
        assert ended() - before == ended_in_front


def ended() -> float:
    return REGISTRY.get_sample_value("wxauth_checks_total", {"result": "token_invalid", "source": "front"}) or 0


def test_what_is_kept_at_hand_is_not_looked_at_again(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature was good when it came."""
    cache = SessionCache(store, None, 10)
    with pytest.raises(TokenInvalid):
        cache.verify_signature(FORGED)
    monkeypatch.setitem(cache._kept, FORGED, cast(Any, None))
    cache.verify_signature(FORGED)
