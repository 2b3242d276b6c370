"""WSGI middleware of the service: `wrap(app, …)` puts an application behind it."""

from __future__ import annotations

from wsgiref.types import WSGIApplication

from ...sessions.cache import SessionCache
from ...settings import Settings
from ...storage.client import RedisClient
from .addresses import ClientAddress, ProxyWarning
from .body_buffer import BodyBuffer
from .forward_auth import ForwardAuth
from .request_scope import RequestScope


def wrap(app: WSGIApplication, settings: Settings, cache: SessionCache, redis: RedisClient) -> WSGIApplication:
    """Return `app` behind the middleware of the service, the outermost last."""
    app = BodyBuffer(app, settings.threads, settings.clients)
    app = ClientAddress(app, settings.trusted_proxies) if settings.trusted_proxies else ProxyWarning(app, redis)
    return ForwardAuth(RequestScope(app), cache, sandbox=settings.sandbox)
