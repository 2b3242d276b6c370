"""Serve the static files of the playground. The page gets its data from the service over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask import Response, abort, request

from ..web.routes import RouteBlueprint

bp = RouteBlueprint("playground", __name__)

PAGE: Final = Path(__file__).parent / "page"
KINDS: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES: Final = {path.name: path for path in PAGE.iterdir() if path.suffix in KINDS}
#: Only this origin, and no inline scripts or styles.
POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@bp.get("/")
def page() -> Response:
    return _send("index.html")


@bp.get("")
def add_slash() -> Response:
    """Flask's own redirect would name the host of the request, and come before the hooks of the sandbox."""
    return Response(status=302, headers={"Location": f"{request.path.rpartition('/')[2]}/"})


@bp.get("/sandbox/page/<name>")
def file(name: str) -> Response:
    return _send(name) if name in FILES else abort(404)


def _send(name: str) -> Response:
    path = FILES[name]
    return secured(path.read_bytes(), KINDS[path.suffix])


def secured(content: str | bytes, kind: str) -> Response:
    response = Response(content, mimetype=kind)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
