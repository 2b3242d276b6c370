"""The service with the fakes in place of WeChat and Redis, and the routes that the playground uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from flask import Blueprint, Flask, Response, current_app, request

from ..errors import BadRequest
from ..keys import KeyRing
from ..logs import request_id
from ..sessions.records import hash_name
from ..settings import Settings
from ..storage.client import RedisClient
from ..web.app import create_app as create_service
from ..web.extension import services, session_store, wechat_client
from ..web.requests import bearer_token, json_object, text
from ..wechat.transport import Transport
from . import playground
from .fake_api import OUTCOMES as PHONE_OUTCOMES
from .fake_redis import FakeRedis
from .fake_wechat import OUTCOMES, FakeWeChat
from .loopback import LoopbackOnly
from .trace import Trace
from .watched_wechat import WatchedWeChat

FAKES: Final = "wxauth_fakes"
MAX_SESSIONS: Final = 1000

bp = Blueprint("sandbox", __name__, url_prefix="/sandbox")


@dataclass(frozen=True, slots=True)
class Fakes:
    """The replacements for WeChat and Redis, and what the playground reads."""

    wechat: FakeWeChat
    redis: FakeRedis
    trace: Trace
    ring: KeyRing


def create_app(settings: Settings) -> Flask:
    """Return the service with a fake WeChat and an in-memory Redis. Both exist in this process only."""
    trace = Trace(request_id)
    fakes = Fakes(FakeWeChat(settings.apps), FakeRedis(trace), trace, KeyRing(settings.secret_keys))
    transport = Transport(settings.wechat_url, WatchedWeChat(fakes.wechat, trace))
    app = create_service(
        settings,
        wechat=wechat_client(settings, transport),
        store=session_store(settings, RedisClient(lambda: fakes.redis.client)),
    )
    app.extensions[FAKES] = fakes
    app.register_blueprint(bp)
    app.register_blueprint(playground.bp)
    app.wsgi_app = LoopbackOnly(app.wsgi_app)  # type: ignore[method-assign]
    return app


@bp.post("/wx.login")
def wx_login() -> dict[str, Any]:
    """Return a code, as wx.login does on a phone."""
    body = _body()
    user, outcome, new_key = text(body, "user", 64), text(body, "outcome", 16), body.get("new_key", False)
    if outcome is not None and outcome not in OUTCOMES:
        raise BadRequest(f"outcome must be one of {', '.join(OUTCOMES)}.")
    if not isinstance(new_key, bool):
        raise BadRequest("new_key must be true or false.")
    return {"code": _fakes().wechat.wx_login(user or "visitor", outcome, new_key=new_key)}


@bp.post("/wx.getUserProfile")
def wx_get_user_profile() -> dict[str, Any]:
    """Return a profile, as wx.getUserProfile does. The sandbox has exactly one app."""
    (appid,) = services().settings.apps
    return _fakes().wechat.wx_get_user_profile(appid, text(_body(), "user", 64) or "visitor")


@bp.post("/getPhoneNumber")
def tap_phone_button() -> dict[str, Any]:
    """Return a phone code, as the phone button does. A login rejects it."""
    body = _body()
    user, outcome = text(body, "user", 64), text(body, "outcome", 16)
    if outcome is not None and outcome not in PHONE_OUTCOMES:
        raise BadRequest(f"outcome must be one of {', '.join(PHONE_OUTCOMES)}.")
    return {"code": _fakes().wechat.tap_phone_button(user or "visitor", outcome=outcome)}


@bp.get("/trace/<id>")
def show_trace(id: str) -> dict[str, Any]:
    """Return the calls to WeChat and Redis of one request. Its id is in X-WXAuth-Request and in every problem."""
    return {"notes": _fakes().trace.of(id) or []}


@bp.get("/redis")
def show_redis() -> dict[str, Any]:
    redis = _fakes().redis
    return {"back_in": redis.starts_in, "holds": redis.content()}


@bp.delete("/redis")
def stop_redis() -> dict[str, Any]:
    _fakes().redis.stop()
    return show_redis()


@bp.put("/redis")
def start_redis() -> dict[str, Any]:
    _fakes().redis.start()
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


@bp.post("/expire")
def expire() -> tuple[str, int]:
    """Expire the session of the token in `Authorization`, as its idle timeout does."""
    fakes = _fakes()
    token = fakes.ring.verify(bearer_token())
    fakes.redis.expire(hash_name(token.hash_tag), token.id)
    return "", 204


@bp.after_app_request
def _mark_as_sandbox(response: Response) -> Response:
    response.headers["X-WXAuth-Mode"] = "sandbox"
    response.headers["X-WXAuth-Request"] = request_id() or ""
    return response


def _body() -> dict[str, Any]:
    return json_object() if request.content_length or request.is_json else {}


def _limit_sessions(number: int) -> tuple[str, int]:
    store = services().store
    store.policy = replace(store.policy, max_sessions=number)
    return "", 204


def _fakes() -> Fakes:
    found: Fakes = current_app.extensions[FAKES]
    return found
