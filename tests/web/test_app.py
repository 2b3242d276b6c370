"""What every answer of the service has, and what it refuses before it looks closer."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import Phone
from tests.servers import free_port
from wxauth.models import Secret
from wxauth.settings import Settings
from wxauth.web.app import create_app

JSON = "application/json"

REQUESTS: dict[str, tuple[str, str, int]] = {
    "answer": ("GET", "/healthz", 200),
    "token missing": ("GET", "/session", 401),
    "no such route": ("GET", "/nowhere", 404),
    "double slash": ("POST", "//login", 404),
    "trailing slash": ("GET", "/session/", 404),
    "wrong method": ("PUT", "/login", 405),
    "OPTIONS": ("OPTIONS", "/login", 405),
    "no JSON": ("POST", "/login", 415),
}


@pytest.mark.parametrize(("method", "path", "status"), REQUESTS.values(), ids=REQUESTS.keys())
def test_every_answer_has_its_headers(client: FlaskClient, method: str, path: str, status: int) -> None:
    """Never to be kept, never to be guessed at, no cookie, no redirect."""
    response = client.open(path, method=method)
    assert response.status_code == status
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not {"Set-Cookie", "Location", "Access-Control-Allow-Origin"} & set(response.headers.keys())


@pytest.mark.parametrize(("method", "path", "status"), list(REQUESTS.values())[1:], ids=list(REQUESTS)[1:])
def test_every_refusal_is_a_problem(client: FlaskClient, method: str, path: str, status: int) -> None:
    """RFC 9457, with a code, an action and the request_id of the log."""
    response = client.open(path, method=method)
    assert response.mimetype == "application/problem+json"
    assert set(response.get_json()) == {"type", "title", "status", "detail", "code", "action", "request_id"}


def test_a_405_says_what_is_allowed(client: FlaskClient) -> None:
    """As RFC 9110 asks."""
    assert client.put("/login").headers["Allow"] == "POST"


BODIES: dict[str, tuple[bytes, str, int]] = {
    "empty": (b"", JSON, 400),
    "no object": (b"[]", JSON, 400),
    "null": (b"null", JSON, 400),
    "cut off": (b'{"code": "a', JSON, 400),
    "a name twice": (b'{"code": "a", "code": "b"}', JSON, 400),
    "a name twice, deep": (b'{"code": "a", "x": {"y": 1, "y": 2}}', JSON, 400),
    "not UTF-8": (b'{"code": "\xff"}', JSON, 400),
    "UTF-16": ('{"code": "a"}'.encode("utf-16"), JSON, 400),
    "byte order mark": (b'\xef\xbb\xbf{"code": "a"}', JSON, 400),
    "NaN": (b'{"code": "a", "x": NaN}', JSON, 400),
    "10,000 deep": (b'{"x":' * 2000 + b"1" + b"}" * 2000, JSON, 400),
    "a huge number": (b'{"code": ' + b"9" * 5000 + b"}", JSON, 400),
    "too large": (b'{"code": "' + b"a" * 16384 + b'"}', JSON, 413),
    "a form": (b"code=a", "application/x-www-form-urlencoded", 415),
    "multipart": (b"--x--", "multipart/form-data; boundary=x", 415),
    "plain text": (b'{"code": "a"}', "text/plain", 415),
}


@pytest.mark.parametrize(("body", "kind", "status"), BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_no_plain_json_object_is_refused(
    client: FlaskClient, body: bytes, kind: str, status: int
) -> None:
    """Before WeChat or the store is asked: the fake would have said code_invalid."""
    response = client.post("/login", data=body, content_type=kind)
    assert response.status_code == status
    assert response.get_json()["code"] in ("bad_request", "too_large", "unsupported_media_type")


def test_a_compressed_body_is_refused(client: FlaskClient) -> None:
    """Nothing is ever unpacked."""
    response = client.post("/login", data=b"\x1f\x8b", content_type=JSON, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


@pytest.fixture
def dark(settings: Settings) -> FlaskClient:
    """The service with nobody where Redis should be."""
    nobody = Settings(settings.apps, settings.secret_keys, Secret(f"redis://127.0.0.1:{free_port()}/0"))
    return create_app(nobody).test_client()


def test_an_outage_logs_nobody_out(dark: FlaskClient, phone: Phone) -> None:
    """503 and `retry`, never a 401."""
    token = phone.log_in().token
    response = dark.get("/session", headers={"Authorization": token})
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")
    assert response.headers["Retry-After"]


def test_health_asks_nobody(dark: FlaskClient) -> None:
    """The process is well though Redis is not."""
    assert dark.get("/healthz").get_json() == {"status": "ok"}


def test_readiness_says_what_is_missing(dark: FlaskClient) -> None:
    """One word for each dependency."""
    response = dark.get("/readyz")
    assert (response.status_code, response.get_json()) == (503, {"redis": "unreachable", "wechat": "ok"})


def test_readiness(client: FlaskClient) -> None:
    """200 once Redis answers."""
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()) == (200, {"redis": "ok", "wechat": "ok"})


def test_readiness_names_a_misconfigured_wechat(app: Flask, phone: Phone) -> None:
    """The user is told nothing of it, the operator is; those who are logged in go on."""
    apps: Any = app.extensions["wxauth"].settings.apps
    phone.log_in()
    apps["wxunknown"] = Secret("s")
    phone.wechat._apps = {}
    refused = phone.try_to_log_in(appid="wxunknown")
    assert refused.get_json()["code"] == "wechat_misconfigured"
    assert phone.client.get("/readyz").get_json() == {"redis": "ok", "wechat": "misconfigured"}
    assert phone.get("/session").status_code == 200


def test_a_bug_is_answered_without_its_details(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """The caller sees a problem, the log the traceback."""

    def broken() -> str:
        raise ZeroDivisionError("planted")

    app.add_url_rule("/broken", view_func=broken)
    response = app.test_client().get("/broken")
    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "planted" not in response.text
    assert "planted" in caplog.text


def test_the_log_names_the_route_and_not_the_path(phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
    """A path may hold an id; the rule it matched does not."""
    caplog.set_level("INFO")
    phone.log_in().delete("/sessions/some-id")
    assert [record.__dict__["route"] for record in caplog.records if record.message == "request"][
        -1
    ] == "/sessions/<id>"
