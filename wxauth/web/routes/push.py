"""The route for WeChat's message push: WeChat reports here that a user closed the account.

The route is 404 unless WXAUTH_PUSH_TOKEN is set.
"""

from __future__ import annotations

import logging
from typing import Final

from flask import Response, request

from ...errors import BadRequest, NotFound
from ...metrics import PUSHES
from ...models import User
from ...wechat.answers import OPENID
from ...wechat.push import HINTS, InvalidMessage, Message, PushDecoder
from ..actions import auth
from ..problems import handle
from ..requests import raw_body
from ..services import services
from . import RouteBlueprint

log = logging.getLogger(__name__)

bp = RouteBlueprint("push", __name__)

CANCELLED: Final = "user_authorization_cancellation"
#: The events with a metric label of their own. Labels must not come from a request.
COUNTED: Final = frozenset({CANCELLED, "user_authorization_revoke", "user_info_modified"})


@bp.get("/wechat/push")
def echo() -> Response:
    """Prove to the WeChat console that the operator owns this address."""
    return Response(_decoder().echo(request.args, services().store.now()), mimetype="text/plain")


@bp.post("/wechat/push")
def receive() -> Response:
    """Answer `success` after the message is processed. WeChat repeats the message after any other answer."""
    message = _decoder().decode(request.args, raw_body(), services().store.now())
    if message.appid is not None and message.appid not in services().settings.apps:
        raise InvalidMessage("app")
    if message.event == CANCELLED:
        auth.forget(_user(message))
    PUSHES.labels(message.event if message.event in COUNTED else "other").inc()
    return _success()


@bp.errorhandler(InvalidMessage)
def refuse(refused: InvalidMessage) -> Response:
    """Give one answer for all reasons but one. The log has the reason.

    WeChat gives up on an address that refuses what WeChat has signed. So a text that breaks a message is
    acknowledged.
    """
    log.warning("push_refused", extra={"reason": str(refused), "hint": HINTS[str(refused)]})
    PUSHES.labels("refused").inc()
    if str(refused) == "content":
        return _success()
    return handle(BadRequest("This is not a message from WeChat."))


def _success() -> Response:
    return Response("success", mimetype="text/plain")


def _decoder() -> PushDecoder:
    settings = services().settings
    if settings.push_token is None:
        raise NotFound
    return PushDecoder(settings.push_token, settings.push_aes_key)


def _user(message: Message) -> User:
    apps = services().settings.apps
    appid = message.appid or (next(iter(apps)) if len(apps) == 1 else None)
    if appid is None:
        raise InvalidMessage("app")
    if message.openid is None or not OPENID.fullmatch(message.openid):
        raise InvalidMessage("form")
    return User(appid, message.openid)
