"""The service, assembled around the fakes, with a page that says what to type and a stand-in for `wx.login`."""

from __future__ import annotations

from typing import Any

import fakeredis
from flask import Blueprint, Flask, Response, current_app, request

from ..body import json_object, text
from ..errors import BadRequest
from ..extension import session_store, wechat_client, wxauth
from ..factory import create_app as create_service
from ..redis_client import RedisClient
from ..settings import Settings
from ..transport import Transport
from .fake_api import OUTCOMES as PHONE_OUTCOMES
from .fake_wechat import OUTCOMES, FakeWeChat

FAKE_WECHAT = "wxauth_fake_wechat"

bp = Blueprint("sandbox", __name__)

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>wxauth sandbox</title>
<h1>wxauth sandbox</h1>
<p>A fake WeChat and an in-memory Redis. Log in with three lines:</p>
<pre>
curl -X POST {root}sandbox/wx.login -H 'Content-Type: application/json' -d '{{"user": "alice"}}'

curl {root}login -H 'Content-Type: application/json' -d '{{"code": "THE CODE"}}'

curl {root}session -H 'Authorization: Bearer THE TOKEN'
</pre>
"""


def create_app(settings: Settings) -> Flask:
    """The service over a fake WeChat and an in-memory Redis, both of this process alone."""
    wechat = FakeWeChat(settings.apps)
    redis = fakeredis.FakeRedis(protocol=2)
    app = create_service(
        settings,
        wechat=wechat_client(settings, Transport(settings.wechat_url, wechat)),
        store=session_store(settings, RedisClient(lambda: redis)),
    )
    app.extensions[FAKE_WECHAT] = wechat
    app.register_blueprint(bp)
    return app


@bp.get("/")
def page() -> str:
    return PAGE.format(root=request.root_url)


@bp.post("/sandbox/wx.login")
def wx_login() -> dict[str, Any]:
    body = _body()
    user, outcome, new_key = text(body, "user", 64), text(body, "outcome", 16), body.get("new_key", False)
    if outcome is not None and outcome not in OUTCOMES:
        raise BadRequest(f"outcome may be one of {', '.join(OUTCOMES)}.")
    if not isinstance(new_key, bool):
        raise BadRequest("new_key may be true or false.")
    return {"code": _fake().wx_login(user or "visitor", outcome, new_key=new_key)}


@bp.post("/sandbox/wx.getUserProfile")
def wx_get_user_profile() -> dict[str, Any]:
    """Of the only app there is."""
    (appid,) = wxauth().settings.apps
    return _fake().wx_get_user_profile(appid, text(_body(), "user", 64) or "visitor")


def _body() -> dict[str, Any]:
    return json_object() if request.content_length or request.is_json else {}


@bp.post("/sandbox/getPhoneNumber")
def tap_phone_button() -> dict[str, Any]:
    """What the phone button would have given; not for wx.login."""
    body = _body()
    user, outcome = text(body, "user", 64), text(body, "outcome", 16)
    if outcome is not None and outcome not in PHONE_OUTCOMES:
        raise BadRequest(f"outcome may be one of {', '.join(PHONE_OUTCOMES)}.")
    return {"code": _fake().tap_phone_button(user or "visitor", outcome=outcome)}


def _fake() -> FakeWeChat:
    fake: FakeWeChat = current_app.extensions[FAKE_WECHAT]
    return fake


@bp.after_app_request
def _say_that_this_is_no_wechat(response: Response) -> Response:
    response.headers["X-WXAuth-Mode"] = "sandbox"
    return response
