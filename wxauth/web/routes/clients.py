"""The routes for the operator's backends: introspect and revoke tokens, list and end sessions, ban users.

Each route asks for the client's id and secret (HTTP Basic). A client that is limited to an app gets the same answers
about other apps as if they had no users.
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
from ..extension import services, wxauth
from ..requests import authenticate_client, form_field
from .sessions import EMPTY, session_json

bp = Blueprint("backends", __name__)

P = ParamSpec("P")
R = TypeVar("R")


def client_required(view: Callable[P, R]) -> Callable[P, R]:
    """Call the view only for a configured client, which is then in `g.wx_client`.

    The limit comes first, because it slows down guesses.
    """

    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        services().rate_limits.check_client()
        g.wx_client = authenticate_client(request.headers.get("Authorization", ""), services().settings.clients)
        return view(*args, **kwargs)

    return guarded


@bp.post("/introspect")
@client_required
def introspect() -> dict[str, Any]:
    """RFC 7662. A backend asks because its user is active, so this extends the idle time."""
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
    """RFC 7009: the answer is 200 for a dead token too."""
    session = _session_of_token(touch=False)
    if session:
        wxauth().log_out(session)
    return "", 200


@bp.get("/users/<appid>/<openid>/sessions")
@client_required
def list_sessions(appid: str, openid: str) -> dict[str, Any]:
    return {"sessions": [session_json(entry) for entry in services().store.sessions_of(_user(appid, openid))]}


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
    services().store.unban(_user(appid, openid))
    return EMPTY


def _session_of_token(*, touch: bool = True) -> WxSession | None:
    """Return the live session of the token in the form, or None if the client may not see it."""
    token, resolve = form_field("token"), services().cache.resolve
    client: Client = g.wx_client
    try:
        # A limited client must not extend the idle time of a session that it may not see.
        if client.appids is not None and not _may_see(resolve(token, touch=False).appid):
            return None
        return resolve(token, touch=touch)
    except TokenInvalid:
        return None


def _user(appid: str, openid: str) -> User:
    if not _may_see(appid) or appid not in services().settings.apps or not OPENID.fullmatch(openid):
        raise SessionNotFound("There is no such user.")
    return User(appid, openid)


def _may_see(appid: str) -> bool:
    client: Client = g.wx_client
    return client.appids is None or appid in client.appids
