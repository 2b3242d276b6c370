"""The routes for the mini program: log in, look at the sessions, log out."""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Blueprint, request

from ...errors import BadRequest, CredentialError
from ...sessions.records import SessionEntry
from ...sessions.store import WxSession
from ..extension import wxauth
from ..guard import bearer_token, login_required, wx_session
from ..requests import json_object, required_str, text

bp = Blueprint("login", __name__)

#: What wx.login gives, or DevTools without an AppID. WeChat publishes no shape, so this is only what can't be one.
CODE: Final = re.compile(r"[!-~]+|the code is a mock one")
LONGEST: Final = 128
LONGEST_LABEL: Final = 64

Answer = dict[str, Any]
EMPTY: Final = ("", 204)


@bp.post("/login")
def log_in() -> Answer:
    body = json_object()
    code, device = required_str(body, "code", LONGEST), text(body, "device", LONGEST_LABEL)
    if not CODE.fullmatch(code):
        raise BadRequest("code must be what wx.login gave.")
    appid = wxauth().known_appid(text(body, "appid", LONGEST_LABEL))
    token, session = wxauth().log_in(code, appid, device, replacing=_live_session_sent_along())
    return {"token": token.reveal(), "token_type": "Bearer", "expires_in": session.expires_in}


@bp.get("/session")
@login_required
def show_session() -> Answer:
    names = ("id", "appid", "openid", "unionid", "device", "created_at", "expires_in")
    found = {name: getattr(wx_session, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


@bp.delete("/session")
@login_required(touch=False)
def log_out() -> tuple[str, int]:
    wxauth().log_out(wx_session)
    return EMPTY


@bp.get("/sessions")
@login_required
def list_sessions() -> Answer:
    entries = wxauth().store.sessions_of(wx_session.user)
    return {"sessions": [session_json(entry, wx_session.id) for entry in entries]}


@bp.delete("/sessions")
@login_required(touch=False)
def log_out_everywhere() -> tuple[str, int]:
    keep = request.args.get("keep")
    if keep not in (None, "current"):
        raise BadRequest("keep may only be: current.")
    wxauth().log_out_everywhere(wx_session, keep_current=keep == "current")
    return EMPTY


@bp.delete("/sessions/<id>")
@login_required(touch=False)
def log_out_one(id: str) -> tuple[str, int]:
    wxauth().log_out_one(wx_session, id)
    return EMPTY


def session_json(entry: SessionEntry, current: str | None = None) -> Answer:
    """A session as a list shows it."""
    device = {"device": entry.device} if entry.device else {}
    return {"id": entry.id, **device, "created_at": entry.created_at, "current": entry.id == current}


def _live_session_sent_along() -> WxSession | None:
    """The session that this login replaces: a token that is not alive is no reason to refuse a new one."""
    try:
        return wxauth().cache.resolve(bearer_token(), touch=False)
    except CredentialError:
        return None
