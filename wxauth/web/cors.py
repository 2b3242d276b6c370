"""CORS for pages of other origins (WXAUTH_CORS_ORIGINS): what they may call, and what they may read.

A browser's own credentials are never allowed: the page sets the token in a header itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from flask import Flask, Response, request
from werkzeug.routing import Rule

HEADERS: Final = {
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Max-Age": "600",  # seconds
}
EXPOSED: Final = "Retry-After, WWW-Authenticate"
PREFLIGHT: Final = "preflight"


def allow_origins(origins: frozenset[str], blueprints: Sequence[str]) -> Callable[[Response], Response]:
    """Return a hook that lets pages of these origins read the answers of these blueprints, and of preflights."""

    def add(response: Response) -> Response:
        if request.blueprint not in blueprints and PREFLIGHT not in (request.endpoint or ""):
            return response
        response.vary.add("Origin")
        if origin := _allowed_origin(origins):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
        return response

    return add


def _allowed_origin(origins: frozenset[str]) -> str | None:
    origin = request.headers.get("Origin", "")
    return origin if origin.lower() in origins else None


def answer_preflights(app: Flask, name: str, origins: frozenset[str], blueprints: Sequence[str]) -> None:
    """Add a route for OPTIONS to each route of these blueprints, with the hooks of the blueprint `name`."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.rpartition(".")[0] in blueprints]
    for number, path in enumerate(dict.fromkeys(rule.rule for rule in rules)):
        methods = {method for rule in rules if rule.rule == path for method in rule.methods or ()}
        endpoint = f"{name}.{PREFLIGHT}{number}"
        app.url_map.add(Rule(path, endpoint=endpoint, methods=["OPTIONS"], merge_slashes=False, strict_slashes=True))
        app.view_functions[endpoint] = _preflight(origins, methods)


def _preflight(origins: frozenset[str], methods: set[str]) -> Callable[..., Response]:
    headers = HEADERS | {"Access-Control-Allow-Methods": ", ".join(sorted(methods - {"HEAD"}))}
    return lambda **_: Response(status=204, headers=headers if _allowed_origin(origins) else {})
