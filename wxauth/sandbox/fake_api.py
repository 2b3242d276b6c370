"""The interfaces of the fake WeChat that need an access token, and the one that issues it.

An access token is valid for two hours. The same token is returned until its last five minutes. A forced refresh
revokes it; WeChat allows 20 a day, at least 30 seconds apart. A phone code is single use, valid for five minutes, and
bound to the user who tapped the button.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import segno

from ..models import Secret

TOKEN_TTL: Final = 7200
RENEWAL_WINDOW: Final = 300
FORCED_INTERVAL: Final = 30
MAX_FORCED_PER_DAY: Final = 20
DAY: Final = 86400
CODE_TTL: Final = 300
MAX_CODES: Final = 10000
SCENE: Final = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]{1,32}")
#: The phone numbers of WeChat's test accounts.
FIRST_NUMBER: Final = 12066600001
NUMBERS: Final = 4

#: The outcomes that a phone code can be given: an errcode with WeChat's message, or a failure.
ERRORS: Final[Mapping[str, str]] = {
    "40029": "invalid code",
    "45011": "api minute-quota reach limit, must slower",
    "-1": "system error",
}
FAILURES: Final = ("stall", "garbage")
OUTCOMES: Final = (*ERRORS, *FAILURES)

Query = Mapping[str, str]
Answer = dict[str, Any] | str | bytes


class Users(Protocol):
    """The part of FakeWeChat that this module uses."""

    def openid_of(self, appid: str, user: str) -> str: ...

    def session_key_of(self, appid: str, openid: str) -> str | None: ...

    def replace_session_key(self, appid: str, openid: str) -> str: ...


@dataclass(slots=True)
class _App:
    """The access tokens of an app with their expiry, the newest last, and the times of its forced refreshes."""

    tokens: dict[str, float] = field(default_factory=dict)
    newest: str = ""
    forced_at: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _PhoneCode:
    appid: str
    openid: str
    number: int
    outcome: str | None
    created_at: float


class FakeAPI:
    """Answers requests. Not thread-safe: FakeWeChat holds its lock."""

    def __init__(self, apps: Mapping[str, Secret], users: Users, clock: Callable[[], float]) -> None:
        self._secrets = apps
        self._users = users
        self._clock = clock
        self._apps: dict[str, _App] = {}
        self._codes: dict[str, _PhoneCode] = {}
        self._interfaces: dict[str, tuple[str, Callable[[str, Query, Mapping[str, Any]], Answer]]] = {
            "/wxa/business/getuserphonenumber": ("POST", self._phone_number),
            "/wxa/getwxacodeunlimit": ("POST", self._code_image),
            "/wxa/checksession": ("GET", self._check_session),
            "/wxa/resetusersessionkey": ("GET", self._reset_session_key),
        }

    def tap_phone_button(self, user: str, appid: str | None = None, outcome: str | None = None) -> str:
        """Return a phone code for `user`. Its exchange ends in `outcome`, if given."""
        appid = appid or next(iter(self._secrets))
        code = secrets.token_hex(32)
        number = FIRST_NUMBER + hashlib.sha256(user.encode()).digest()[0] % NUMBERS
        openid = self._users.openid_of(appid, user)
        self._codes[code] = _PhoneCode(appid, openid, number, outcome, self._clock())
        if len(self._codes) > MAX_CODES:
            del self._codes[next(iter(self._codes))]
        return code

    def newest_access_token(self, appid: str) -> str:
        """Return the newest access token of the app; "" if there is none."""
        return self._app(appid).newest

    def reject_access_token(self, appid: str) -> None:
        """Reject the access token of the app from now on, but still return it as the newest."""
        self._app(appid).tokens.clear()

    def answer(self, method: str, path: str, query: Query, body: Mapping[str, Any]) -> Answer:
        """Return WeChat's answer to a request, or "stall" or "garbage"."""
        if path == "/cgi-bin/stable_token":
            return self._stable_token(body) if method == "POST" else error(43002, "require POST method")
        if path not in self._interfaces:
            return error(40066, "invalid url")
        needed, interface = self._interfaces[path]
        if method != needed:
            return error(43002 if needed == "POST" else 43001, f"require {needed} method")
        token = query.get("access_token")
        if not token:
            return error(41001, "access_token missing")
        appid, expires_at = self._owner(token)
        if not appid:
            return error(40001, "invalid credential, access_token is invalid or not latest")
        return interface(appid, query, body) if self._clock() < expires_at else error(42001, "access_token expired")

    def _stable_token(self, body: Mapping[str, Any]) -> Answer:
        appid, secret = body.get("appid"), body.get("secret")
        if body.get("grant_type") != "client_credential":
            return error(40002, "invalid grant_type")
        if not appid:
            return error(41002, "appid missing")
        if not secret:
            return error(41004, "appsecret missing")
        if appid not in self._secrets:
            return error(40013, "invalid appid")
        if self._secrets[appid].reveal() != secret:
            return error(40125, "invalid appsecret")
        return self._issue(self._app(appid), force=body.get("force_refresh") is True)

    def _issue(self, app: _App, *, force: bool) -> Answer:
        now = self._clock()
        app.forced_at = [at for at in app.forced_at if now - at < DAY]
        if force and len(app.forced_at) >= MAX_FORCED_PER_DAY:
            return error(45009, "reach max api daily quota limit")
        # Within FORCED_INTERVAL of the last forced refresh, WeChat returns the current token.
        if force and not (app.forced_at and now - app.forced_at[-1] < FORCED_INTERVAL):
            app.forced_at.append(now)
            app.tokens.clear()
            app.newest = ""
        expires_at = app.tokens.get(app.newest, now + TOKEN_TTL)
        if not app.newest or expires_at - now <= RENEWAL_WINDOW:
            app.newest, expires_at = secrets.token_urlsafe(96), now + TOKEN_TTL
            app.tokens[app.newest] = expires_at
        return {"access_token": app.newest, "expires_in": int(expires_at - now)}

    def _app(self, appid: str) -> _App:
        return self._apps.setdefault(appid, _App())

    def _owner(self, token: str) -> tuple[str, float]:
        found = ((appid, app.tokens[token]) for appid, app in self._apps.items() if token in app.tokens)
        return next(found, ("", 0.0))

    def _phone_number(self, appid: str, query: Query, body: Mapping[str, Any]) -> Answer:
        code = self._codes.get(str(body.get("code")))
        if code is None or self._clock() - code.created_at >= CODE_TTL:
            return error(40029, ERRORS["40029"])
        if code.appid != appid:
            return error(40013, "invalid appid")
        if body.get("openid") not in (None, code.openid):
            return error(40029, ERRORS["40029"])
        if code.outcome == "-1":
            return error(-1, ERRORS["-1"])
        del self._codes[str(body["code"])]
        if code.outcome is not None and code.outcome in ERRORS:
            return error(int(code.outcome), ERRORS[code.outcome])
        return code.outcome or self._phone_info(code)

    def _phone_info(self, code: _PhoneCode) -> Answer:
        watermark = {"timestamp": int(code.created_at), "appid": code.appid}
        number = {"phoneNumber": str(code.number), "purePhoneNumber": str(code.number), "countryCode": "86"}
        return {"errcode": 0, "errmsg": "ok", "phone_info": {**number, "watermark": watermark}}

    def _code_image(self, appid: str, query: Query, body: Mapping[str, Any]) -> Answer:
        """Draw a QR code with the scene. A real mini-program code is round, and only WeChat can read it."""
        scene = body.get("scene")
        if not isinstance(scene, str) or not SCENE.fullmatch(scene):
            return error(40129, "invalid scene")
        image = io.BytesIO()
        segno.make(scene, micro=False).save(image, kind="png", scale=8)
        return image.getvalue()

    def _check_session(self, appid: str, query: Query, body: Mapping[str, Any]) -> Answer:
        return self._check_signature(appid, query) or {"errcode": 0, "errmsg": "ok"}

    def _reset_session_key(self, appid: str, query: Query, body: Mapping[str, Any]) -> Answer:
        rejection = self._check_signature(appid, query)
        if rejection:
            return rejection
        openid = query["openid"]
        session_key = self._users.replace_session_key(appid, openid)
        return {"errcode": 0, "errmsg": "ok", "openid": openid, "session_key": session_key}

    def _check_signature(self, appid: str, query: Query) -> Answer | None:
        """Return the error, or None if the signature is valid."""
        if not query.get("openid") or not query.get("signature"):
            return error(40097, "invalid args")
        if query.get("sig_method") != "hmac_sha256":
            return error(87008, "invalid sig_method")
        session_key = self._users.session_key_of(appid, query["openid"])
        if session_key is None:
            return error(87007, "session_key is not existed or expired")
        expected = hmac.new(session_key.encode("ascii"), digestmod=hashlib.sha256).hexdigest()
        return None if query["signature"] == expected else error(87009, "invalid signature")


def error(errcode: int, errmsg: str) -> dict[str, Any]:
    """Return an error in WeChat's format, with a request id."""
    return {"errcode": errcode, "errmsg": f"{errmsg}, rid: {secrets.token_hex(4)}-{secrets.token_hex(4)}"}
