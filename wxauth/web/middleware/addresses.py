"""The address of the caller behind proxies."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ...errors import StoreUnavailable
from ...storage.client import RedisClient
from ..requests import UNKNOWN, client_network

log = logging.getLogger(__name__)

#: A mark in Redis for `doctor`: a worker has seen X-Forwarded-For and trusts no proxy.
FORWARDED: Final = "wxa:{forwarded}"
#: Seconds. Hosts restart their workers more often, and each worker sets it again.
FORWARDED_TTL: Final = 7 * 86400
#: Without a proxy any caller can send the header. A number that is too large lets it choose its address.
FORWARDED_HINT: Final = (
    "if there are proxies in front, set WXAUTH_TRUSTED_PROXIES to their number: now all callers share a limit;"
    " if there are none, leave it: a caller has sent the header"
)


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
