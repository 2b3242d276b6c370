"""One table: error -> status, code, action, headers. Problems are `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException

from .. import errors
from ..logs import request_id

log = logging.getLogger(__name__)

Answer = tuple[str, list[tuple[str, str]], bytes]

REALM: Final = 'realm="wxauth"'
NEVER_KEPT: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of the table. `action` tells the client what to do; `retry_after` is in seconds."""

    code: str
    status: int
    action: str
    title: str
    detail: str
    challenge: str | None = None
    retry_after: int | None = None


BAD_REQUEST: Final = Problem(
    "bad_request", 400, "none", "The request is not understood", "The request is not of the form that is asked for."
)
UNSUPPORTED_MEDIA_TYPE: Final = Problem(
    "unsupported_media_type", 415, "none", "The body has the wrong type", "Send plain, uncompressed JSON."
)
TOO_LARGE: Final = Problem("too_large", 413, "none", "The body is too large", "A body may have at most 16 KiB.")
RATE_LIMITED: Final = Problem(
    "rate_limited", 429, "retry", "Too many requests", "Too many requests for now. Wait.", retry_after=60
)
NOT_FOUND: Final = Problem(
    "not_found", 404, "none", "There is no such thing", "Nothing is to be found at this address."
)

# fmt: off
PROBLEMS: Final[Mapping[type[Exception], Problem]] = {
    errors.TokenMissing: Problem(
        "token_missing", 401, "login", "A token is needed",
        "Send the token of a login as: Authorization: Bearer <token>.",
        challenge=f"Bearer {REALM}",
    ),
    errors.TokenInvalid: Problem(
        "token_invalid", 401, "login", "The token is not valid",
        "The token is no live session's. Log in again.",
        challenge=f'Bearer {REALM}, error="invalid_token"',
    ),
    errors.LoginTooOld: Problem(
        "login_too_old", 401, "login", "A fresh login is needed",
        "This asks for a login of a moment ago. Log in again.",
        challenge=f'Bearer {REALM}, error="insufficient_user_authentication"',
    ),
    errors.ClientUnauthorized: Problem(
        "client_unauthorized", 401, "none", "The client is not known",
        "Send the id and the secret of a configured client as HTTP Basic.",
        challenge=f"Basic {REALM}",
    ),
    errors.CodeInvalid: Problem(
        "code_invalid", 400, "login", "WeChat does not know this code",
        "A code lives five minutes and belongs to one AppID. DevTools without an AppID gives "
        '"the code is a mock one", and the phone code is not the code of wx.login.',
    ),
    errors.PhoneCodeInvalid: Problem(
        "code_invalid", 400, "login", "WeChat does not know this phone code",
        "The code of the phone button lives five minutes, can be used once, belongs to the user who tapped it, and "
        "is not the code of wx.login. Let the user tap the button again.",
    ),
    errors.CodeUsed: Problem(
        "code_used", 400, "login", "The code was used before", "A code can be exchanged once. Call wx.login again."
    ),
    errors.UserBlocked: Problem(
        "user_blocked", 403, "none", "WeChat has blocked the login", "WeChat holds this account for high-risk."
    ),
    errors.UserBanned: Problem("user_banned", 403, "none", "The user is banned", "This account may not log in here."),
    errors.RateLimited: RATE_LIMITED,
    errors.WeChatRateLimited: RATE_LIMITED,
    errors.WeChatBusy: Problem(
        "wechat_busy", 503, "retry", "WeChat is busy", "WeChat could not answer just now. Try again.", retry_after=1
    ),
    errors.WeChatUnreachable: Problem(
        "wechat_unreachable", 503, "retry", "WeChat can't be reached", "WeChat gave no answer. Try again.",
        retry_after=2,
    ),
    errors.WeChatMisconfigured: Problem(
        "wechat_misconfigured", 503, "none", "Login is out of order", "The operator has to mend it.", retry_after=60
    ),
    errors.WeChatError: Problem(
        "wechat_error", 502, "none", "WeChat refused", "WeChat refused for a reason that is not known here."
    ),
    errors.SessionKeyStale: Problem(
        "session_key_stale", 409, "login", "The session_key is out of date",
        "The data was sealed under another session_key. Log in again, then get the data again.",
    ),
    errors.StoreUnavailable: Problem(
        "store_unavailable", 503, "retry", "The session store can't be asked",
        "Nothing is known about the session just now; it may well be alive. Try again.",
        retry_after=1,
    ),
    errors.BadRequest: BAD_REQUEST,
    errors.TooLarge: TOO_LARGE,
    errors.UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE,
    errors.SessionNotFound: NOT_FOUND,
}
# fmt: on

