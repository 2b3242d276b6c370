"""The operator's page: look a user up, end sessions, ban; the counters, and the health with hints.

The page and its routes are 404 without WXAUTH_ADMIN_CLIENTS. They belong to the service alone: below a prefix, every
script of the application would be of the same origin, and could use the operator's credential.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from flask import Response, g, request

from ...errors import CrossSiteRequest, InsufficientScope, NotFound
from ...metrics import counters
from ...sessions.records import SessionEntry
from ...sessions.store import KINDS
from ..actions import auth
from ..admin import doctor
from ..problems import add_headers
from ..services import services
from ..tracing import hide_request
from . import RouteBlueprint, clients
from .clients import require_client, user_of
from .sessions import EMPTY

bp = RouteBlueprint("admin", __name__, url_prefix="/admin")
bp.before_request(hide_request)
bp.after_request(add_headers)

#: No other site can make a browser send this header: it would need a preflight, which is never granted.
HEADER: Final = "X-WXAuth-Admin"
READING: Final = ("GET", "HEAD")
TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES: Final = {path.name: path for path in Path(doctor.__file__).parent.iterdir() if path.suffix in TYPES}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@bp.before_request
def require_admin() -> None:
    """Refuse all clients but those of WXAUTH_ADMIN_CLIENTS, and changes that the page itself did not send."""
    admins = services().settings.admin_clients
    if not admins:
        raise NotFound
    require_client()
    if g.wx_client.id not in admins:
        raise InsufficientScope
    if request.method not in READING and request.headers.get(HEADER) != "1":
        raise CrossSiteRequest


@bp.after_request
def add_policy(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


@bp.get("")
def page() -> Response:
    return _send("index.html")


@bp.get("/page/<name>")
def file(name: str) -> Response:
    return _send(name)


@bp.get("/counters")
def show_counters() -> dict[str, Any]:
    """Return the counters of all workers since the start, and the apps that the client may see."""
    apps = [appid for appid in services().settings.apps if g.wx_client.may_see(appid)]
    return {"apps": apps, "counters": counters()}


@bp.get("/health")
def show_health() -> dict[str, Any]:
    """Check Redis and WeChat, as the command doctor does."""
    return {"checks": [_present(asdict(result)) for result in _check()]}


@bp.get("/users/<appid>/<openid>")
def show_user(appid: str, openid: str) -> dict[str, Any]:
    store, user = services().store, user_of(appid, openid)
    return {"banned": store.is_banned(user), "sessions": [_session_json(it) for it in store.sessions_of(user)]}


@bp.delete("/users/<appid>/<openid>/sessions/<id>")
def end_one(appid: str, openid: str, id: str) -> tuple[str, int]:
    auth.end_session(user_of(appid, openid), id)
    return EMPTY


bp.delete("/users/<appid>/<openid>/sessions")(clients.log_out_everywhere)
bp.put("/users/<appid>/<openid>/ban")(clients.ban)
bp.delete("/users/<appid>/<openid>/ban")(clients.unban)


def _check() -> Iterator[doctor.CheckResult]:
    found = services()
    if found.settings.sandbox:
        yield doctor.IN_SANDBOX
        return
    apps = {appid: secret for appid, secret in found.settings.apps.items() if g.wx_client.may_see(appid)}
    yield from doctor.check_redis(found.settings, found.redis)
    yield from doctor.check_wechat(replace(found.settings, apps=apps), found.wechat)


def _session_json(entry: SessionEntry) -> dict[str, Any]:
    kind = KINDS.get(entry.kind, "")
    return _present({"id": entry.id, "device": entry.device, "kind": kind, "created_at": entry.created_at})


def _present(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _send(name: str) -> Response:
    if name not in FILES:
        raise NotFound
    path = FILES[name]
    return Response(path.read_bytes(), mimetype=TYPES[path.suffix])
