"""Errors as HTTP answers. The table here is the contract's, written a second time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from flask import Flask, abort
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.test import TestResponse

from tests.conftest import ALICE, RING_KEY
from tests.support.error_classes import answered
from wxauth import errors
from wxauth.keys import KeyRing
from wxauth.logs import REQUEST_ID, current_environ
from wxauth.models import Secret
from wxauth.settings import Settings
from wxauth.web import problems
from wxauth.web.app import create_app

RING = KeyRing([Secret(RING_KEY)])
REASON = "a-reason-that-only-the-log-may-have"
BEARER = 'Bearer realm="wxauth"'

# fmt: off
#: error, status, code, action, and the headers that go with it
ROWS: list[tuple[errors.WxAuthError, int, str, str, dict[str, str]]] = [
    (errors.TokenMissing(), 401, "token_missing", "login", {"WWW-Authenticate": BEARER}),
    (errors.TokenInvalid(), 401, "token_invalid", "login", {"WWW-Authenticate": f'{BEARER}, error="invalid_token"'}),
    (errors.SessionReplaced(), 401, "session_replaced", "ask",
     {"WWW-Authenticate": f'{BEARER}, error="invalid_token"'}),
    (errors.SessionRevoked(), 401, "session_revoked", "ask",
     {"WWW-Authenticate": f'{BEARER}, error="invalid_token"'}),
    (errors.SessionBanned(), 403, "user_banned", "none", {}),
    (errors.LoginTooOld(300), 401, "login_too_old", "login",
     {"WWW-Authenticate": f'{BEARER}, error="insufficient_user_authentication", max_age="300"'}),
    (errors.ClientUnauthorized(), 401, "client_unauthorized", "none", {"WWW-Authenticate": 'Basic realm="wxauth"'}),
    (errors.InsufficientScope(), 403, "insufficient_scope", "none",
     {"WWW-Authenticate": f'{BEARER}, error="insufficient_scope"'}),
    (errors.CrossSiteRequest(), 403, "insufficient_scope", "none",
     {"WWW-Authenticate": f'{BEARER}, error="insufficient_scope"'}),
    (errors.TicketInvalid(), 400, "code_invalid", "login", {}),
    (errors.DeviceCodeNotFound(), 404, "not_found", "none", {}),
    (errors.DeviceCodeAnswered(), 404, "not_found", "none", {}),
    (errors.CodeInvalid(40029), 400, "code_invalid", "login", {}),
    (errors.PhoneCodeInvalid(40029), 400, "code_invalid", "login", {}),
    (errors.CodeUsed(40163), 400, "code_used", "login", {}),
    (errors.UserBlocked(40226), 403, "user_blocked", "none", {}),
    (errors.UserBanned(), 403, "user_banned", "none", {}),
    (errors.RateLimited(7, 300, 60), 429, "rate_limited", "retry", {"Retry-After": "7"}),
    (errors.WeChatRateLimited(45011), 429, "rate_limited", "retry", {"Retry-After": "60"}),
    (errors.WeChatBusy(-1), 503, "wechat_busy", "retry", {"Retry-After": "1"}),
    (errors.ServerBusy(), 503, "server_busy", "retry", {"Retry-After": "1"}),
    (errors.WeChatUnreachable(REASON), 503, "wechat_unreachable", "retry", {"Retry-After": "2"}),
    (errors.WeChatMisconfigured(40164, REASON, REASON), 503, "wechat_misconfigured", "none", {"Retry-After": "60"}),
    (errors.AccessTokenRefused(40001, REASON), 502, "wechat_error", "none", {}),
    (errors.WeChatError(99999, REASON), 502, "wechat_error", "none", {}),
    (errors.SessionKeyStale(), 409, "session_key_stale", "login", {}),
    (errors.StoreUnavailable(REASON), 503, "store_unavailable", "retry", {"Retry-After": "1"}),
    (errors.BadRequest("say more"), 400, "bad_request", "none", {}),
    (errors.ConflictingClients("say less"), 400, "bad_request", "none", {}),
    (errors.NotFound(), 404, "not_found", "none", {}),
    (errors.SessionNotFound("no such session"), 404, "not_found", "none", {}),
    (problems.from_http(MethodNotAllowed(["GET"])), 405, "method_not_allowed", "none", {"Allow": "GET"}),
    (errors.TooLarge("say less"), 413, "too_large", "none", {}),
    (errors.UnsupportedMediaType("say it in JSON"), 415, "unsupported_media_type", "none", {}),
    (errors.WxAuthError(REASON), 500, "internal_error", "none", {}),
]
# fmt: on
BY_NAME = [pytest.param(*row, id=type(row[0]).__name__) for row in ROWS]
ERRORS = [pytest.param(row[0], id=type(row[0]).__name__) for row in ROWS]
WITH_DETAIL = [
    errors.BadRequest,
    errors.ConflictingClients,
    errors.NotFound,
    errors.SessionNotFound,
    errors.TooLarge,
    errors.UnsupportedMediaType,
]

REFUSED_TOKENS = {
    "empty": "",
    "malformed": "wxa_",
    "of an odd character": RING.issue(ALICE).text[:-1] + "!",
    "forged": RING.issue(ALICE).text[:52] + RING.issue(ALICE).text[52:],
    "of another ring": KeyRing([Secret(RING_KEY[::-1])]).issue(ALICE).text,
}


@pytest.fixture(autouse=True)
def in_request() -> Iterator[str]:
    before = current_environ.set({REQUEST_ID: "request-7"})
    yield "request-7"
    current_environ.reset(before)


def answer_to(error: Exception) -> TestResponse:
    """Return the answer of an application with a view that raises `error`."""
    app = Flask(__name__)
    problems.handle_errors(app)

    @app.get("/")
    def view() -> str:
        raise error

    return app.test_client().get("/")


@pytest.fixture
def service() -> Flask:
    """An application that answers every error with a problem, as the service does."""
    app = Flask(__name__)
    problems.handle_errors(app)
    problems.handle_http_errors(app)

    @app.get("/abort/<int:status>")
    def view(status: int) -> str:
        abort(status)

    @app.get("/crash")
    def crash() -> str:
        raise ZeroDivisionError(REASON)

    @app.get("/check/<name>")
    def check(name: str) -> str:
        return RING.verify(REFUSED_TOKENS[name]).id

    return app


def test_the_table_has_every_error_class() -> None:
    assert {type(row[0]) for row in ROWS} == answered()


@pytest.mark.parametrize(("error", "status", "code", "action", "headers"), BY_NAME)
def test_error_is_answered_as_the_contract_says(
    error: errors.WxAuthError, status: int, code: str, action: str, headers: dict[str, str]
) -> None:
    response = answer_to(error)
    body = response.get_json()
    assert (response.status_code, body["status"], body["code"], body["action"]) == (status, status, code, action)
    found = {name: response.headers.get(name) for name in ("WWW-Authenticate", "Retry-After", "Allow")}
    assert {name: value for name, value in found.items() if value} == headers


@pytest.mark.parametrize("error", ERRORS)
def test_problem_has_exactly_the_members_of_the_contract(error: errors.WxAuthError, in_request: str) -> None:
    """The type is a URN of the code, the request_id is that of the log. Two have the code of RFC 6749 too."""
    response = answer_to(error)
    body = response.get_json()
    assert response.content_type == "application/problem+json"
    oauth_error = {errors.ClientUnauthorized: "invalid_client", errors.ConflictingClients: "invalid_request"}
    assert body.pop("error", None) == oauth_error.get(type(error))
    assert list(body) == ["type", "title", "status", "detail", "code", "action", "request_id"]
    assert all(body.values())
    assert (body["type"], body["request_id"]) == (f"urn:problem-type:wxauth:{body['code']}", in_request)


@pytest.mark.parametrize("error", ERRORS)
def test_problem_is_not_stored_by_caches(error: errors.WxAuthError) -> None:
    headers = answer_to(error).headers
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


@pytest.mark.parametrize("error", ERRORS)
def test_to_response_returns_the_same_as_the_flask_answer(error: errors.WxAuthError) -> None:
    """The middleware in front of Flask answers byte for byte as a view would."""
    found, response = problems.to_response(error), answer_to(error)
    assert (found.status, found.data) == (response.status, response.data)
    assert list(found.headers) == list(response.headers)


@pytest.mark.parametrize("error", ERRORS)
def test_problem_does_not_contain_reason_or_hint(error: errors.WxAuthError) -> None:
    assert REASON not in answer_to(error).text


@pytest.mark.parametrize("error", ERRORS)
def test_error_has_the_headers_of_its_status(error: errors.WxAuthError) -> None:
    """Every 401 has a challenge, every 429 and 503 a Retry-After. RFC 6750 wants a challenge for one 403 too."""
    assert (error.challenge is not None) == (error.status == 401 or error.code == "insufficient_scope")
    assert (error.retry_after is not None) == (error.status in (429, 503))


@pytest.mark.parametrize("kind", WITH_DETAIL)
def test_request_error_is_answered_with_its_own_detail(kind: type[errors.RequestError]) -> None:
    assert answer_to(kind("say more")).get_json()["detail"] == "say more"


def test_all_refused_tokens_get_the_same_answer(service: Flask) -> None:
    """Body and headers are equal byte for byte, except for the request_id."""
    answers = set()
    for number, name in enumerate(REFUSED_TOKENS):
        current_environ.set({REQUEST_ID: f"request-{number}"})
        response = service.test_client().get(f"/check/{name}")
        answers.add((response.status, response.text.replace(f"request-{number}", ""), str(response.headers)))
    assert len(answers) == 1


@pytest.mark.parametrize("error", [errors.StoreUnavailable("timeout"), errors.WeChatUnreachable("timeout")], ids=repr)
def test_reason_is_logged(error: errors.WxAuthError, caplog: pytest.LogCaptureFixture) -> None:
    answer_to(error)
    assert [getattr(record, "reason", None) for record in caplog.records] == ["timeout"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/nowhere", 404, "not_found", id="404"),
        pytest.param("/abort/413", 413, "too_large", id="413"),
        pytest.param("/abort/415", 415, "unsupported_media_type", id="415"),
        pytest.param("/abort/400", 400, "bad_request", id="400"),
        pytest.param("/abort/418", 400, "bad_request", id="a status that the contract does not have"),
        pytest.param("/crash", 500, "internal_error", id="500"),
    ],
)
def test_service_answers_flask_errors_and_bugs_with_problems(
    service: Flask, path: str, status: int, code: str
) -> None:
    response = service.test_client().get(path)
    body = response.get_json()
    assert (response.status_code, body["status"], body["code"], body["action"]) == (status, status, code, "none")
    assert response.content_type == "application/problem+json"
    assert REASON not in response.text


def test_wrong_method_returns_405_with_allow(service: Flask) -> None:
    response = service.test_client().post("/crash")
    assert (response.status_code, response.get_json()["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_bug_is_logged_once_without_the_path(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """The line has the traceback. The path may contain an openid."""

    def crash(openid: str) -> str:
        raise ZeroDivisionError

    app = create_app(settings)
    app.add_url_rule("/users/<openid>", view_func=crash)
    assert app.test_client().get(f"/users/{ALICE.openid}").status_code == 500
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.exc_info
    assert ALICE.openid not in caplog.text


def test_handle_errors_leaves_the_404_of_an_application_alone() -> None:
    app = Flask(__name__)
    problems.handle_errors(app)
    response = app.test_client().get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")


def test_configuration_error_is_raised_to_the_author_of_the_application() -> None:
    """A problem would hide what is missing."""
    app = Flask(__name__)
    app.testing = True
    problems.handle_errors(app)

    @app.get("/")
    def view() -> str:
        raise errors.ConfigurationError(["WECHAT_APPID: needed."])

    with pytest.raises(errors.ConfigurationError, match="WECHAT_APPID"):
        app.test_client().get("/")
