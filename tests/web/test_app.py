"""What every answer of the service has, and which requests it refuses by their form."""

from __future__ import annotations

import contextlib
from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import Phone
from tests.support.servers import free_port, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.models import Secret
from wxauth.settings import Settings
from wxauth.web.app import create_app
from wxauth.web.services import Services, services

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
def test_every_answer_has_no_store_and_nosniff(client: FlaskClient, method: str, path: str, status: int) -> None:
    """No answer has a cookie, a redirect or a CORS header."""
    response = client.open(path, method=method)
    assert response.status_code == status
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not {"Set-Cookie", "Location", "Access-Control-Allow-Origin"} & set(response.headers.keys())


@pytest.mark.parametrize(("method", "path", "status"), list(REQUESTS.values())[1:], ids=list(REQUESTS)[1:])
def test_every_refusal_is_a_problem(client: FlaskClient, method: str, path: str, status: int) -> None:
    response = client.open(path, method=method)
    assert response.mimetype == "application/problem+json"
    assert set(response.get_json()) == {"type", "title", "status", "detail", "code", "action", "request_id"}


def test_wrong_method_returns_allow(client: FlaskClient) -> None:
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
def test_body_that_is_no_plain_json_object_is_refused(
    client: FlaskClient, body: bytes, kind: str, status: int
) -> None:
    """Before WeChat is asked: the fake would answer code_invalid."""
    response = client.post("/login", data=body, content_type=kind)
    assert response.status_code == status
    assert response.get_json()["code"] in ("bad_request", "too_large", "unsupported_media_type")


def test_compressed_body_returns_unsupported_media_type(client: FlaskClient) -> None:
    response = client.post("/login", data=b"\x1f\x8b", content_type=JSON, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


@pytest.fixture
def without_redis(settings: Settings) -> FlaskClient:
    """The service while Redis is down."""
    changed = Settings(settings.apps, settings.secret_keys, Secret(f"redis://127.0.0.1:{free_port()}/0"))
    return create_app(changed).test_client()


def test_outage_returns_503_for_a_live_token(without_redis: FlaskClient, phone: Phone) -> None:
    """A 401 would make the client log in again."""
    token = phone.log_in().token
    response = without_redis.get("/session", headers={"Authorization": token})
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")
    assert response.headers["Retry-After"]


def test_healthz_returns_200_while_redis_is_down(without_redis: FlaskClient) -> None:
    assert without_redis.get("/healthz").get_json() == {"status": "ok"}


def test_readyz_returns_503_and_the_reason_while_redis_is_down(without_redis: FlaskClient) -> None:
    response = without_redis.get("/readyz")
    assert (response.status_code, response.get_json()) == (503, {"redis": "unreachable", "wechat": "ok"})


def test_readyz_returns_200_when_redis_answers(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()) == (200, {"redis": "ok", "wechat": "ok"})


def test_readyz_names_a_misconfigured_wechat_and_stays_200(app: Flask, phone: Phone) -> None:
    """Sessions can be checked without WeChat."""
    apps: Any = app.extensions["wxauth"].settings.apps
    phone.log_in()
    apps["wxunknown"] = Secret("s")
    phone.wechat._apps = ChainMap({}, {})
    refused = phone.try_to_log_in(appid="wxunknown")
    assert refused.get_json()["code"] == "wechat_misconfigured"
    assert phone.client.get("/readyz").get_json() == {"redis": "ok", "wechat": "misconfigured"}
    assert phone.get("/session").status_code == 200


def test_login_without_a_turn_returns_server_busy_and_does_not_use_its_code(
    app: Flask, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three quarters of the connections to Redis are for logins."""
    monkeypatch.setattr("wxauth.web.actions.TURN_WAIT", 0.05)
    body = {"code": phone.wechat.wx_login()}
    with app.app_context(), contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(services().login_turn(0))
        refused = phone.client.post("/login", json=body)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "server_busy")
    assert refused.headers["Retry-After"] == "1"
    assert phone.client.post("/login", json=body).status_code == 200


def test_login_that_waited_while_redis_failed_gets_a_turn_only_if_its_code_is_used(settings: Settings) -> None:
    """It has waited for Redis with the login before it. Only for a used code it asks once more."""
    url = Secret(f"redis://127.0.0.1:{free_port()}/0")
    found = Services(replace(settings, redis_url=url, redis_connections=1))

    def take_turn(is_code_used: bool) -> None:
        with found.login_turn(10, is_code_used=is_code_used):
            pass

    with ThreadPoolExecutor() as pool:
        with found.login_turn(0):
            waiting = [pool.submit(take_turn, is_code_used) for is_code_used in (False, True)]
            wait_until(lambda: len(found._turns.waiting) == 2, "the logins to wait")
            with pytest.raises(StoreUnavailable):
                found.redis.read("wxa:k")
        with pytest.raises(StoreUnavailable, match="unreachable"):
            waiting[0].result(10)
        waiting[1].result(10)
    # The turn is free, and a login that has not waited may ask.
    take_turn(is_code_used=False)


def test_bug_returns_internal_error_and_logs_the_traceback(app: Flask, caplog: pytest.LogCaptureFixture) -> None:

    def broken() -> str:
        raise ZeroDivisionError("planted")

    app.add_url_rule("/broken", view_func=broken)
    response = app.test_client().get("/broken")
    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "planted" not in response.text
    assert "planted" in caplog.text


def test_access_log_has_the_route_and_not_the_path(phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
    """A path may contain an id."""
    caplog.set_level("INFO")
    phone.log_in().delete("/sessions/some-id")
    assert [record.__dict__["route"] for record in caplog.records if record.message == "request"][
        -1
    ] == "/sessions/<id>"
