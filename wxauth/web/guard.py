"""`login_required`, `wx_session` and `wx_user`: which user sent this request."""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, cast, overload
from wsgiref.types import WSGIEnvironment

from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    current_app,
    has_request_context,
    request,
    request_started,
)
from werkzeug.local import LocalProxy

from ..errors import LoginTooOld, TokenMissing, WxAuthError
from ..sessions.store import WxSession
from .problems import handle
from .requests import bearer_token
from .services import services

#: Seconds by which the clocks of two servers may differ.
CLOCK_SKEW: Final = 60
#: The keys in the WSGI environment. Flask's `g` can outlive a request: tests may send several in one context.
SESSION: Final = "wxauth.session"
USER: Final = "wxauth.user"
#: The headers for caches, in lower case.
CACHING: Final = frozenset({"cache-control", "vary"})
#: The key of the function that returns `wx_user`, in `app.extensions`.
USER_LOADER: Final = "wxauth_user_loader"

#: The views that `login_required` has wrapped, and the applications that were initialized, each with its check.
_wrapped: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
_apps: weakref.WeakKeyDictionary[Flask, Callable[..., None]] = weakref.WeakKeyDictionary()

#: Return the current request. An attribute of Flask's proxy would take four times as long.
_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]

View = TypeVar("View", bound=Callable[..., Any])


@overload
def login_required(view: View, /) -> View: ...


@overload
def login_required(
    *, fresh: int | None = None, touch: bool = True, optional: bool = False
) -> Callable[[View], View]: ...


def login_required(
    view: Callable[..., Any] | None = None,
    /,
    *,
    fresh: int | None = None,
    touch: bool = True,
    optional: bool = False,
) -> Any:
    """Call the view only for a request with the token of a live session. `wx_session` is that session.

        @app.get("/orders")
        @login_required
        def orders():
            return {"openid": wx_session.openid}

    `fresh` is the maximal age of the login in seconds (RFC 9470). With `touch=False` the request does not extend the
    session's idle time. With `optional=True` a request without a token reaches the view too: `wx_session` is then
    false. Otherwise, without a session, the answer is a problem: TokenMissing, TokenInvalid, SessionReplaced,
    SessionRevoked or LoginTooOld with 401, SessionBanned with 403, BadRequest (a token in the query string) with 400,
    StoreUnavailable with 503. An error of this package that the view raises becomes a problem too. The application's
    own error handlers are not called for these. Every answer of the view gets `Cache-Control: no-store` and
    `Vary: Authorization`.
    """

    if view is None:
        return functools.partial(login_required, fresh=fresh, touch=touch, optional=optional)
    _note_wrapped(view)
    is_async = inspect.iscoroutinefunction(view)

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        after_this_request(_forbid_caching)
        try:
            environ = _request().environ
            environ[SESSION] = _resolve(environ, fresh, touch, optional)
            return current_app.ensure_sync(view)(*args, **kwargs) if is_async else view(*args, **kwargs)
        except WxAuthError as error:
            # Flask-RESTful, Flask-RESTX and an application's handler for Exception answer a raised error with 500.
            return handle(error)

    return guarded


def _resolve(environ: WSGIEnvironment, fresh: int | None, touch: bool, optional: bool) -> WxSession:
    cache = services().cache
    try:
        token = bearer_token(environ)
    except TokenMissing:
        if optional:
            return NO_SESSION
        raise
    session = cache.resolve(token, touch=touch)
    if fresh is not None and not -CLOCK_SKEW <= services().store.now() - session.created_at <= fresh:
        raise LoginTooOld(fresh)
    return session


def _forbid_caching(response: Response) -> Response:
    headers, vary = response.headers, "Authorization"
    # Few views set one of them. Looking for both, and adding them, takes half as long as setting them.
    if not CACHING.isdisjoint([name.lower() for name, _ in headers]):
        vary = ", ".join([*headers.getlist("Vary"), vary])
        headers.remove("Vary")
        headers.remove("Cache-Control")
    headers.add("Cache-Control", "no-store")
    headers.add("Vary", vary)
    return response


class _NoSession:
    """`wx_session` and `wx_user` in a request without a token. It is false, and its attributes raise TokenMissing."""

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> NoReturn:
        raise TokenMissing

    __getitem__ = __getattr__

    def __setattr__(self, name: str, value: object) -> NoReturn:
        # One object serves all requests: what is written here would be seen by others.
        raise TokenMissing


NO_SESSION: Final = cast(WxSession, _NoSession())


def _current_session() -> WxSession:
    # Outside of a request Flask raises RuntimeError. Tools that look at a module's names, such as pytest, rely on it.
    session: WxSession | None = _request().environ.get(SESSION)
    if session is None:
        # Not a RuntimeError: Werkzeug's proxy would answer some questions in its place, such as bool().
        raise LookupError("wx_session is there only in a view: write @login_required between the route and the view")
    return session


def _current_user() -> Any:
    session, environ = _current_session(), _request().environ
    if USER not in environ:
        environ[USER] = _load_user(session) if session else NO_SESSION
    return environ[USER]


def _load_user(session: WxSession) -> Any:
    try:
        return current_app.extensions[USER_LOADER](session)
    except RuntimeError as error:
        # Werkzeug's proxy would take it for a request without a user.
        raise LookupError("the function of @auth.user_loader failed") from error


#: The session of the current request.
wx_session: WxSession = cast(WxSession, LocalProxy(_current_session))
#: What `@auth.user_loader` returns for the session of the current request. It is called once in a request.
wx_user: Any = LocalProxy(_current_user)


def warn_of_open_views(app: Flask) -> None:
    """Warn if a view is registered without its guard: now, when a guard is added, and at the first request."""

    def check_at_first_request(app: Flask, **_: Any) -> None:
        # Disconnected from this application alone, the receiver would make the signal slower for all requests.
        request_started.disconnect(check_at_first_request)
        _warn(app, _wrapped)

    # The signal holds its receivers weakly.
    _apps[app] = check_at_first_request
    request_started.connect(check_at_first_request, app)
    _warn(app, _wrapped)


def _note_wrapped(view: Callable[..., Any]) -> None:
    if has_request_context():
        # Flask-RESTful wraps its methods again in each request.
        return
    views = set[Callable[..., Any]]()
    inner: Callable[..., Any] | None = view
    while inner is not None and inner not in views:
        # A decorator between the guard and the route has the registered view below it.
        views.add(inner)
        inner = getattr(inner, "__wrapped__", None)
    _wrapped.update(views)
    for app in list(_apps):
        _warn(app, views)


def _warn(app: Flask, views: weakref.WeakSet[Callable[..., Any]] | set[Callable[..., Any]]) -> None:
    for endpoint, view in app.view_functions.items():
        if view in views:
            text = f"The route of {endpoint} is open: write @login_required below the decorator of the route."
            warnings.warn(text, stacklevel=2)
