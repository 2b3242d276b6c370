"""WSGI middleware: request id, forward auth at `/verify`, address of the caller, buffer for slow request bodies.

Neither Granian nor gunicorn has a timeout for request bodies, and a body that does not arrive blocks a thread. So
bodies are read before the application is called, in at most an eighth of the worker's threads and at most
MAX_PER_ADDRESS at a time for one address. Requests without a body, such as checks, never wait.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from weakref import WeakValueDictionary
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Response
from werkzeug.wsgi import ClosingIterator, get_content_length

from ..errors import CredentialError, ServerBusy, StoreUnavailable, WxAuthError
from ..logs import current_environ
from ..sessions.cache import SessionCache
from ..settings import Client, Settings
from ..storage.client import RedisClient
from .problems import NO_STORE, to_oauth_response, to_response
from .requests import MAX_BODY, UNKNOWN, client_network, find_client, token_from_header
from .tracing import hide_path

log = logging.getLogger(__name__)

VERIFY: Final = "/verify"
#: Envoy appends the path of the request to a prefix, and takes no other status than 200 for a success.
VERIFY_PREFIX: Final = "/verify/"
#: Elsewhere, whether a body is exempt would show whether a guessed secret is right, without a count.
CLIENT_PATHS: Final = ("/introspect", "/revoke", "/users/", "/device_authorization", "/token")
#: Their errors have the form of RFC 6749.
OAUTH_PATHS: Final = ("/device_authorization", "/token")
MAX_PER_ADDRESS: Final = 4
#: Seconds that a request waits for other bodies. In a storm, bodies that came with their headers take less.
MAX_WAIT: Final = 0.5


#: A mark in Redis for `doctor`: a worker has seen X-Forwarded-For and trusts no proxy.
FORWARDED: Final = "wxa:{forwarded}"
#: Seconds. Hosts restart their workers more often, and each worker sets it again.
FORWARDED_TTL: Final = 7 * 86400
#: Without a proxy any caller can send the header. A number that is too large lets it choose its address.
FORWARDED_HINT: Final = (
    "if there are proxies in front, set WXAUTH_TRUSTED_PROXIES to their number: now all callers share a limit;"
    " if there are none, leave it: a caller has sent the header"
)


def wrap(app: WSGIApplication, settings: Settings, cache: SessionCache, redis: RedisClient) -> WSGIApplication:
    """Return `app` behind the middleware of the service, the outermost last."""
    app = BodyBuffer(app, settings.threads, settings.clients)
    app = ClientAddress(app, settings.trusted_proxies) if settings.trusted_proxies else ProxyWarning(app, redis)
    return RequestId(ForwardAuth(app, cache, sandbox=settings.sandbox))


class RequestId:
    """Makes the request known to `logs`, so that its lines and its problems have one id.

    Flask's hooks would not reach what is answered before Flask.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        before = current_environ.set(environ)
        # For the answers of the other middleware. A route of the application replaces it.
        hide_path(environ)
        try:
            answer = self._app(environ, start_response)
            return answer if isinstance(answer, list) else _complete(answer)
        finally:
            current_environ.reset(before)


class ForwardAuth:
    """Forward auth for a proxy: answers the user of the token. It reads only `Authorization`.

    Below VERIFY_PREFIX every path gets the same answer, with 200 instead of 204.

    The headers have the names of WeChat Cloud Run. All three are always present, so that a proxy that copies them
    replaces those of the caller.
    """

    def __init__(self, app: WSGIApplication, cache: SessionCache, *, sandbox: bool) -> None:
        self._app = app
        self._cache = cache
        self._headers = [("Vary", "Authorization"), *([("X-WXAuth-Mode", "sandbox")] if sandbox else [])]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != VERIFY and not path.startswith(VERIFY_PREFIX):
            return self._app(environ, start_response)
        try:
            session = self._cache.resolve(token_from_header(environ.get("HTTP_AUTHORIZATION", "")))
        except (CredentialError, StoreUnavailable) as error:
            return self._refuse(error, environ["REQUEST_METHOD"])(environ, start_response)
        # No log line: a proxy asks before every request.
        user = {"X-WX-AppID": session.appid, "X-WX-OpenID": session.openid, "X-WX-UnionID": session.unionid or ""}
        status, length = ("204 No Content", []) if path == VERIFY else ("200 OK", [("Content-Length", "0")])
        start_response(status, [*user.items(), *self._headers, *NO_STORE, *length])
        return [b""]

    def _refuse(self, error: WxAuthError, method: str) -> Response:
        fields = {"method": method[:16], "route": VERIFY, "status": error.status, "problem": error.code}
        log.info("request", extra=fields)
        response = to_response(error)
        # nginx drops the body of a subrequest, and can read this header.
        response.headers.extend([*self._headers, ("X-WXAuth-Problem", error.code)])
        return response


