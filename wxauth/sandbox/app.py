"""The sandbox's routes below `/sandbox`: what a phone and the playground ask of the fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import requests
from flask import Blueprint, Response, request

from .. import strict_json
from ..errors import BadRequest
from ..logs import request_id
from ..models import User
from ..sessions.device_codes import normalized
from ..sessions.records import hash_name
from ..web.actions import auth
from ..web.rate_limits import RateLimits
from ..web.requests import bearer_token, json_object, text
from ..web.routes import RouteBlueprint
from ..web.services import services
from . import documentation, playground
from .fake_api import OUTCOMES as PHONE_OUTCOMES
from .fake_wechat import OUTCOMES
from .loopback import REFUSED, is_from_this_machine
from .services import SandboxServices

MAX_SESSIONS: Final = 1000
MAX_LOGINS: Final = 1000
#: Seconds. The fake WeChat of the outcome `stall` answers other processes after so long.
STALL: Final = 10

bp = RouteBlueprint("sandbox", __name__, url_prefix="/sandbox")


def extend(mounted: Blueprint) -> None:
    """Add the sandbox to the mounted routes: its own, the playground, the documentation and a mark on all answers."""
    mounted.before_request(_refuse_other_machines)
    mounted.after_request(mark_as_sandbox)
    mounted.register_blueprint(bp)
    mounted.register_blueprint(playground.bp)
    mounted.register_blueprint(documentation.bp)


@bp.post("/wx.login")
def wx_login() -> dict[str, Any]:
    """Return a code, as wx.login does on a phone."""
    body = _body()
    user, outcome, new_key = text(body, "user", 64), text(body, "outcome", 16), body.get("new_key", False)
    if outcome is not None and outcome not in OUTCOMES:
        raise BadRequest(f"outcome must be one of {', '.join(OUTCOMES)}.")
    if not isinstance(new_key, bool):
        raise BadRequest("new_key must be true or false.")
    return {"code": _fakes().fake_wechat.wx_login(user or "visitor", outcome, new_key=new_key)}


@bp.post("/wx.getUserProfile")
def wx_get_user_profile() -> dict[str, Any]:
    """Return a profile, as wx.getUserProfile does in the mini program `appid`. The default is the sandbox's own."""
    body = _body()
    appid = text(body, "appid", 64) or next(iter(services().settings.apps))
    return _fakes().fake_wechat.wx_get_user_profile(appid, text(body, "user", 64) or "visitor")


@bp.post("/getPhoneNumber")
def tap_phone_button() -> dict[str, Any]:
    """Return a phone code, as the phone button does in the mini program `appid`. A login rejects it."""
    body = _body()
    user, outcome = text(body, "user", 64), text(body, "outcome", 16)
    if outcome is not None and outcome not in PHONE_OUTCOMES:
        raise BadRequest(f"outcome must be one of {', '.join(PHONE_OUTCOMES)}.")
    return {"code": _fakes().fake_wechat.tap_phone_button(user or "visitor", text(body, "appid", 64), outcome)}


@bp.get("/trace/<id>")
def show_trace(id: str) -> dict[str, Any]:
    """Return the calls to WeChat and Redis of one request. Its id is in X-WXAuth-Request and in every problem."""
    return {"notes": _fakes().trace.of(id) or []}


@bp.get("/redis")
def show_redis() -> dict[str, Any]:
    redis = _fakes().fake_redis
    return {"back_in": redis.starts_in, "holds": redis.content()}


@bp.delete("/redis")
def stop_redis() -> dict[str, Any]:
    _fakes().fake_redis.stop()
    return show_redis()


@bp.put("/redis")
def start_redis() -> dict[str, Any]:
    _fakes().fake_redis.start()
    return show_redis()


@bp.delete("/redis/keys")
def empty_redis() -> dict[str, Any]:
    _fakes().fake_redis.clear()
    return show_redis()


