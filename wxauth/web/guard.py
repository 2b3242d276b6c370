"""`login_required` and `wx_session`: who is asking. The token comes from `Authorization` and from nowhere else."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar, cast, overload
from urllib.parse import unquote

from flask import Response, after_this_request, current_app, request
from werkzeug.local import LocalProxy

from ..errors import BadRequest, LoginTooOld, TokenMissing
from ..sessions.store import WxSession
from .extension import unwrapped, wxauth
from .responses import whole

#: Seconds by which the clocks of two servers may differ.
CLOCK_SKEW: Final = 60
#: Under which the environment of a request holds its session.
SESSION: Final = "wxauth.session"

P = ParamSpec("P")
R = TypeVar("R")

#: Searched for, not parsed: to parse a long query costs more than all the rest.
IN_QUERY: Final = re.compile(r"(^|&)access_token=|wxa_[A-Za-z0-9_-]{40}")
BEARER: Final = re.compile(r"bearer +", re.IGNORECASE)


def bearer_token() -> str:
    """The token of this request, as `Bearer <token>` or bare; anything else in there will be refused as no token.

    Raises TokenMissing, and BadRequest for a token in the query string, where every log would keep it.
    """
    environ = unwrapped(request).environ
    if has_token(environ.get("QUERY_STRING", "")):
        raise BadRequest("A token is taken from the Authorization header only, never from the query string.")
    return token_from_header(environ.get("HTTP_AUTHORIZATION", ""))


def has_token(query: str) -> bool:
    """Whether a query string has a token in it, or what is taken for one."""
    return bool(query and IN_QUERY.search(unquote(query)))


def token_from_header(header: str) -> str:
    """The token of an `Authorization` header; TokenMissing if that is empty."""
    if not header:
        raise TokenMissing
    if header.startswith("Bearer wxa_"):  # as nearly everybody writes it
        return header[7:]
    scheme = BEARER.match(header)
    return header[scheme.end() :] if scheme else header


@overload
def login_required(view: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def login_required(*, fresh: int | None = None, touch: bool = True) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def login_required(
    view: Callable[P, R] | None = None, /, *, fresh: int | None = None, touch: bool = True
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a view be called only with a live session, which it finds in `wx_session`.

    `fresh` asks for a login at most so many seconds ago (RFC 9470); with `touch=False` the request does not keep the
    session from idling out. Without a session the view is not called and the answer is a problem.
    """

    def guard(view: Callable[P, R]) -> Callable[P, R]:
        is_async = inspect.iscoroutinefunction(view)

        @functools.wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            after_this_request(_finish)
            session = wxauth().cache.resolve(bearer_token(), touch=touch)
            if fresh is not None and not -CLOCK_SKEW <= session.age <= fresh:
                raise LoginTooOld(fresh)
            # Not in Flask's `g`: that lives on where requests share a context, as those of a test may.
            unwrapped(request).environ[SESSION] = session
            return cast(R, current_app.ensure_sync(view)(*args, **kwargs)) if is_async else view(*args, **kwargs)

        return guarded

    return guard if view is None else guard(view)


def _finish(response: Response) -> Response:
    """An answer made for one user is never to be kept for another; and it is handed to the server whole."""
    headers = response.headers
    if {name.lower() for name, _ in headers}.isdisjoint(("cache-control", "vary")):
        # What the other branch would come to, for a fifth of its time.
        headers.add("Cache-Control", "no-store")
        headers.add("Vary", "Authorization")
    else:
        headers["Cache-Control"] = "no-store"
        response.vary.add("Authorization")
    return whole(response)


def _current_session() -> WxSession:
    session: WxSession | None = unwrapped(request).environ.get(SESSION)
    if session is None:
        raise RuntimeError("wx_session is there only in a view that has @login_required")
    return session


#: The session of the request that is being answered.
wx_session: WxSession = cast(WxSession, LocalProxy(_current_session))
