"""Forward auth at `/verify`, in front of Flask."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Response

from ...errors import CredentialError, StoreUnavailable, WxAuthError
from ...sessions.cache import SessionCache
from ...sessions.store import WxSession
from ..problems import NO_STORE, to_response
from ..requests import token_from_header
from ..tracing import hide_path
from .request_scope import RequestScope

log = logging.getLogger(__name__)

VERIFY: Final = "/verify"
#: Envoy appends the path of the request to a prefix, and takes no other status than 200 for a success.
VERIFY_PREFIX: Final = "/verify/"


class ForwardAuth:
    """Forward auth for a proxy: answers the user of the token. It reads only `Authorization`.

    Below VERIFY_PREFIX every path gets the same answer, with 200 instead of 204.

    The headers have the names of WeChat Cloud Run. All three are always present, so that a proxy that copies them
    replaces those of the caller.

    A token in the cache is answered outside of RequestScope, because it causes no log line and no error.
    """

    def __init__(self, app: WSGIApplication, cache: SessionCache, *, sandbox: bool) -> None:
        self._app = app
        self._cache = cache
        self._resolve_in_scope = RequestScope(self._resolve)
        self._headers = [("Vary", "Authorization"), *([("X-WXAuth-Mode", "sandbox")] if sandbox else [])]
        self._user_headers = [*self._headers, *NO_STORE]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != VERIFY and not path.startswith(VERIFY_PREFIX):
            return self._app(environ, start_response)
        header = environ.get("HTTP_AUTHORIZATION", "")
        session = self._cache.find(token_from_header(header)) if header else None
        if session is None:
            return self._resolve_in_scope(environ, start_response)
        hide_path(environ)
        return self._grant(session, path, start_response)

    def _resolve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            session = self._cache.resolve(token_from_header(environ.get("HTTP_AUTHORIZATION", "")))
        except (CredentialError, StoreUnavailable) as error:
            return self._refuse(error, environ["REQUEST_METHOD"])(environ, start_response)
        return self._grant(session, environ["PATH_INFO"], start_response)

    def _grant(self, session: WxSession, path: str, start_response: StartResponse) -> list[bytes]:
        # No log line: a proxy asks before every request.
        headers = [
            ("X-WX-AppID", session.appid),
            ("X-WX-OpenID", session.openid),
            ("X-WX-UnionID", session.unionid or ""),
            *self._user_headers,
        ]
        if path == VERIFY:
            start_response("204 No Content", headers)
        else:
            start_response("200 OK", [*headers, ("Content-Length", "0")])
        return [b""]

    def _refuse(self, error: WxAuthError, method: str) -> Response:
        fields = {"method": method[:16], "route": VERIFY, "status": error.status, "problem": error.code}
        log.info("request", extra=fields)
        response = to_response(error)
        # nginx drops the body of a subrequest, and can read this header.
        response.headers.extend([*self._headers, ("X-WXAuth-Problem", error.code)])
        return response