@bp.put("/max_sessions")
def set_max_sessions() -> tuple[str, int]:
    """Set how many sessions a user may have. DELETE sets the configured number again."""
    number = _body().get("max_sessions")
    if type(number) is not int or not 1 <= number <= MAX_SESSIONS:
        raise BadRequest(f"max_sessions must be a whole number from 1 to {MAX_SESSIONS}.")
    return _limit_sessions(number)


@bp.delete("/max_sessions")
def reset_max_sessions() -> tuple[str, int]:
    return _limit_sessions(services().settings.max_sessions)


@bp.put("/login_rate")
def set_login_rate() -> tuple[str, int]:
    """Set how many logins an address may send in a minute. DELETE sets the configured rate again."""
    number = _body().get("per_minute")
    if type(number) is not int or not 1 <= number <= MAX_LOGINS:
        raise BadRequest(f"per_minute must be a whole number from 1 to {MAX_LOGINS}.")
    return _limit_logins(f"{number}/minute")


@bp.delete("/login_rate")
def reset_login_rate() -> tuple[str, int]:
    return _limit_logins(services().settings.login_rate)


@bp.put("/ban")
def ban() -> tuple[str, int]:
    """Ban the user of a phone, as an operator does. DELETE allows the user again."""
    auth.ban(_user())
    return "", 204


@bp.delete("/ban")
def unban() -> tuple[str, int]:
    services().store.unban(_user())
    return "", 204


@bp.post("/expire")
def expire() -> tuple[str, int]:
    """Expire the session of the token in `Authorization`, as its idle timeout does."""
    token = _fakes().ring.verify(bearer_token(request.environ))
    _fakes().fake_redis.expire(hash_name(token.hash_tag), token.id)
    return "", 204


@bp.post("/expire/<user_code>")
def expire_device_code(user_code: str) -> tuple[str, int]:
    """Expire a device code, as its five minutes do."""
    _fakes().fake_redis.expire_device_code(services().device_codes.name_of(normalized(user_code)))
    return "", 204


@bp.route("/wechat/<path:path>", methods=["GET", "POST"])
def ask_wechat(path: str) -> Response:
    """Answer as WeChat's server does, so that WXAUTH_WECHAT_URL of another process can be this address.

    An AppID that is new here is accepted with the AppSecret of its first request.
    """
    try:
        credential: dict[str, Any] = {**request.args, **strict_json.parse(request.get_data() or b"{}")}
    except ValueError:
        raise BadRequest("The body must be one JSON object.") from None
    if not all(isinstance(value, str | bool) for value in credential.values()):
        raise BadRequest("Each value must be a string, true or false.")
    _fakes().fake_wechat.add_app(str(credential.get("appid", "")), str(credential.get("secret", "")))
    url, body = f"http://sandbox/{path}", request.get_data()
    asked = requests.Request(request.method, url, params=request.args, data=body).prepare()
    try:
        answer = _fakes().fake_wechat.send(asked, timeout=STALL)
    except requests.Timeout:
        return Response(status=504)
    return Response(answer.content, answer.status_code, mimetype=answer.headers["Content-Type"])


def _refuse_other_machines() -> None:
    if not is_from_this_machine(request.environ):
        raise BadRequest(REFUSED)


def mark_as_sandbox(response: Response) -> Response:
    """Add the headers by which the playground knows the sandbox and finds the trace of a request."""
    response.headers["X-WXAuth-Mode"] = "sandbox"
    response.headers["X-WXAuth-Request"] = request_id(request.environ) or ""
    return response


def _body() -> dict[str, Any]:
    return json_object() if request.content_length or request.is_json else {}


def _limit_sessions(number: int) -> tuple[str, int]:
    store = services().store
    store.policy = replace(store.policy, max_sessions=number)
    return "", 204


def _limit_logins(rate: str) -> tuple[str, int]:
    own = services()
    own.rate_limits = RateLimits(replace(own.settings, login_rate=rate), own.redis, own.store.now)
    return "", 204


def _user() -> User:
    appid = next(iter(services().settings.apps))
    return User(appid, _fakes().fake_wechat.openid_of(appid, text(_body(), "user", 64) or "visitor"))


def _fakes() -> SandboxServices:
    return cast(SandboxServices, services())
