"""What stands in front of Flask as plain WSGI: `/verify`, the gate for slow bodies, and the end of forged tokens.

Neither Granian nor gunicorn has a time-out for a body, and a body that does not come holds a thread. So a body is
read whole before anything else is taken for its request, in at most a third of the worker's threads and a few at a
time for one address; checks, which have no body, never wait behind it.
"""

from __future__ import annotations

import io
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.middleware.proxy_fix import ProxyFix

from ..errors import ClientUnauthorized, CredentialError, StoreUnavailable, TokenInvalid, WeChatBusy, WxAuthError
from ..logs import answering
from ..sessions.cache import SessionCache
from ..sessions.store import WxSession
from ..settings import Client
from .addresses import client_network
from .clients import authenticate_client
from .guard import has_token, token_from_header
from .problems import NEVER_KEPT, answer, row
from .requests import MAX_BODY

log = logging.getLogger(__name__)

VARY: Final = ("Vary", "Authorization")
#: Routes without a parameter at which the token is the first thing that is looked at.
GUARDED: Final = {(method, path) for method in ("GET", "HEAD", "DELETE") for path in ("/session", "/sessions")}

READERS_PER_ADDRESS: Final = 4
#: A body that came along with its headers is read in no time, but under load its thread may have to wait for that.
PATIENCE: Final = 0.1


def wrap(
    app: WSGIApplication, trusted_proxies: int, threads: int, clients: Mapping[str, Client] | None = None
) -> WSGIApplication:
    """`app` behind the gate, which sees the address that the last trusted proxy saw."""
    gate = BodyBuffer(app, max(threads // 3, 1), clients or {})
    return ProxyFix(gate, x_for=trusted_proxies, x_proto=0, x_host=0) if trusted_proxies else gate


class ForwardAuth:
    """Forward-auth for nginx, Caddy and Traefik: whose token this is, as a function of `Authorization` alone.

    The names are those that WeChat Cloud Run gives. All three are always there, so that no caller can slip one of
    its own past a proxy that copies them.
    """

    def __init__(self, app: WSGIApplication, cache: SessionCache, *, sandbox: bool) -> None:
        self._app = app
        self._nearby = cache
        self._always = [VARY, *([("X-WXAuth-Mode", "sandbox")] if sandbox else [])]
        self._on_success = [*self._always, *NEVER_KEPT]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/verify":
            return self._app(environ, start_response)
        try:
            session = self._nearby.resolve(token_from_header(environ.get("HTTP_AUTHORIZATION", "")))
        except (CredentialError, StoreUnavailable) as error:
            return _refuse(error, "/verify", environ, start_response, self._always)
        # No line in the log, and no name for one: this is asked before every request to everybody.
        start_response("204 No Content", [*_identity_headers(session), *self._on_success])
        return []


class Forgeries:
    """Ends requests with a token that nobody here has signed; Flask would take three times as long to do that.

    At GUARDED only, which is where a mini program's check goes; at other routes Flask ends them.
    """

    def __init__(self, app: WSGIApplication, cache: SessionCache) -> None:
        self._app = app
        self._nearby = cache

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        header, path = environ.get("HTTP_AUTHORIZATION"), environ["PATH_INFO"]
        guarded = (environ["REQUEST_METHOD"], path) in GUARDED and not has_token(environ.get("QUERY_STRING", ""))
        if header and guarded:
            try:
                self._nearby.verify_signature(token_from_header(header))
            except TokenInvalid as error:
                return _refuse(error, path, environ, start_response, [VARY])
        return self._app(environ, start_response)


def _refuse(
    error: WxAuthError,
    route: str,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    more: list[tuple[str, str]],
) -> list[bytes]:
    before = answering.set(environ)
    status, headers, body = answer(error)
    where = {"method": environ["REQUEST_METHOD"][:16], "route": route}
    log.info("request", extra={**where, "status": int(status[:3]), "problem": row(error).code})
    answering.reset(before)
    start_response(status, [*headers, ("Content-Length", str(len(body))), *more])
    return [body if environ["REQUEST_METHOD"] != "HEAD" else b""]


def _identity_headers(session: WxSession) -> list[tuple[str, str]]:
    return [
        ("X-WX-AppID", session.appid),
        ("X-WX-OpenID", session.openid),
        ("X-WX-UnionID", session.unionid or ""),
    ]


class BodyBuffer:
    """Reads each body before `app` is called; where too many are being read already, the answer is 503 at once.

    The bodies of `clients` are read without being counted: a backend sends many at once, and all from one address.
    """

    def __init__(self, app: WSGIApplication, most: int, clients: Mapping[str, Client]) -> None:
        self._app = app
        self._most = most
        self._clients = clients
        self._turn = threading.Condition()
        self._inside = 0
        self._reading: Counter[str] = Counter()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        size = _size_to_read(environ)
        if size == 0:
            return self._app(environ, start_response)
        if self._is_ours(environ.get("HTTP_AUTHORIZATION", "")):
            content = environ["wsgi.input"].read(size)
        else:
            address = client_network(environ.get("REMOTE_ADDR", ""))
            if not self._enter(address):
                return _turn_away(environ, start_response)
            try:
                content = environ["wsgi.input"].read(size)
            finally:
                self._leave(address)
        environ["wsgi.input"] = io.BytesIO(content)
        environ["wsgi.input_terminated"] = True
        environ.setdefault("CONTENT_LENGTH", str(len(content)))
        return self._app(environ, start_response)

    def _is_ours(self, authorization: str) -> bool:
        try:
            return bool(authenticate_client(authorization, self._clients))
        except ClientUnauthorized:
            return False

    def _enter(self, address: str) -> bool:
        with self._turn:
            # Who has to wait for an address's own slow bodies leaves some places to those who need not wait.
            if self._inside >= (self._most if self._may_read(address) else self._most * 3 // 4):
                return False
            self._inside += 1
            if self._turn.wait_for(lambda: self._may_read(address), PATIENCE):
                self._reading[address] += 1
                return True
            self._inside -= 1
            return False

    def _may_read(self, address: str) -> bool:
        return self._reading[address] < READERS_PER_ADDRESS

    def _leave(self, address: str) -> None:
        with self._turn:
            self._inside -= 1
            self._reading[address] -= 1
            if not self._reading[address]:
                del self._reading[address]
            self._turn.notify_all()


def _turn_away(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    before = answering.set(environ)
    log.warning("too_many_slow_bodies")
    status, headers, body = answer(WeChatBusy())
    answering.reset(before)
    start_response(status, headers)
    return [body]


def _size_to_read(environ: WSGIEnvironment) -> int:
    """As announced; if that is left open, a byte more than may come; nothing if the length alone is a refusal."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return MAX_BODY + 1
    length = environ.get("CONTENT_LENGTH", "").lstrip("0")
    if not (length.isascii() and length.isdigit()) or len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
        return 0
    return int(length)
