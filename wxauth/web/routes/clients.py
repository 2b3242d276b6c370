"""The routes for the operator's backends: introspect and revoke tokens, list and end sessions, ban users.

Each route asks for the client's id and secret. About other apps, a client that is limited to one app gets the same
answers as about apps that are not configured.
"""

from __future__ import annotations

from typing import Any, Final

from flask import g, request

from ...errors import InsufficientScope, SessionNotFound, TokenInvalid
from ...models import User
from ...sessions.store import WxSession
from ...settings import Client
from ...wechat.answers import OPENID
from ..actions import auth
from ..requests import authenticate_client, form_field, json_object, refuse_other_sites, required_str
from ..services import services
from . import RouteBlueprint
from .sessions import EMPTY, session_json

bp = RouteBlueprint("backends", __name__)

#: What a client for scans alone may use, for the tokens that were granted to it.
FOR_SCANS: Final = (f"wxauth.{bp.name}.introspect", f"wxauth.{bp.name}.revoke")


@bp.before_request
def require_client() -> None:
    """Refuse a request without the credential of a client. `g.wx_client` is the client.

    The limit comes first, because it slows down guesses. The routes of RFC 8628 do not call this: pages of other
    origins may use them.
    """
    services().rate_limits.check_client()
    settings = services().settings
    g.wx_client = authenticate_client(settings.clients, settings.public_clients)
    refuse_other_sites()
    if g.wx_client.scan_only and request.endpoint not in FOR_SCANS:
        raise InsufficientScope


@bp.post("/introspect")
def introspect() -> dict[str, Any]:
    """RFC 7662. A backend asks because its user is active, so this extends the idle time."""
    session = _session_of_token()
    if session is None:
        return {"active": False}
    answer = {
        "active": True,
        "sub": session.openid,
        # Some OAuth libraries know a user by this name only, or fail without a scope.
        "username": session.openid,
        "client_id": session.appid,
        "scope": "",
        "token_type": "Bearer",
        "iat": session.created_at,
        "exp": session.expires_at,
    }
    return answer | ({"unionid": session.unionid} if session.unionid else {})


@bp.post("/revoke")
def revoke() -> dict[str, Any]:
    """RFC 7009: the answer is 200 for a dead token too. Some OAuth libraries parse it as JSON."""
    session = _session_of_token(touch=False)
    if session:
        auth.revoke(session)
    return {}


@bp.get("/users/<appid>/<openid>/sessions")
def list_sessions(appid: str, openid: str) -> dict[str, Any]:
    return {"sessions": [session_json(entry) for entry in services().store.sessions_of(user_of(appid, openid))]}


@bp.delete("/users/<appid>/<openid>/sessions")
def log_out_everywhere(appid: str, openid: str) -> tuple[str, int]:
    auth.log_out_user(user_of(appid, openid))
    return EMPTY


@bp.put("/users/<appid>/<openid>/ban")
def ban(appid: str, openid: str) -> tuple[str, int]:
    auth.ban(user_of(appid, openid))
    return EMPTY


@bp.delete("/users/<appid>/<openid>/ban")
def unban(appid: str, openid: str) -> tuple[str, int]:
    services().store.unban(user_of(appid, openid))
    return EMPTY


@bp.post("/users/<appid>/<openid>/signature")
def sign(appid: str, openid: str) -> dict[str, str]:
    """WeChat's virtual payment and others ask for a signature under the user's session_key."""
    message = required_str(json_object(), "message")
    return {"signature": services().store.sign(user_of(appid, openid), message)}


def _session_of_token(*, touch: bool = True) -> WxSession | None:
    """Return the live session of the token in the form, or None if the client may not see it."""
    token, resolve = form_field("token"), services().cache.resolve
    try:
        # A limited client must not extend the idle time of a session that it may not see.
        is_limited = g.wx_client.appids is not None or g.wx_client.scan_only
        if is_limited and not _may_see_session(resolve(token, touch=False)):
            return None
        return resolve(token, touch=touch)
    except TokenInvalid:
        return None


def _may_see_session(session: WxSession) -> bool:
    client: Client = g.wx_client
    is_granted = session.kind == "scan" and session.device == client.id
    return client.may_see(session.appid) and (is_granted or not client.scan_only)


def user_of(appid: str, openid: str) -> User:
    """Return the user of a path. Raises SessionNotFound if the client may not see the app."""
    if not g.wx_client.may_see(appid) or appid not in services().settings.apps or not OPENID.fullmatch(openid):
        raise SessionNotFound("This user does not exist.")
    return User(appid, openid)
