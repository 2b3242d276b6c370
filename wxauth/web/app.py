"""`create_app(settings)` assembles the service: an application with the routes at "/", behind middleware."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from flask import Flask, Response, g, request

from ..errors import ClientUnauthorized, NotFound, ServerBusy
from ..sessions.store import SessionStore
from ..settings import Settings
from ..wechat.client import WeChatClient
from .extension import WxAuth, sandbox
from .middleware import wrap
from .middleware.body_buffer import REFUSED
from .mount import mount
from .problems import handle_http_errors
from .routes import admin, health
from .services import EXTENSION, Services
from .tracing import hide_request

log = logging.getLogger(__name__)


class Service(Flask):
    """Flask, with log lines that contain no path."""

    def log_exception(self, exc_info: Any) -> None:
        """Log a bug. Flask's own line contains the path, and paths contain openids."""
        log.error("internal_error", exc_info=exc_info)


def create_app(settings: Settings, *, wechat: WeChatClient | None = None, store: SessionStore | None = None) -> Flask:
    """Return the service as a Flask application. Tests pass `wechat` and `store`."""
    app = Service(__name__, static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    # Flask would redirect a path with two slashes. The service has no redirects.
    app.url_map.merge_slashes = False
    app.before_request(_start_request)
    app.after_request(_log_request)
    make = partial(Services, wechat=wechat, store=store) if wechat or store else None
    WxAuth(app, settings, make)
    mount(app, "/", sandbox().extend if settings.sandbox else None, cors_origins=settings.cors_origins)
    handle_http_errors(app)
    app.register_blueprint(health.bp)
    app.register_blueprint(admin.bp)
    found: Services = app.extensions[EXTENSION]
    app.wsgi_app = wrap(app.wsgi_app, settings, found.cache, found.redis)  # type: ignore[assignment, method-assign]
    if settings.sandbox:
        app.after_request(sandbox().mark_as_sandbox)
        app.wsgi_app = sandbox().LoopbackOnly(app.wsgi_app)  # type: ignore[method-assign]
    if settings.redis_tls == "insecure":
        log.warning("redis_tls_insecure", extra={"hint": "set WXAUTH_REDIS_TLS to verify, or pin the certificate"})
    return app


def _start_request() -> None:
    environ = request.environ
    g.started_at = time.perf_counter()
    if not request.blueprints or REFUSED in environ:
        # For these no hook of `mount` runs, which hides the others.
        hide_request()
    if environ["PATH_INFO"].startswith("//"):
        # Flask reads "//login" as "/login". A proxy's rule for "/login" does not match it.
        raise NotFound
    if REFUSED in environ:
        raise ServerBusy


def _log_request(response: Response) -> Response:
    """Write the access log."""
    # A failed login of a client is a wrong configuration or an attack.
    level = logging.WARNING if g.get("wxauth_problem") == ClientUnauthorized.code else logging.INFO
    log.log(level, "request", extra=_access_fields(response))
    return response


def _access_fields(response: Response) -> dict[str, object]:
    """Return the fields of the access log. The route takes the place of the path: paths contain openids."""
    problem = {"problem": g.wxauth_problem} if "wxauth_problem" in g else {}
    return {
        "method": request.method[:16],
        "route": request.url_rule.rule if request.url_rule else None,
        "status": response.status_code,
        "ms": round((time.perf_counter() - g.started_at) * 1000, 1),
        **problem,
    }