class ClientAddress:
    """Sets REMOTE_ADDR to the address that the first of `proxies` trusted proxies saw, from X-Forwarded-For.

    Each proxy adds an entry behind those of its caller. An entry that is no plain address is ignored. Werkzeug's
    ProxyFix also parses quotes, and a quote in the caller's entries can hide those behind it.
    """

    def __init__(self, app: WSGIApplication, proxies: int) -> None:
        self._app = app
        self._proxies = proxies

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        entries = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        address = entries[-self._proxies].strip() if len(entries) >= self._proxies else ""
        if client_network(address) != UNKNOWN:
            environ["REMOTE_ADDR"] = address
        return self._app(environ, start_response)


class ProxyWarning:
    """Warns once if X-Forwarded-For arrives. No proxy is trusted, so all callers have the address of the proxy."""

    def __init__(self, app: WSGIApplication, redis: RedisClient) -> None:
        self._app = app
        self._redis = redis
        self._is_first = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_X_FORWARDED_FOR" in environ and self._is_first.acquire(blocking=False):
            log.warning("proxy_not_trusted", extra={"hint": FORWARDED_HINT})
            with contextlib.suppress(StoreUnavailable):
                self._redis.set(FORWARDED, FORWARDED_TTL)
        return self._app(environ, start_response)


class BodyBuffer:
    """Reads each request body before it calls `app`, and gives `app` nothing else to read.

    Requests with a body hold at most 7/8 of the `threads`, from the body to the answer. So threads remain for checks,
    also while these requests wait for Redis or WeChat. Within that an eighth reads, and at most half of the threads
    wait for other bodies of the same address. The next request gets ServerBusy. Those of `clients` are not counted: a
    backend sends many at the same time, all from one address.
    """

    def __init__(self, app: WSGIApplication, threads: int, clients: Mapping[str, Client]) -> None:
        self._app = app
        self._clients = clients
        self._requests = threading.Semaphore(max(threads * 7 // 8, 1))
        self._readers = threading.Semaphore(max(threads // 8, 2 * MAX_PER_ADDRESS))
        self._waiting = threading.Semaphore(max(threads // 2, 1))
        self._lock = threading.Lock()
        #: An address is in here while one of its bodies is read.
        self._addresses: WeakValueDictionary[str, threading.Semaphore] = WeakValueDictionary()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        size = _size_to_read(environ)
        if not size:
            return self._pass(environ, start_response, b"")
        try:
            if self._is_for_clients(environ):
                return self._pass(environ, start_response, _read(environ, size))
            with _held(self._requests, 0):
                return self._pass(environ, start_response, self._read_in_turn(environ, size))
        except ServerBusy as error:
            log.warning("too_many_bodies")
            respond = to_oauth_response if environ["PATH_INFO"] in OAUTH_PATHS else to_response
            return respond(error)(environ, start_response)

    def _pass(self, environ: WSGIEnvironment, start_response: StartResponse, body: bytes) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
            # Flask refuses a body that is too large by its length.
            environ["CONTENT_LENGTH"] = str(len(body))
        return self._app(environ, start_response)

    def _is_for_clients(self, environ: WSGIEnvironment) -> bool:
        is_for_clients = environ["PATH_INFO"].startswith(CLIENT_PATHS)
        return is_for_clients and bool(find_client(environ.get("HTTP_AUTHORIZATION", ""), self._clients))

    def _read_in_turn(self, environ: WSGIEnvironment, size: int) -> bytes:
        """Read the body, one of a few of its address. Raises ServerBusy."""
        quota = self._quota(client_network(environ.get("REMOTE_ADDR", "")))
        if not quota.acquire(blocking=False):
            # So one address can use only a part of the threads.
            with _held(self._waiting, 0):
                _acquire(quota, MAX_WAIT)
        try:
            with _held(self._readers, MAX_WAIT):
                return _read(environ, size)
        finally:
            quota.release()

    def _quota(self, address: str) -> threading.Semaphore:
        with self._lock:
            return self._addresses.setdefault(address, threading.Semaphore(MAX_PER_ADDRESS))


def _complete(answer: Iterable[bytes]) -> list[bytes]:
    """Return the answer in one chunk. Hypercorn answers 500 if there is none, as in a 204 or for HEAD."""
    with contextlib.closing(ClosingIterator(answer)):
        return [b"".join(answer)]


def _read(environ: WSGIEnvironment, size: int) -> bytes:
    return bytes(environ["wsgi.input"].read(size))


@contextlib.contextmanager
def _held(semaphore: threading.Semaphore, seconds: float) -> Iterator[None]:
    """Hold the semaphore in the block. Raises ServerBusy if that is not possible in `seconds`."""
    _acquire(semaphore, seconds)
    try:
        yield
    finally:
        semaphore.release()


def _acquire(semaphore: threading.Semaphore, seconds: float) -> None:
    if not semaphore.acquire(timeout=seconds):
        raise ServerBusy


def _size_to_read(environ: WSGIEnvironment) -> int:
    """Return the announced length, MAX_BODY + 1 for a chunked body, or 0 if Flask refuses the length."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return MAX_BODY + 1
    length = get_content_length(environ) or 0
    return length if length <= MAX_BODY else 0
