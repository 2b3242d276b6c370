"""Keep secrets out of what OpenTelemetry and Sentry export. Without these packages this module does nothing.

A path can hold an openid, a query string a token or an openid, and a body a code. Both packages export the URL of
each request. Sentry also exports its headers and body, and the variables of each function in a traceback. The URLs of
requests to WeChat hold no secret (`wechat.transport`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

from flask import request
from werkzeug.wsgi import get_current_url

try:
    import sentry_sdk
    from sentry_sdk.scope import add_global_event_processor
except ImportError:
    sentry_sdk = None  # type: ignore[assignment]
try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]

#: A view of an application that it calls may keep its variables.
GUARD: Final = "wxauth.web.guard"
#: Their functions have the WSGI environment, and that has the token.
FRAMEWORKS: Final = ("flask", "opentelemetry", "sentry_sdk", "werkzeug")

Frames = list[dict[str, Any]]


def hide_request() -> None:
    """Give tracers the route of the current request of Flask in place of its path, query string and body."""
    hide_path(request.environ, request.url_rule.rule if request.url_rule else "/")


def hide_path(environ: WSGIEnvironment, route: str = "/") -> None:
    """Give tracers `route` in place of path, query string, headers and body. A later call replaces the route."""
    if trace and (span := trace.get_current_span()).is_recording():
        _hide_in_span(span, environ, route)
    # Without the integration there is no scope of its own for each request.
    if sentry_sdk and sentry_sdk.get_client().get_integration("flask"):
        sentry_sdk.get_isolation_scope().add_event_processor(lambda event, _: _hide_in_event(event, route))


def _hide_in_span(span: Any, environ: WSGIEnvironment, route: str) -> None:
    """Replace the attributes of both semantic conventions, as far as the span has them."""
    url = get_current_url(environ, host_only=True).rstrip("/") + route
    safe = {"http.target": route, "http.url": url, "url.full": url, "url.path": route, "url.query": ""}
    found = getattr(span, "attributes", None) or {}
    span.set_attributes({name: text for name, text in safe.items() if name in found})
    span.update_name(f"{environ['REQUEST_METHOD'][:16]} {route}")


def _hide_in_event(event: Any, route: str) -> Any:
    """Remove the headers too: Referer and X-Forwarded-Uri have a path and a query string."""
    found = event.get("request", {})
    host = urlsplit(found.get("url", ""))._replace(path="", query="", fragment="").geturl()
    event["request"] = {name: found[name] for name in ("method", "env") if name in found} | {"url": host + route}
    return event


def hide_variables(event: Any, _: object = None) -> Any:
    """Remove the variables of functions that can hold secrets, if a function of this package is among them.

    These are the functions of this package, those that they call, and those of FRAMEWORKS. The views of an
    application keep their variables.
    """
    for frames in _stacks(event):
        if any(_package(frame) == "wxauth" for frame in frames):
            _remove_variables(frames)
    return event


def _stacks(event: Any) -> Iterator[Frames]:
    for part in ("exception", "threads"):
        for value in (event.get(part) or {}).get("values") or ():
            yield (value.get("stacktrace") or {}).get("frames") or []


def _remove_variables(frames: Frames) -> None:
    """Remove the variables. The frames are in the order of the calls."""
    is_inside = False
    for frame in frames:
        is_inside = is_inside or (_package(frame) == "wxauth" and frame["module"] != GUARD)
        if is_inside or frame.get("module") == GUARD or _package(frame) in FRAMEWORKS:
            frame.pop("vars", None)


def _package(frame: dict[str, Any]) -> str:
    return str(frame.get("module") or "").partition(".")[0]


if sentry_sdk:
    add_global_event_processor(hide_variables)
