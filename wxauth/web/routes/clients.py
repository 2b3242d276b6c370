"""The routes for the operator's other backends: what is this token, end it, who is logged in, ban.

Each is guarded by the client's own id and secret (HTTP Basic). A client that is limited to an app is answered about
any other app as if that app had no users.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from flask import Blueprint, g, request

from ...errors import SessionNotFound, TokenInvalid
from ...models import User
from ...sessions.store import WxSession
from ...settings import Client
from ...wechat.answers import OPENID
from ..clients import authenticate_client
from ..extension import wxauth
from ..requests import form_field
from .sessions import EMPTY, session_json

bp = Blueprint("backends", __name__)

P = ParamSpec("P")
R = TypeVar("R")


def client_required(view: Callable[P, R]) -> Callable[P, R]:
    """Let a view be called only by a configured client, which it finds in `g.wx_client`."""

    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        g.wx_client = authenticate_client(request.headers.get("Authorization", ""), wxauth().settings.clients)
        return view(*args, **kwargs)

    return guarded


@bp.post("/introspect")
@client_required
def introspect() -> dict[str, Any]:
    """RFC 7662. A backend asks because its user is active, so the session is kept alive."""
    session = _session_of_token()
    if session is None:
        return {"active": False}
    answer = {
        "active": True,
        "sub": session.openid,
        "client_id": session.appid,
        "token_type": "Bearer",
        "iat": session.created_at,
        "exp": session.expires_at,
    }
    return answer | ({"unionid": session.unionid} if session.unionid else {})


@bp.post("/revoke")
@client_required
def revoke() -> tuple[str, int]:
    """RFC 7009: 200 also for a token that is not alive."""
    session = _session_of_token(touch=False)
    if session:
        wxauth().log_out(session)
    return "", 200


@bp.get("/users/<appid>/<openid>/sessions")
@client_required
def list_sessions(appid: str, openid: str) -> dict[str, Any]:
    return {"sessions": [session_json(entry) for entry in wxauth().store.sessions_of(_user(appid, openid))]}


@bp.delete("/users/<appid>/<openid>/sessions")
@client_required
def log_out_everywhere(appid: str, openid: str) -> tuple[str, int]:
    wxauth().log_out_user(_user(appid, openid))
    return EMPTY


@bp.put("/users/<appid>/<openid>/ban")
@client_required
def ban(appid: str, openid: str) -> tuple[str, int]:
    wxauth().ban(_user(appid, openid))
    return EMPTY


@bp.delete("/users/<appid>/<openid>/ban")
@client_required
def unban(appid: str, openid: str) -> tuple[str, int]:
    wxauth().store.unban(_user(appid, openid))
    return EMPTY


def _session_of_token(*, touch: bool = True) -> WxSession | None:
    """The live session of the token in the form, if this client may know of it."""
    token, resolve = form_field("token"), wxauth().cache.resolve
    client: Client = g.wx_client
    try:
        # Whoever is limited looks before it touches: what it may not know of, it can't keep alive either.
        if client.appids is not None and not _may_see(resolve(token, touch=False).appid):
            return None
        return resolve(token, touch=touch)
    except TokenInvalid:
        return None


def _user(appid: str, openid: str) -> User:
    if not _may_see(appid) or appid not in wxauth().settings.apps or not OPENID.fullmatch(openid):
        raise SessionNotFound("There is no such user.")
    return User(appid, openid)


def _may_see(appid: str) -> bool:
    client: Client = g.wx_client
    return client.appids is None or appid in client.appids
