"""Problems: how each error looks from outside. The table here is the contract's, written down a second time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from flask import Flask, abort
from werkzeug.test import TestResponse

from tests.conftest import ALICE, RING_KEY
from wxauth import errors
from wxauth.keys import KeyRing
from wxauth.logs import REQUEST_ID, answering
from wxauth.models import Secret
from wxauth.settings import Settings
from wxauth.web import problems
from wxauth.web.app import create_app

RING = KeyRing([Secret(RING_KEY)])
CAUSE = "a-reason-that-is-nobodys-business"
BEARER = 'Bearer realm="wxauth"'

# fmt: off
#: error, status, code, action, and the headers that go with it
ROWS: list[tuple[errors.WxAuthError, int, str, str, dict[str, str]]] = [
    (errors.TokenMissing(), 401, "token_missing", "login", {"WWW-Authenticate": BEARER}),
    (errors.TokenInvalid(), 401, "token_invalid", "login", {"WWW-Authenticate": f'{BEARER}, error="invalid_token"'}),
    (errors.LoginTooOld(300), 401, "login_too_old", "login",
     {"WWW-Authenticate": f'{BEARER}, error="insufficient_user_authentication", max_age="300"'}),
    (errors.ClientUnauthorized(), 401, "client_unauthorized", "none", {"WWW-Authenticate": 'Basic realm="wxauth"'}),
    (errors.CodeInvalid(40029), 400, "code_invalid", "login", {}),
    (errors.PhoneCodeInvalid(40029), 400, "code_invalid", "login", {}),
    (errors.CodeUsed(40163), 400, "code_used", "login", {}),
    (errors.UserBlocked(40226), 403, "user_blocked", "none", {}),
    (errors.UserBanned(), 403, "user_banned", "none", {}),
    (errors.RateLimited(7, 300, 60), 429, "rate_limited", "retry", {"Retry-After": "7"}),
    (errors.WeChatRateLimited(45011), 429, "rate_limited", "retry", {"Retry-After": "60"}),
    (errors.WeChatBusy(-1), 503, "wechat_busy", "retry", {"Retry-After": "1"}),
    (errors.WeChatUnreachable(CAUSE), 503, "wechat_unreachable", "retry", {"Retry-After": "2"}),
    (errors.WeChatMisconfigured(40164, CAUSE, CAUSE), 503, "wechat_misconfigured", "none", {"Retry-After": "60"}),
    (errors.AccessTokenRefused(40001, CAUSE), 502, "wechat_error", "none", {}),
    (errors.WeChatError(99999, CAUSE), 502, "wechat_error", "none", {}),
    (errors.SessionKeyStale(), 409, "session_key_stale", "login", {}),
    (errors.StoreUnavailable(CAUSE), 503, "store_unavailable", "retry", {"Retry-After": "1"}),
    (errors.BadRequest("say more"), 400, "bad_request", "none", {}),
    (errors.TooLarge("say less"), 413, "too_large", "none", {}),
    (errors.UnsupportedMediaType("say it in JSON"), 415, "unsupported_media_type", "none", {}),
    (errors.SessionNotFound("no such session"), 404, "not_found", "none", {}),
]
# fmt: on
#: What never reaches a client: the faults of the start, and the tree's inner nodes.
UNREACHABLE = {errors.WxAuthError, errors.ConfigurationError, errors.CredentialError, errors.RequestError}
BY_NAME = [pytest.param(*row, id=type(row[0]).__name__) for row in ROWS]
ERRORS = [pytest.param(row[0], id=type(row[0]).__name__) for row in ROWS]

REFUSED_TOKENS = {
    "empty": "",
    "malformed": "wxa_",
    "of an odd character": RING.issue(ALICE).text[:-1] + "!",
    "forged": RING.issue(ALICE).text[:52] + RING.issue(ALICE).text[52:],
    "of another ring": KeyRing([Secret(RING_KEY[::-1])]).issue(ALICE).text,
}


@pytest.fixture(autouse=True)
def in_request() -> Iterator[str]:
    before = answering.set({REQUEST_ID: "request-7"})
    yield "request-7"
    answering.reset(before)


def tree(root: type[errors.WxAuthError]) -> set[type[errors.WxAuthError]]:
    return {root}.union(*map(tree, root.__subclasses__()))


def answer_to(error: Exception) -> TestResponse:
    """What an application answers whose view raises `error`."""
    app = Flask(__name__)
    problems.register(app)

    @app.get("/")
    def view() -> str:
        raise error

    return app.test_client().get("/")


@pytest.fixture
def service() -> Flask:
    """An application that answers nothing but problems, as the service does."""
    app = Flask(__name__)
    problems.register_all(app)

    @app.get("/abort/<int:status>")
    def view(status: int) -> str:
        abort(status)

    @app.get("/crash")
    def crash() -> str:
        raise ZeroDivisionError(CAUSE)

    @app.get("/check/<name>")
    def check(name: str) -> str:
        return RING.verify(REFUSED_TOKENS[name]).id

    return app


def test_every_error_has_a_row() -> None:
    """Whatever can go wrong in a request has a row in the contract's table."""
    assert {type(row[0]) for row in ROWS} == tree(errors.WxAuthError) - UNREACHABLE


