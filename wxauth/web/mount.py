"""Mount the routes in an application, below a prefix. The rest of the application stays as its author made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn, cast

from flask import Blueprint, Flask, current_app, request
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import MapAdapter, Rule

from ..errors import ConfigurationError, NotFound, WxAuthError
from ..settings import Settings
from .cors import allow_origins, answer_preflights
from .problems import STATUSES, add_headers, from_http, handle
from .requests import MAX_BODY
from .routes import RouteBlueprint, clients, device, oauth, push, sessions, userdata
from .tracing import hide_request

NAME: Final = "wxauth"
FALLBACK: Final = f"{NAME}.fallback"
FOR_PHONES: Final = (sessions.bp, userdata.bp, push.bp)
FOR_SCANS: Final = (device.bp, oauth.bp)
ALL: Final = (*FOR_PHONES, clients.bp, *FOR_SCANS)
#: The names of those that pages of other origins may call.
FOR_PAGES: Final = tuple(f"{NAME}.{bp.name}" for bp in (sessions.bp, userdata.bp, *FOR_SCANS))
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def mount(
    app: Flask,
    url_prefix: str,
    settings: Settings | None,
    extend: Callable[[Blueprint], None] | None = None,
    *,
    hide_clients: bool = False,
) -> None:
    """Register the routes below `url_prefix`, with the limits, headers and problems of the service.

    At "/" every other path belongs to the application. Below another prefix every path is answered here. Without
    `settings` all routes are there, and raise ConfigurationError. `extend` may add routes. With `hide_clients` the
    routes of clients are not there if none is configured. Raises ConfigurationError if `url_prefix` does not begin
    with a slash, or if routes are mounted already.
    """
    if not url_prefix.startswith("/"):
        raise ConfigurationError([f'url_prefix: write "/{url_prefix.strip("/")}", or None to mount no routes.'])
    if NAME in app.blueprints:
        raise ConfigurationError(["url_prefix: the routes are mounted already; call init_app once."])
    origins = settings.cors_origins if settings else frozenset[str]()
    parent = _parent(origins)
    for blueprint in _configured(settings, hide_clients) if settings else ALL:
        parent.register_blueprint(blueprint)
    if extend:
        extend(parent)
    app.register_blueprint(parent, url_prefix=url_prefix)
    if origins:
        answer_preflights(app, NAME, origins, FOR_PAGES)
    if prefix := url_prefix.rstrip("/"):
        _add_fallback(app, prefix)


def _parent(cors_origins: frozenset[str]) -> RouteBlueprint:
    """Return the blueprint of all mounted routes, with their hooks."""
    parent = RouteBlueprint(NAME, __name__)
    parent.before_request(hide_request)
    parent.before_request(_limit_body)
    parent.after_request(add_headers)
    if cors_origins:
        parent.after_request(allow_origins(cors_origins, FOR_PAGES))
    parent.register_error_handler(WxAuthError, handle)
    for status in STATUSES:
        parent.register_error_handler(status, lambda error: handle(from_http(error)))
    return parent


def _configured(settings: Settings, hide_clients: bool) -> list[RouteBlueprint]:
    """Return the blueprints whose routes can be used with these settings."""
    found = list(FOR_PHONES)
    if settings.clients or settings.public_clients or not hide_clients:
        found.append(clients.bp)
        if settings.public_url:
            found += FOR_SCANS
    return found


def _add_fallback(app: Flask, prefix: str) -> None:
    # After the routes: of two rules for a path the first wins.
    for path in ("/", "/<path:_>", "//<path:_>"):
        app.url_map.add(Rule(prefix + path, endpoint=FALLBACK, merge_slashes=False, strict_slashes=False))
    app.view_functions[FALLBACK] = _refuse


def _limit_body() -> None:
    request.max_content_length = MAX_BODY


def _refuse(_: str = "") -> NoReturn:
    """Answer 405 if the path is a route with other methods, else 404. Flask's own pages belong to the application."""
    adapter = cast(MapAdapter, current_app.create_url_adapter(request))
    allowed = [method for method in METHODS if adapter.match(method=method)[0] != FALLBACK]
    raise from_http(MethodNotAllowed(allowed)) if allowed else NotFound
