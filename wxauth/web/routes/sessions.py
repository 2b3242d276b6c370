"""The routes for the mini program: log in, show the sessions, log out."""

from __future__ import annotations

import re
from typing import Any, Final

from flask import request

from ...errors import BadRequest, CredentialError
from ...models import Secret
from ...sessions.records import SessionEntry
from ...sessions.store import WxSession
from ...sessions.tickets import TICKET_LIFE
from ..actions import auth, require_login_session
from ..guard import login_required, wx_session
from ..requests import CODE, bearer_token, json_object, required_str, text
from ..services import services
from . import RouteBlueprint

bp = RouteBlueprint("login", __name__)

#: A code of wx.login, or of DevTools without an AppID.
LOGIN_CODE: Final = re.compile(rf"{CODE.pattern}|the code is a mock one")

EMPTY: Final = ("", 204)


@bp.post("/login")
def log_in() -> dict[str, Any]:
    body = json_object()
    if "ticket" in body:
        token, session = _log_in_with_ticket(body)
    else:
        code = required_str(body, "code", LOGIN_CODE)
        appid = auth.known_appid(text(body, "appid", 64))
        token, session = auth.log_in(code, appid, body.get("device"), replacing=_session_to_replace())
    return {"token": token.reveal(), "token_type": "Bearer", "expires_in": session.expires_in}


@bp.post("/ticket")
@login_required
def issue_ticket() -> dict[str, Any]:
    return {"ticket": auth.ticket(wx_session).reveal(), "expires_in": TICKET_LIFE}


@bp.get("/session")
@login_required
def show_session() -> dict[str, Any]:
    names = ("id", "appid", "openid", "unionid", "device", "created_at", "expires_in")
    return {name: value for name in names if (value := getattr(wx_session, name)) is not None}


@bp.delete("/session")
@login_required(touch=False)
def log_out() -> tuple[str, int]:
    auth.log_out(wx_session)
    return EMPTY


@bp.get("/sessions")
@login_required
def list_sessions() -> dict[str, Any]:
    entries = services().store.sessions_of(wx_session.user)
    return {"sessions": [session_json(entry, wx_session.id) for entry in entries]}


@bp.delete("/sessions")
@login_required(touch=False)
def log_out_everywhere() -> tuple[str, int]:
    require_login_session(wx_session)
    keep = request.args.get("keep")
    if keep not in (None, "current"):
        raise BadRequest("The only value of keep is: current.")
    auth.log_out_everywhere(wx_session, keep_current=keep == "current")
    return EMPTY


@bp.delete("/sessions/<id>")
@login_required(touch=False)
def log_out_one(id: str) -> tuple[str, int]:
    require_login_session(wx_session)
    auth.log_out_one(wx_session, id)
    return EMPTY


def session_json(entry: SessionEntry, current: str | None = None) -> dict[str, Any]:
    """Return a session as the lists show it. `current` is the id of the caller's session."""
    device = {"device": entry.device} if entry.device else {}
    return {"id": entry.id, **device, "created_at": entry.created_at, "current": entry.id == current}


def _log_in_with_ticket(body: dict[str, Any]) -> tuple[Secret, WxSession]:
    if "code" in body:
        raise BadRequest("Send either a code or a ticket.")
    return auth.log_in_with_ticket(required_str(body, "ticket"), body.get("device"), replacing=_session_to_replace())


def _session_to_replace() -> WxSession | None:
    """Return the live session of the token that came with the login. A dead token does not stop the login."""
    try:
        return services().cache.resolve(bearer_token(request.environ), touch=False)
    except CredentialError:
        return None
