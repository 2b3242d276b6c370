"""The route for WeChat itself: its message push, where it tells that a user has closed the account.

Off, as if nothing were behind it, until the token is configured that is agreed upon with WeChat.
"""

from __future__ import annotations

import logging
from typing import Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from .body import whole_body
from .errors import BadRequest
from .extension import wxauth
from .identity import User
from .messages import CURES, Message, MessageRefused, Postbox
from .metrics import PUSHES
from .problems import respond
from .wechat_answers import OPENID

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
    message = _postbox().open(request.args, whole_body(), wxauth().store.now())
    if message.appid is not None and message.appid not in wxauth().settings.apps:
        raise MessageRefused("app")
    if message.event == CANCELLED:
        wxauth().forget(_user(message))
    PUSHES.labels(message.event if message.event in COUNTED else "other").inc()
    return Response("success", mimetype="text/plain")


@bp.errorhandler(MessageRefused)
def refuse(refused: MessageRefused) -> Response:
    """One answer for all causes: only the operator is told which."""
    log.warning("push_refused", extra={"cause": refused.cause, "cure": CURES[refused.cause]})
    PUSHES.labels("refused").inc()
    return respond(BadRequest("This is no message of WeChat's."))


def _postbox() -> Postbox:
    settings = wxauth().settings
    if settings.push_token is None:
        raise NotFound
    return Postbox(settings.push_token, settings.push_aes_key)


def _user(message: Message) -> User:
    apps = wxauth().settings.apps
    appid = message.appid or (next(iter(apps)) if len(apps) == 1 else None)
    if appid is None:
        raise MessageRefused("app")
    if message.openid is None or not OPENID.fullmatch(message.openid):
        raise MessageRefused("user")
    return User(appid, message.openid)
