"""WeChat's interfaces as this service uses them, and what its errcodes mean. Knows no HTTP of ours and no Redis.

Source: the official "小程序登录凭证校验" (code2Session) and the list of global errcodes.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from . import strict_json
from .errors import (
    CodeInvalid,
    CodeUsed,
    UserBlocked,
    WeChatBusy,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatUnreachable,
)
from .identity import Identity, Secret, User
from .metrics import WECHAT_SECONDS
from .transport import Transport

log = logging.getLogger(__name__)

#: Errcodes that the user's phone can do something about.
ERRCODES: Final[Mapping[int, type[WeChatError]]] = {
    -1: WeChatBusy,
    40029: CodeInvalid,
    40163: CodeUsed,
    40226: UserBlocked,
    45011: WeChatRateLimited,
}


class Text(NamedTuple):
    """One sentence in both languages."""

    english: str
    chinese: str


#: What is wrong and how to cure it, for each errcode that is known here.
# fmt: off
MEANINGS: Final[Mapping[int, Text]] = {
    -1: Text(
        "WeChat is busy: try again, the code is not used up by this",
        "微信系统繁忙：稍后再试，code 并没有因此用掉",
    ),
    40029: Text(
        "WeChat does not know the code: call wx.login again, and compare the AppID in DevTools with WECHAT_APPID",
        "微信不认这个 code：重新调 wx.login，并核对开发者工具里的 AppID 和 WECHAT_APPID",
    ),
    40163: Text(
        "the code was exchanged before: call wx.login again, and never send a code twice",
        "code 已经换过了：重新调 wx.login，同一个 code 不要发两次",
    ),
    40226: Text(
        "WeChat holds the user for high-risk: there is no cure on this side",
        "微信判定是高风险用户：我们这边没办法",
    ),
    45011: Text(
        "the user logged in too often within a minute: log in when the token is gone, not on every page",
        "这个用户一分钟内登录太频繁：token 没了再登录，不要每个页面都登录",
    ),
    40013: Text(
        "the AppID is wrong: compare WECHAT_APPID with the WeChat console",
        "AppID 不对：和微信公众平台核对 WECHAT_APPID",
    ),
    40125: Text(
        "the AppSecret is wrong, or was reset: copy it again from the WeChat console",
        "AppSecret 不对，或者被重置过：从微信公众平台重新复制一遍",
    ),
    40164: Text(
        "this server's address is not on the IP list of the WeChat console: add it, or switch the list off",
        "本服务器的出口 IP 不在微信公众平台的白名单里：加进去，或者关掉白名单",
    ),
    40243: Text(
        "the AppSecret is frozen: unfreeze it in the WeChat console",
        "AppSecret 被冻结：到微信公众平台解冻",
    ),
    41002: Text(
        "the AppID did not arrive: is WXAUTH_WECHAT_URL a relay that drops the query?",
        "AppID 没有送到：查一下 WXAUTH_WECHAT_URL 的中转是不是丢了查询参数",
    ),
    41004: Text(
        "the AppSecret did not arrive: is WXAUTH_WECHAT_URL a relay that drops the query?",
        "AppSecret 没有送到：查一下 WXAUTH_WECHAT_URL 的中转是不是丢了查询参数",
    ),
    45009: Text(
        "the quota of the day is used up: wait, or reset it in the WeChat console",
        "当天的额度用完了：等一等，或者到微信公众平台清零",
    ),
    50002: Text(
        "the mini program is restricted: see the notices in the WeChat console",
        "小程序受限：看微信公众平台的通知",
    ),
    50007: Text(
        "the mini program's account is frozen: see the notices in the WeChat console",
        "小程序账号被冻结：看微信公众平台的通知",
    ),
}
# fmt: on

#: Errcodes that only the operator can do something about, and what, as the log has it.
CURES: Final[Mapping[int, str]] = {
    errcode: text.english for errcode, text in MEANINGS.items() if errcode not in ERRCODES
}

BUSY_TRIES: Final = 3
BUSY_PAUSE: Final = 0.1
RID: Final = re.compile(r"(?:rid|req_id): *([\w-]{1,64})", re.ASCII)
ADDRESS: Final = re.compile(r"invalid ip ([0-9.]{7,15})", re.ASCII)
OPENID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
SESSION_KEY: Final = re.compile(r"[!-~]{1,128}")


class WeChatClient:
    """Asks WeChat on behalf of the configured apps. One for each worker; safe to share between threads."""

    def __init__(self, apps: Mapping[str, Secret], transport: Transport, timeout: float, at_once: int) -> None:
        self._apps = apps
        self._transport = transport
        self._timeout = timeout
        # Whoever waits for WeChat holds a thread, and those who are logged in need some too.
        self._slots = threading.BoundedSemaphore(at_once)
        #: For each app whose newest answer was an errcode that only the operator can mend, that errcode.
        self.misconfigured: dict[str, int] = {}

    def exchange(self, appid: str, code: str) -> Identity:
        """Exchange the code of `wx.login` for the identity behind it (jscode2session).

        A code can be exchanged once, so nothing is sent twice but after -1, which has not consumed it. Raises
        WeChatError, each errcode as its own leaf; WeChatBusy at once where too many are waiting already.
        """
        query: dict[str, str | Secret] = {
            "appid": appid,
            "secret": self._apps[appid],
            "js_code": code,
            "grant_type": "authorization_code",
        }
        with self._slot():
            return self._exchange_unless_busy(appid, query, time.monotonic() + self._timeout)

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise WeChatBusy
        try:
            with WECHAT_SECONDS.time():
                yield
        finally:
            self._slots.release()

    def _exchange_unless_busy(self, appid: str, query: Mapping[str, str | Secret], deadline: float) -> Identity:
        for _ in range(BUSY_TRIES - 1):
            try:
                return self._exchange(appid, query, deadline)
            except WeChatBusy:
                time.sleep(max(min(BUSY_PAUSE, deadline - time.monotonic()), 0))
        return self._exchange(appid, query, deadline)

    def _exchange(self, appid: str, query: Mapping[str, str | Secret], deadline: float) -> Identity:
        answer = _parse(self._transport.get("/sns/jscode2session", query, deadline))
        self._refuse_errcode(appid, answer)
        self.misconfigured.pop(appid, None)
        return _identity(appid, answer)

    def _refuse_errcode(self, appid: str, answer: Mapping[str, Any]) -> None:
        errcode = _errcode(answer)
        if errcode == 0:
            return
        message = str(answer.get("errmsg", ""))
        rid = found[1] if (found := RID.search(message)) else None
        if cure := CURES.get(errcode):
            self.misconfigured[appid] = errcode
            address = found[1] if (found := ADDRESS.search(message)) else None
            log.error("wechat_misconfigured", extra={"errcode": errcode, "rid": rid, "cure": cure, "ip": address})
            raise WeChatMisconfigured(errcode, rid, cure, address)
        if errcode in ERRCODES and errcode != -1:
            # Whoever judges the code has accepted the AppID and the secret.
            self.misconfigured.pop(appid, None)
        log.warning("wechat_errcode", extra={"errcode": errcode, "rid": rid})
        raise ERRCODES.get(errcode, WeChatError)(errcode, rid)


def _parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`, whatever Content-Type it came under."""
    with contextlib.suppress(ValueError):
        return strict_json.parse(body)
    raise WeChatUnreachable("not_json")


def _errcode(answer: Mapping[str, Any]) -> int:
    errcode = answer.get("errcode", 0)
    if isinstance(errcode, str) and re.fullmatch(r"-?[0-9]{1,9}", errcode):
        return int(errcode)
    if type(errcode) is not int:
        raise WeChatUnreachable("bad_errcode")
    return errcode


def _identity(appid: str, answer: Mapping[str, Any]) -> Identity:
    openid, session_key, unionid = answer.get("openid"), answer.get("session_key"), answer.get("unionid")
    if not isinstance(openid, str) or not OPENID.fullmatch(openid):
        raise WeChatUnreachable("bad_openid")
    if not isinstance(session_key, str) or not SESSION_KEY.fullmatch(session_key):
        raise WeChatUnreachable("bad_session_key")
    if unionid in (None, ""):
        unionid = None
    elif not isinstance(unionid, str) or not OPENID.fullmatch(unionid):
        raise WeChatUnreachable("bad_unionid")
    return Identity(User(appid, openid), Secret(session_key), unionid)
