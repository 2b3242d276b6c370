"""Errors as HTTP answers: `application/problem+json` (RFC 9457). Each error class knows its own code and status."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final
from wsgiref.types import WSGIEnvironment

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from .. import errors
from ..errors import RequestError, WxAuthError
from ..logs import request_id

log = logging.getLogger(__name__)

NO_STORE: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))

#: The errors of a mounted route that are problems. Others are the answers of the application's own hooks.
STATUSES: Final = (400, 404, 405, 413, 415, 500)
#: The errors that RFC 6749 and 8628 have names for, or that say when to come back.
OAUTH_ERRORS: Final[dict[type[WxAuthError], str]] = {
    errors.StoreUnavailable: "temporarily_unavailable",
    errors.ServerBusy: "temporarily_unavailable",
    errors.RateLimited: "rate_limited",
}
#: Those that keep their own status there.
OWN_STATUS: Final = frozenset({"invalid_client", *OAUTH_ERRORS.values()})

#: The errors in place of Flask's own, by status. Every other status below 500 is a BadRequest.
BY_STATUS: Final[dict[int, type[WxAuthError]]] = {kind.status: kind for kind in RequestError.__subclasses__()}


def handle_errors(app: Flask) -> None:
    """Answer the errors of this package as problems. The application's own errors stay its own."""
    app.register_error_handler(WxAuthError, handle)


def handle_http_errors(app: Flask) -> None:
    """Answer Flask's HTTP errors and bugs as problems. For the service alone."""
    app.register_error_handler(HTTPException, lambda error: handle(from_http(error)))


def from_http(error: HTTPException) -> WxAuthError:
    """Return the error of this package that stands for one of Flask's."""
    status = error.code or 500
    found = BY_STATUS.get(status, errors.BadRequest if status < 500 else WxAuthError)()
    found.more_headers = tuple(header for header in error.get_headers() if header[0] == "Allow")
    return found


def problem_for(error: WxAuthError, environ: WSGIEnvironment | None = None) -> dict[str, object]:
    """Return the members of the problem. The title is the code in words."""
    return {
        "type": f"urn:problem-type:wxauth:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "action": error.action,
        "request_id": request_id(environ),
        **({"error": error.oauth_error} if error.oauth_error else {}),
    }


def to_response(error: WxAuthError, environ: WSGIEnvironment | None = None) -> Response:
    """Return the answer to the request of `environ`. Log the reason that the client is not told."""
    _log_reason(error, environ)
    headers, problem = [*NO_STORE, *error.headers()], problem_for(error, environ)
    return Response(json.dumps(problem), error.status, headers, content_type="application/problem+json")


def to_oauth_response(error: WxAuthError, environ: WSGIEnvironment | None = None) -> Response:
    """Return the answer in the form of RFC 6749, 5.2. Most errors are 400 there."""
    _log_reason(error, environ)
    found = next((name for kind, name in OAUTH_ERRORS.items() if isinstance(error, kind)), error.oauth_error)
    is_bug = error.status == 500
    name = found or ("server_error" if is_bug else "invalid_request")
    status = error.status if is_bug or name in OWN_STATUS else 400
    body = json.dumps({"error": name, "error_description": error.detail})
    return Response(body, status, [*NO_STORE, *error.headers()], mimetype="application/json")


def _log_reason(error: WxAuthError, environ: WSGIEnvironment | None) -> None:
    line = {"request_id": request_id(environ)}
    if isinstance(error, errors.StoreUnavailable):
        log.warning("store_unavailable", extra={"reason": error.reason, "hint": error.hint, **line})
    if isinstance(error, errors.WeChatUnreachable):
        log.warning("wechat_unreachable", extra={"reason": error.reason, **line})


def handle(error: WxAuthError, respond: Callable[[WxAuthError, WSGIEnvironment], Response] = to_response) -> Response:
    """Return the answer for Flask. The access log reads the code from `g.wxauth_problem`."""
    if isinstance(error, errors.ConfigurationError):
        # The author of the application has to see it: Flask logs it, or shows it in its debugger.
        raise error
    g.wxauth_problem = error.code
    return respond(error, request.environ)


def handle_oauth(error: WxAuthError) -> Response:
    """Return the answer of the routes of RFC 6749 and 8628, for Flask. A route that is not there is a problem."""
    return handle(error, to_response if isinstance(error, errors.NotFound) else to_oauth_response)


def add_headers(response: Response) -> Response:
    """Add the headers that every answer has."""
    response.headers.update(NO_STORE)
    if response.status_code == 204:
        response.headers.pop("Content-Type", None)
    return response