BY_STATUS: Final[Mapping[int, Problem]] = {
    404: NOT_FOUND,
    405: Problem(
        "method_not_allowed", 405, "none", "The method is not allowed", "The address is right, the method is not."
    ),
    413: TOO_LARGE,
    415: UNSUPPORTED_MEDIA_TYPE,
    # No promise of ours ends here: it means that this code has a bug, and the log has its traceback.
    500: Problem("internal_error", 500, "none", "The service failed", "The log says why."),
}


def register(app: Flask) -> None:
    """From now on every error that leaves a view of `app`'s is answered as a problem."""
    app.register_error_handler(errors.WxAuthError, respond)


def register_all(app: Flask) -> None:
    """As `register`, and for Flask's own errors and bugs too: for the service, which answers nothing else."""
    register(app)
    app.register_error_handler(HTTPException, _respond_http)


def respond(error: errors.WxAuthError) -> Response:
    """The answer to an error of ours, for Flask."""
    status, headers, body = answer(error)
    return _remembered(row(error), Response(body, status, headers))


def answer(error: errors.WxAuthError) -> Answer:
    """The answer to an error of ours, for any WSGI server: status, headers, body. What is ours to mend is logged."""
    if isinstance(error, errors.StoreUnavailable):
        log.warning("store_unavailable", extra={"reason": error.reason, "hint": error.hint})
    if isinstance(error, errors.WeChatUnreachable):
        log.warning("wechat_unreachable", extra={"reason": error.reason})
    problem = row(error)
    detail = error.detail if isinstance(error, errors.RequestError) else problem.detail
    challenge = problem.challenge
    if challenge and isinstance(error, errors.LoginTooOld):
        challenge += f', max_age="{error.max_age}"'
    status, headers, body = _answer(problem, detail, challenge)
    if isinstance(error, errors.RateLimited):
        headers = [(name, value) for name, value in headers if name != "Retry-After"] + _rate_headers(error)
    return status, headers, body


def _rate_headers(error: errors.RateLimited) -> list[tuple[str, str]]:
    """As the IETF's draft on RateLimit header fields names them."""
    return [
        ("Retry-After", str(error.retry_after)),
        ("RateLimit-Policy", f'"{error.source}";q={error.amount};w={error.window}'),
        ("RateLimit", f'"{error.source}";r=0;t={error.retry_after}'),
    ]


def _respond_http(error: HTTPException) -> Response:
    if isinstance(error.response, Response):
        return error.response
    status = error.code or 500
    problem = BY_STATUS.get(status, BY_STATUS[500] if status >= 500 else BAD_REQUEST)
    line, headers, body = _answer(problem, problem.detail, None)
    allowed = [(name, value) for name, value in error.get_headers() if name == "Allow"]
    return _remembered(problem, Response(body, line, [*headers, *allowed]))


def row(error: errors.WxAuthError) -> Problem:
    """The row of the table that an error belongs to."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), BY_STATUS[500])


def _answer(problem: Problem, detail: str, challenge: str | None) -> Answer:
    body = {
        "type": f"urn:problem-type:wxauth:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": problem.code,
        "action": problem.action,
        "request_id": request_id(),
    }
    headers = [("Content-Type", "application/problem+json"), *NEVER_KEPT]
    if challenge:
        headers.append(("WWW-Authenticate", challenge))
    if problem.retry_after:
        headers.append(("Retry-After", str(problem.retry_after)))
    return f"{problem.status} {HTTPStatus(problem.status).phrase}", headers, json.dumps(body).encode()


def _remembered(problem: Problem, response: Response) -> Response:
    """For the line in the log that the request ends with."""
    g.wxauth_problem = problem.code
    return response
