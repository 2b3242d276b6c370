"""Mount the routes in an application, below a prefix. The rest of the application stays as its author made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn, cast

from flask import Blueprint, Flask, current_app, request
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import MapAdapter, Rule

from ..errors import ConfigurationError, NotFound, WxAuthError
from .cors import allow_origins, answer_preflights
from .problems import STATUSES, add_headers, from_http, handle
from .requests import MAX_BODY
from .routes import RouteBlueprint, clients, device, oauth, push, sessions, userdata
from .services import services
from .tracing import hide_request

NAME: Final = "wxauth"
FALLBACK: Final = f"{NAME}.fallback"
FOR_CLIENTS: Final = tuple(f"{NAME}.{bp.name}" for bp in (clients.bp, device.bp, oauth.bp))
FOR_PAGES: Final = tuple(f"{NAME}.{bp.name}" for bp in (sessions.bp, userdata.bp, device.bp, oauth.bp))
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def mount(
    app: Flask,
    url_prefix: str,
    extend: Callable[[Blueprint], None] | None = None,
    *,
    hide_unconfigured: bool = False,
    cors_origins: frozenset[str] = frozenset(),
) -> None:
    """Register the routes below `url_prefix`, with the limits, headers and problems of the service.

    At "/" every other path belongs to the application. Below another prefix every path is answered here.
    `extend` may add routes. With `hide_unconfigured` the routes of clients are 404 if none is configured. Pages of
    `cors_origins` may call the routes of the mini program and of scan login. Raises ConfigurationError if
    `url_prefix` does not begin with a slash, or if routes are mounted already.
    """
    if not url_prefix.startswith("/"):
        raise ConfigurationError([f'url_prefix: write "/{url_prefix.strip("/")}", or None to mount no routes.'])
    if NAME in app.blueprints:
        raise ConfigurationError(["url_prefix: the routes are mounted already; call init_app once."])
    parent = _parent(hide_unconfigured, cors_origins)
    if extend:
        extend(parent)
    app.register_blueprint(parent, url_prefix=url_prefix)
    if cors_origins:
        answer_preflights(app, NAME, cors_origins, FOR_PAGES)
    if prefix := url_prefix.rstrip("/"):
        _add_fallback(app, prefix)


def _parent(hide_unconfigured: bool, cors_origins: frozenset[str]) -> RouteBlueprint:
    """Return the blueprint of all mounted routes, with their hooks."""
    parent = RouteBlueprint(NAME, __name__)
    parent.before_request(hide_request)
    parent.before_request(_limit_body)
    if hide_unconfigured:
        parent.before_request(_require_clients)
    parent.after_request(add_headers)
    if cors_origins:
        parent.after_request(allow_origins(cors_origins, FOR_PAGES))
    parent.register_error_handler(WxAuthError, handle)
    for status in STATUSES:
        parent.register_error_handler(status, lambda error: handle(from_http(error)))
    for blueprint in (sessions.bp, userdata.bp, device.bp, clients.bp, oauth.bp, push.bp):
        parent.register_blueprint(blueprint)
    return parent


def _add_fallback(app: Flask, prefix: str) -> None:
    # After the routes: of two rules for a path the first wins.
    for path in ("/", "/<path:_>", "//<path:_>"):
        app.url_map.add(Rule(prefix + path, endpoint=FALLBACK, merge_slashes=False, strict_slashes=False))
    app.view_functions[FALLBACK] = _refuse


def _limit_body() -> None:
    request.max_content_length = MAX_BODY


def _require_clients() -> None:
    """Hide the routes of clients where none is configured."""
    settings = services().settings
    if request.blueprint in FOR_CLIENTS and not (settings.clients or settings.public_clients):
        raise NotFound


def _refuse(_: str = "") -> NoReturn:
    """Answer 405 if the path is a route with other methods, else 404. Flask's own pages belong to the application."""
    adapter = cast(MapAdapter, current_app.create_url_adapter(request))
    allowed = [method for method in METHODS if adapter.match(method=method)[0] != FALLBACK]
    raise from_http(MethodNotAllowed(allowed)) if allowed else NotFound
