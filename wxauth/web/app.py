"""`create_app(settings)`: the whole assembly of the service, told once."""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import NotFound

from ..sessions.store import SessionStore
from ..settings import Settings
from ..wechat.client import WeChatClient
from . import problems
from . import rate_limits as rates
from .extension import WxAuth
from .middleware import Forgeries, ForwardAuth, wrap
from .requests import MAX_BODY
from .routes import clients as backends
from .routes import health, phone, push, userdata
from .routes import sessions as login

log = logging.getLogger(__name__)


class Service(Flask):
    def log_exception(self, exc_info: Any) -> None:
        """A bug, as one line of our log: Flask's own would hold the path, and paths hold openids."""
        log.error("internal_error", exc_info=exc_info)


def create_app(settings: Settings, *, wechat: WeChatClient | None = None, store: SessionStore | None = None) -> Flask:
    """The service as a Flask application; `wechat` and `store` are seams for fakes."""
    app = Service(__name__, static_folder=None)
    # One byte more, so that a chunked body that is too large is not taken for one that just fits.
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY + 1, PROVIDE_AUTOMATIC_OPTIONS=False, PROPAGATE_EXCEPTIONS=False)
    # A second slash or a missing one is a 404 here: there are no redirects.
    app.url_map.merge_slashes = False
    app.before_request(_note_start)
    extension = WxAuth(app, settings, wechat=wechat, store=store)
    problems.register_all(app)
    app.register_blueprint(login.bp)
    app.register_blueprint(userdata.bp)
    app.register_blueprint(phone.bp)
    app.register_blueprint(backends.bp)
    app.register_blueprint(push.bp)
    app.register_blueprint(health.bp)
    app.after_request(_finish)
    rates.limit(app, settings, extension)
    # The sandbox shows each request, forged ones too.
    guarded = app.wsgi_app if settings.sandbox else Forgeries(app.wsgi_app, extension.cache)
    gated = wrap(guarded, settings.trusted_proxies, settings.threads, settings.clients)
    app.wsgi_app = ForwardAuth(gated, extension.cache, sandbox=settings.sandbox)  # type: ignore[method-assign]  # as Flask says to
    if settings.redis_tls == "insecure":
        log.warning("redis_tls_insecure", extra={"hint": "set WXAUTH_REDIS_TLS to verify, or pin the certificate"})
    return app


def _note_start() -> None:
    g.started_at = time.perf_counter()
    if request.environ["PATH_INFO"].startswith("//"):
        # Flask would take it for one slash, and a proxy's rule by path would have been passed by.
        raise NotFound


def _finish(response: Response) -> Response:
    """The headers that every answer has, and its line in the log (the route, not the path: paths hold openids)."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.status_code == 204:
        response.headers.pop("Content-Type", None)
    route = request.url_rule.rule if request.url_rule else None
    milliseconds = round((time.perf_counter() - g.started_at) * 1000, 1)
    log.info(
        "request",
        extra={
            "method": request.method[:16],
            "route": route,
            "status": response.status_code,
            "ms": milliseconds,
            **({"problem": g.wxauth_problem} if "wxauth_problem" in g else {}),
        },
    )
    return response
