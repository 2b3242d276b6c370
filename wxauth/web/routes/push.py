"""The route for WeChat itself: its message push, where it tells that a user has closed the account.

Off, as if nothing were behind it, until the token is configured that is agreed upon with WeChat.
"""

from __future__ import annotations

import logging
from typing import Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from ...errors import BadRequest
from ...metrics import PUSHES
from ...models import User
from ...wechat.answers import OPENID
from ...wechat.push import HINTS, InvalidMessage, Message, PushDecoder
from ..extension import wxauth
from ..problems import respond
from ..requests import raw_body

log = logging.getLogger(__name__)

bp = Blueprint("push", __name__)

CANCELLED: Final = "user_authorization_cancellation"
#: What is counted by its own name: nobody may make up a label.
COUNTED: Final = frozenset({CANCELLED, "user_authorization_revoke", "user_info_modified"})


@bp.get("/wechat/push")
def echo() -> Response:
    """So the WeChat console finds out that the address is the operator's."""
    return Response(_postbox().echo(request.args, wxauth().store.now()), mimetype="text/plain")


@bp.post("/wechat/push")
def receive() -> Response:
    """`success` once all is done that the message asks for; at any other answer WeChat sends it again."""
    message = _postbox().decode(request.args, raw_body(), wxauth().store.now())
    if message.appid is not None and message.appid not in wxauth().settings.apps:
        raise InvalidMessage("app")
    if message.event == CANCELLED:
        wxauth().forget(_user(message))
    PUSHES.labels(message.event if message.event in COUNTED else "other").inc()
    return Response("success", mimetype="text/plain")


@bp.errorhandler(InvalidMessage)
def refuse(refused: InvalidMessage) -> Response:
    """One answer for all reasons: only the operator is told which."""
    log.warning("push_refused", extra={"reason": refused.reason, "hint": HINTS[refused.reason]})
    PUSHES.labels("refused").inc()
    return respond(BadRequest("This is no message of WeChat's."))


def _postbox() -> PushDecoder:
    settings = wxauth().settings
    if settings.push_token is None:
        raise NotFound
    return PushDecoder(settings.push_token, settings.push_aes_key)


def _user(message: Message) -> User:
    apps = wxauth().settings.apps
    appid = message.appid or (next(iter(apps)) if len(apps) == 1 else None)
    if appid is None:
        raise InvalidMessage("app")
    if message.openid is None or not OPENID.fullmatch(message.openid):
        raise InvalidMessage("user")
    return User(appid, message.openid)
