"""Tokens of nobody's signature end in front of Flask, and nobody could tell from the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from tests.conftest import Phone
from wxauth.front import Forgeries

GUARDED = [("GET", "/session"), ("DELETE", "/session"), ("GET", "/sessions"), ("DELETE", "/sessions")]
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
    run_wsgi_app(Forgeries(inner, app.extensions["wxauth"].nearby), environ)
    return inner.asked


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("text", [FORGED, f"Bearer {FORGED}", "Bearer nonsense", "Basic YTpi", "Bearer", "\xff"])
def test_what_nobody_here_signed_ends_in_front(app: Flask, method: str, path: str, text: str) -> None:
    """Whatever stands in Authorization."""
    assert not reaches_flask(app, method, path, text)


ELSEWHERE = [
    ("POST", "/session"),
    ("HEAD", "/session"),
    ("GET", "/session?access_token=a"),
    ("DELETE", "/sessions?keep=x"),
    ("DELETE", "/sessions/a"),
    ("POST", "/login"),
    ("GET", "/nowhere"),
    ("GET", "//session"),
]


@pytest.mark.parametrize(("method", "target"), ELSEWHERE)
def test_elsewhere_flask_has_to_be_asked(app: Flask, method: str, target: str) -> None:
    """There something else is looked at first, or the token does not matter."""
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


def shown(answer: TestResponse) -> tuple[str, dict[str, str], dict[str, Any]]:
    return answer.status, dict(answer.headers), {**answer.get_json(), "request_id": "any"}
