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
from typing import Any, Final

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

#: Errcodes that only the operator can do something about, and what.
CURES: Final[Mapping[int, str]] = {
    40013: "the AppID is wrong: compare WECHAT_APPID with the WeChat console",
    40125: "the AppSecret is wrong, or was reset: copy it again from the WeChat console",
    40164: "this server's address is not on the IP list of the WeChat console: add it, or switch the list off",
    40243: "the AppSecret is frozen: unfreeze it in the WeChat console",
    41002: "the AppID did not arrive: is WXAUTH_WECHAT_URL a relay that drops the query?",
    41004: "the AppSecret did not arrive: is WXAUTH_WECHAT_URL a relay that drops the query?",
    45009: "the quota of the day is used up: wait, or reset it in the WeChat console",
    50002: "the mini program is restricted: see the notices in the WeChat console",
    50007: "the mini program's account is frozen: see the notices in the WeChat console",
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
            raise WeChatMisconfigured(errcode, rid, cure)
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
