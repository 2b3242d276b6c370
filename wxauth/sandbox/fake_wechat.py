"""A fake WeChat with WeChat's rules, as an adapter of `requests`: no server and no network.

A code is single use and valid for five minutes. A user has one session_key at a time, and not every login changes it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ..models import Secret
from .crypto import compact, encrypt, encrypt_push, serialize, sign, sign_push
from .fake_api import FakeAPI, error

CODE_TTL: Final = 300
SESSION_KEY_TTL: Final = 300
MAX_CODES: Final = 10000
MOCK_CODE: Final = "the code is a mock one"

#: The outcomes that a code can be given: an errcode with WeChat's message, or a failure.
ERRORS: Final[Mapping[str, str]] = {
    "40029": "invalid code",
    "40163": "code been used",
    "40164": "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist",
    "40226": "code blocked",
    "45011": "api minute-quota reach limit, must slower",
    "-1": "system error",
}
#: After these a code can still be exchanged.
UNUSED: Final = ("-1", "40164")
FAILURES: Final = ("stall", "garbage")
OUTCOMES: Final = (*ERRORS, *FAILURES)


@dataclass(slots=True)
class _Code:
    user: str
    outcome: str | None
    new_key: bool
    created_at: float
    used: bool = False


class FakeWeChat(HTTPAdapter):
    """Give it to `Transport` in place of the network. Each openid starts with `oSANDBOX`."""

    def __init__(self, apps: Mapping[str, Secret], clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._apps: ChainMap[str, Secret] = ChainMap({}, apps)  # type: ignore[arg-type]  # never written
        self._clock = clock
        self._next_errors: list[int] = []
        self._lock = threading.Lock()
        self._codes: dict[str, _Code] = {}
        self._session_keys: dict[tuple[str, str], tuple[str, float]] = {}
        self.api = FakeAPI(self._apps, self, clock)

    def add_app(self, appid: str, secret: str) -> None:
        """Accept an AppID that is new here, with this AppSecret from now on."""
        if appid and secret:
            self._apps.setdefault(appid, Secret(secret))

    def fail_next(self, errcode: int, times: int = 1) -> None:
        """Answer the next `times` requests with `errcode`."""
        self._next_errors += [errcode] * times

    def wx_login(self, user: str = "visitor", outcome: str | None = None, *, new_key: bool = False) -> str:
        """Return a code, as wx.login does on the phone of `user`. Its exchange ends in `outcome`, if given.

        With `new_key` the exchange replaces the session_key of the user.
        """
        code = "0" + secrets.token_hex(15) + "A"
        with self._lock:
            self._codes[code] = _Code(user, outcome, new_key, self._clock())
            _drop_oldest(self._codes)
        return code

    def wx_get_user_profile(self, appid: str, user: str = "visitor") -> dict[str, str]:
        """Return a profile, as wx.getUserProfile does: `rawData`, `signature`, `encryptedData`, `iv`."""
        with self._lock:
            session_key = self._session_key(appid, user)
        profile = {"nickName": user, "gender": 0, "language": "zh_CN", "city": "", "province": "", "country": ""}
        watermark = {"timestamp": int(self._clock()), "appid": appid}
        raw_data = compact(profile)
        encrypted = encrypt(session_key, profile | {"watermark": watermark})
        return {"rawData": raw_data, "signature": sign(session_key, raw_data), **encrypted}

    def push(
        self, appid: str, user: str, event: str, token: str, aes_key: str = "", form: str = "json"
    ) -> tuple[dict[str, str], bytes]:
        """Return query and body of the push message for `event`, encrypted if `aes_key` is given."""
        openid = self.openid_of(appid, user)
        message = {"ToUserName": "gh_sandbox", "FromUserName": "oSANDBOXwechat", "CreateTime": int(self._clock())}
        message |= {"MsgType": "event", "Event": event, "OpenID": openid, "AppID": appid, "RevokeInfo": "1"}
        timestamp, nonce = str(int(self._clock())), str(secrets.randbelow(10**9))
        query = {"timestamp": timestamp, "nonce": nonce, "signature": sign_push(token, timestamp, nonce)}
        if not aes_key:
            return query, serialize(message, form)
        encrypted = encrypt_push(aes_key, appid, serialize(message, form))
        query |= {"encrypt_type": "aes", "msg_signature": sign_push(token, timestamp, nonce, encrypted)}
        return query, serialize({"ToUserName": "gh_sandbox", "Encrypt": encrypted}, form)

    def tap_phone_button(self, user: str = "visitor", appid: str | None = None, outcome: str | None = None) -> str:
        """Return a phone code, as the phone button does on the phone of `user`. The default app is the first."""
        with self._lock:
            return self.api.tap_phone_button(user, appid, outcome)

    def openid_of(self, appid: str, user: str) -> str:
        return f"oSANDBOX{_digest(appid, user)}"

    def session_key_of(self, appid: str, openid: str) -> str | None:
        """Return the session_key of the user; None if the user never logged in."""
        found = [key for (app, user), (key, _) in self._session_keys.items() if self.openid_of(app, user) == openid]
        return found[0] if found else None

    def replace_session_key(self, appid: str, openid: str) -> str:
        """Replace the session_key of the user and return the new one. The expiry does not change."""
        user = next(user for app, user in self._session_keys if self.openid_of(app, user) == openid)
        session_key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._session_keys[appid, user] = session_key, self._session_keys[appid, user][1]
        return session_key

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(request.url or "")
        query = {name: values[0] for name, values in parse_qs(str(parts.query)).items()}
        answer = self._answer(str(request.method), str(parts.path), query, request.body)
        if answer == "stall":
            time.sleep(kwargs["timeout"])
            raise requests.ReadTimeout(f"{request.url} timed out", request=request)
        body = b"<html>502 Bad Gateway</html>" if answer == "garbage" else _body(answer)
        raw = urllib3.HTTPResponse(
            io.BytesIO(body), {"Content-Type": "text/plain"}, status=200, preload_content=False
        )
        return self.build_response(request, raw)

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> dict[str, Any] | str | bytes:
        if self._next_errors:
            return error(self._next_errors.pop(0), "set by fail_next")
        if (method, path) == ("GET", "/sns/jscode2session"):
            return self._jscode2session(query)
        with self._lock:
            return self.api.answer(method, path, query, json.loads(body or "{}"))

    def _jscode2session(self, query: Mapping[str, str]) -> dict[str, object] | str:
        appid, secret = query.get("appid"), query.get("secret")
        if not appid:
            return error(41002, "appid missing")
        if not secret:
            return error(41004, "appsecret missing")
        if appid not in self._apps:
            return error(40013, "invalid appid")
        if self._apps[appid].reveal() != secret:
            return error(40125, "invalid appsecret")
        if query.get("grant_type") != "authorization_code":
            return error(40002, "invalid grant_type")
        if not query.get("js_code"):
            return error(41008, "missing code")
        with self._lock:
            return self._exchange(appid, query["js_code"])

    def _exchange(self, appid: str, text: str) -> dict[str, object] | str:
        if text == MOCK_CODE:
            return self._identity(appid, "visitor")
        code = self._codes.get(text)
        if code is None or self._clock() - code.created_at >= CODE_TTL:
            return error(40029, ERRORS["40029"])
        if code.used:
            return error(40163, ERRORS["40163"])
        code.used = code.outcome not in UNUSED
        if code.outcome is not None and code.outcome in ERRORS:
            return error(int(code.outcome), ERRORS[code.outcome])
        return code.outcome or self._identity(appid, code.user, new_key=code.new_key)

    def _identity(self, appid: str, user: str, *, new_key: bool = False) -> dict[str, object]:
        _, created_at = self._session_keys.get((appid, user), ("", 0.0))
        if new_key or self._clock() - created_at >= SESSION_KEY_TTL:
            self._session_keys.pop((appid, user), None)
        return {
            "openid": self.openid_of(appid, user),
            "unionid": f"uSANDBOX{_digest('', user)}",
            "session_key": self._session_key(appid, user),
        }

    def _session_key(self, appid: str, user: str) -> str:
        """Return the session_key of the user. Create it if there is none."""
        if (appid, user) not in self._session_keys:
            self._session_keys[appid, user] = base64.b64encode(secrets.token_bytes(16)).decode(), self._clock()
            _drop_oldest(self._session_keys)
        return self._session_keys[appid, user][0]


def _body(answer: dict[str, Any] | str | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def _drop_oldest(entries: dict[Any, Any]) -> None:
    if len(entries) > MAX_CODES:
        del entries[next(iter(entries))]


def _digest(*parts: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256("\0".join(parts).encode()).digest()).decode()[:20]
