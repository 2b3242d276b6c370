"""`login_required` and `wx_session`: which user sent this request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast, overload

from flask import Response, after_this_request, current_app, request
from werkzeug.local import LocalProxy

from ..errors import LoginTooOld, WxAuthError
from ..sessions.store import WxSession
from .extension import services
from .problems import handle
from .requests import bearer_token

#: Seconds by which the clocks of two servers may differ.
CLOCK_SKEW: Final = 60
#: The key of the session in the WSGI environment.
SESSION: Final = "wxauth.session"

View = TypeVar("View", bound=Callable[..., Any])


@overload
def login_required(view: View, /) -> View: ...


@overload
def login_required(*, fresh: int | None = None, touch: bool = True) -> Callable[[View], View]: ...


def login_required(view: Callable[..., Any] | None = None, /, *, fresh: int | None = None, touch: bool = True) -> Any:
    """Call the view only for a request with the token of a live session. `wx_session` is that session.

        @app.get("/orders")
        @login_required
        def orders():
            return {"openid": wx_session.openid}

    `fresh` is the maximal age of the login in seconds (RFC 9470). With `touch=False` the request does not extend the
    session's idle time. Without a session the answer is a problem: TokenMissing, TokenInvalid, SessionReplaced,
    SessionRevoked or LoginTooOld with 401, SessionBanned with 403, BadRequest (a token in the query string) with 400,
    StoreUnavailable with 503. An error of this package that the view raises becomes a problem too. The application's
    own error handlers are not called for these. Every answer of the view gets `Cache-Control: no-store` and
    `Vary: Authorization`.
    """

    if view is None:
        return functools.partial(login_required, fresh=fresh, touch=touch)

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        after_this_request(_forbid_caching)
        try:
            # Flask's `g` can outlive a request: tests may send several in one application context.
            request.environ[SESSION] = _resolve(fresh, touch)
            return current_app.ensure_sync(view)(*args, **kwargs)
        except WxAuthError as error:
            # Flask-RESTful, Flask-RESTX and an application's handler for Exception answer a raised error with 500.
            return handle(error)

    return guarded


def _resolve(fresh: int | None, touch: bool) -> WxSession:
    session = services().cache.resolve(bearer_token(), touch=touch)
    if fresh is not None and not -CLOCK_SKEW <= services().store.now() - session.created_at <= fresh:
        raise LoginTooOld(fresh)
    return session


def _forbid_caching(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    # `response.vary.add` would take four times as long.
    response.headers["Vary"] = ", ".join([*response.headers.getlist("Vary"), "Authorization"])
    return response


def _current_session() -> WxSession:
    session: WxSession | None = request.environ.get(SESSION)
    if session is None:
        raise RuntimeError("wx_session is there only in a view that has @login_required")
    return session


#: The session of the current request.
wx_session: WxSession = cast(WxSession, LocalProxy(_current_session))