@pytest.mark.parametrize(("error", "status", "code", "action", "headers"), BY_NAME)
def test_an_error_looks_as_the_contract_says(
    error: errors.WxAuthError, status: int, code: str, action: str, headers: dict[str, str]
) -> None:
    """Status, code and action are the table's, and so are the headers, of which there are no others."""
    response = answer_to(error)
    body = response.get_json()
    assert (response.status_code, body["status"], body["code"], body["action"]) == (status, status, code, action)
    found = {name: response.headers.get(name) for name in ("WWW-Authenticate", "Retry-After")}
    assert {name: value for name, value in found.items() if value} == headers


@pytest.mark.parametrize("error", ERRORS)
def test_a_problem_has_exactly_the_members_of_the_contract(error: errors.WxAuthError, in_request: str) -> None:
    """Seven members, all filled in; the type is a URN of the code, the request_id that of the log."""
    response = answer_to(error)
    body = response.get_json()
    assert response.content_type == "application/problem+json"
    assert list(body) == ["type", "title", "status", "detail", "code", "action", "request_id"]
    assert all(body.values())
    assert (body["type"], body["request_id"]) == (f"urn:problem-type:wxauth:{body['code']}", in_request)


@pytest.mark.parametrize("error", ERRORS)
def test_a_problem_is_not_to_be_kept(error: errors.WxAuthError) -> None:
    """No cache on the way keeps an answer that tomorrow is another one, and no browser guesses its type."""
    headers = answer_to(error).headers
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


@pytest.mark.parametrize("error", ERRORS)
def test_a_problem_is_the_same_without_flask(error: errors.WxAuthError) -> None:
    """What answers in front of Flask answers as a view would, byte for byte."""
    status, headers, body = problems.answer(error)
    response = answer_to(error)
    assert (status.upper(), body) == (response.status.upper(), response.data)
    assert [*headers, ("Content-Length", str(len(body)))] == list(response.headers)


@pytest.mark.parametrize("error", ERRORS)
def test_a_problem_tells_nothing_of_the_inside(error: errors.WxAuthError) -> None:
    """Causes and hints are the operator's matter: the client learns none of them."""
    assert CAUSE not in answer_to(error).text


@pytest.mark.parametrize(
    "problem", [*problems.PROBLEMS.values(), *problems.BY_STATUS.values()], ids=lambda row: row.code
)
def test_a_row_has_the_headers_of_its_status(problem: problems.Problem) -> None:
    """Every 401 has a challenge, every 429 and 503 a Retry-After, and nothing else has either."""
    assert (problem.challenge is not None) == (problem.status == 401)
    assert (problem.retry_after is not None) == (problem.status in (429, 503))


@pytest.mark.parametrize("kind", errors.RequestError.__subclasses__())
def test_a_request_error_says_its_own_detail(kind: type[errors.RequestError]) -> None:
    """Who sent a bad request is told what is bad about it."""
    assert answer_to(kind("say more")).get_json()["detail"] == "say more"


def test_all_refused_tokens_look_the_same(service: Flask) -> None:
    """Malformed, forged or foreign: body and headers are equal byte for byte, but for the request_id."""
    answers = set()
    for number, name in enumerate(REFUSED_TOKENS):
        answering.set({REQUEST_ID: f"request-{number}"})
        response = service.test_client().get(f"/check/{name}")
        answers.add((response.status, response.text.replace(f"request-{number}", ""), str(response.headers)))
    assert len(answers) == 1


@pytest.mark.parametrize("error", [errors.StoreUnavailable("timeout"), errors.WeChatUnreachable("timeout")], ids=repr)
def test_the_cause_is_logged(error: errors.WxAuthError, caplog: pytest.LogCaptureFixture) -> None:
    """What the client is not told, the operator is."""
    answer_to(error)
    assert [getattr(record, "reason", None) for record in caplog.records] == ["timeout"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/nowhere", 404, "not_found", id="404"),
        pytest.param("/abort/413", 413, "too_large", id="413"),
        pytest.param("/abort/415", 415, "unsupported_media_type", id="415"),
        pytest.param("/abort/400", 400, "bad_request", id="400"),
        pytest.param("/abort/418", 400, "bad_request", id="a status that the contract does not know"),
        pytest.param("/crash", 500, "internal_error", id="500"),
    ],
)
def test_the_service_answers_nothing_but_problems(service: Flask, path: str, status: int, code: str) -> None:
    """Flask's own errors and our bugs are problems too, with no action that could help, and tell nothing."""
    response = service.test_client().get(path)
    body = response.get_json()
    assert (response.status_code, body["status"], body["code"], body["action"]) == (status, status, code, "none")
    assert response.content_type == "application/problem+json"
    assert CAUSE not in response.text


def test_a_wrong_method_is_told_the_right_ones(service: Flask) -> None:
    """A 405 has the Allow header that HTTP asks for."""
    response = service.test_client().post("/crash")
    assert (response.status_code, response.get_json()["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_a_bug_is_one_line_without_the_path(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Of a 500 the log has the traceback, once, and not the path, which may hold an openid."""

    def crash(openid: str) -> str:
        raise ZeroDivisionError

    app = create_app(settings)
    app.add_url_rule("/users/<openid>", view_func=crash)
    assert app.test_client().get(f"/users/{ALICE.openid}").status_code == 500
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.exc_info
    assert ALICE.openid not in caplog.text


def test_an_application_keeps_its_own_errors() -> None:
    """`register` alone answers our errors and leaves an application's 404 to it."""
    app = Flask(__name__)
    problems.register(app)
    response = app.test_client().get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")
