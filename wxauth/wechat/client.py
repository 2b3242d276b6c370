"""Call WeChat's interfaces.

Sources: the official "小程序登录凭证校验" (code2Session), "获取稳定版接口调用凭据" (stable_token), "获取手机号"
(getPhoneNumber), "检验登录态" (checkSessionKey) and "重置登录态" (ResetUserSessionKey).
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from ..errors import (
    CodeInvalid,
    CodeUsed,
    PhoneCodeInvalid,
    UserBlocked,
    WeChatBusy,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
)
from ..metrics import WECHAT_SECONDS
from ..models import Identity, PhoneNumber, Secret, User
from .answers import (
    AccessToken,
    Answer,
    parse,
    parse_access_token,
    parse_errcode,
    parse_identity,
    parse_phone_number,
    parse_session_key,
)
from .errcodes import ERRCODES, HINTS
from .transport import Fields, Transport

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Errors about the code or its user. WeChat reports them only after it has accepted the AppID and the AppSecret.
CODE_ERRORS: Final = (CodeInvalid, CodeUsed, UserBlocked, WeChatRateLimited)
#: For a phone code, 40013 means that the code belongs to another mini program.
PHONE_ERRCODES: Final = {**ERRCODES, 40029: PhoneCodeInvalid, 40013: PhoneCodeInvalid}
MAX_TRIES: Final = 3
#: Seconds.
RETRY_PAUSE: Final = 0.1
RID: Final = re.compile(r"(?:rid|req_id): *([\w-]{1,64})", re.ASCII)
ADDRESS: Final = re.compile(r"invalid ip ([0-9.]{7,15})", re.ASCII)


class WeChatClient:
    """Calls WeChat for the configured apps. One for each worker; safe to share between threads.

    Every method raises WeChatError; each errcode has its own subclass. A method with a `deadline` (a
    `time.monotonic()` value) must be called inside `slot()`. `timeout` is in seconds.
    """

    def __init__(self, apps: Mapping[str, Secret], transport: Transport, timeout: float, max_concurrent: int) -> None:
        self._apps = apps
        self._transport = transport
        self._timeout = timeout
        # A call to WeChat holds a thread. The limit keeps threads free for users who are logged in.
        self._slots = threading.BoundedSemaphore(max_concurrent)
        #: AppID -> the errcode that only the operator can fix, if that was WeChat's newest answer.
        self.misconfigured: dict[str, int] = {}

    @contextlib.contextmanager
    def slot(self) -> Iterator[float]:
        """Take one of the `max_concurrent` slots, and yield the deadline for all calls inside the block.

        Raises WeChatBusy at once if all slots are taken.
        """
        if not self._slots.acquire(blocking=False):
            raise WeChatBusy
        try:
            with WECHAT_SECONDS.time():
                yield time.monotonic() + self._timeout
        finally:
            self._slots.release()

    def exchange(self, appid: str, code: str) -> Identity:
        """Exchange a `wx.login` code for an identity (jscode2session).

        A code works once, so the request is repeated only after -1: WeChat has not used the code then.
        """
        query = self._app_fields(appid) | {"js_code": code, "grant_type": "authorization_code"}
        with self.slot() as deadline:
            return _retry_if_busy(lambda: self._exchange(appid, query, deadline), deadline)

    def _exchange(self, appid: str, query: Fields, deadline: float) -> Identity:
        body = self._transport.get("/sns/jscode2session", query, deadline)
        return parse_identity(appid, self._app_answer(appid, body))

    def access_token(self, appid: str, deadline: float, *, force: bool = False) -> AccessToken:
        """Return the app's current access token (stable_token).

        `force` replaces it. WeChat allows this 20 times a day, 30 seconds apart.
        """
        body = self._app_fields(appid) | {"grant_type": "client_credential", "force_refresh": force}

        def ask() -> AccessToken:
            answer = self._transport.post("/cgi-bin/stable_token", {}, body, deadline)
            return parse_access_token(self._app_answer(appid, answer))

        return ask() if force else _retry_if_busy(ask, deadline)

    def phone_number(self, user: User, code: str, token: Secret, deadline: float) -> PhoneNumber:
        """Return the phone number for a code of the phone button (getuserphonenumber).

        With the openid WeChat refuses the code of another user. The code works once. Nothing says that -1 leaves it
        unused, so the request is sent once.
        """
        query, body = {"access_token": token}, {"code": code, "openid": user.openid}
        answer = self._transport.post("/wxa/business/getuserphonenumber", query, body, deadline)
        return parse_phone_number(user.appid, _checked(answer, PHONE_ERRCODES))

    def check_session_key(self, user: User, session_key: Secret, token: Secret, deadline: float) -> None:
        """Check that WeChat has this session_key for the user (checksession). Raises SessionKeyStale if not."""
        _retry_if_busy(lambda: self._ask_signed("/wxa/checksession", user, session_key, token, deadline), deadline)

    def reset_session_key(self, user: User, session_key: Secret, token: Secret, deadline: float) -> Secret:
        """Replace the user's session_key, and return the new one (resetusersessionkey).

        Raises SessionKeyStale if `session_key` is not the current one. A second request would be signed with the
        replaced key, so it is sent once.
        """
        answer = self._ask_signed("/wxa/resetusersessionkey", user, session_key, token, deadline)
        return parse_session_key(answer)

    def _ask_signed(self, path: str, user: User, session_key: Secret, token: Secret, deadline: float) -> Answer:
        query: Fields = {
            "access_token": token,
            "openid": user.openid,
            "signature": signature(session_key),
            "sig_method": "hmac_sha256",
        }
        return _checked(self._transport.get(path, query, deadline))

    def _app_fields(self, appid: str) -> dict[str, str | bool | Secret]:
        return {"appid": appid, "secret": self._apps[appid]}

    def _app_answer(self, appid: str, body: bytes) -> Answer:
        """Return the answer to a request with the AppSecret, and note whether WeChat accepts the app."""
        try:
            answer = _checked(body)
        except CODE_ERRORS:
            self.misconfigured.pop(appid, None)
            raise
        except WeChatMisconfigured as error:
            self.misconfigured[appid] = error.errcode or 0
            raise
        self.misconfigured.pop(appid, None)
        return answer


def signature(session_key: Secret, message: str = "") -> str:
    """Return the HMAC-SHA256 that proves knowledge of the session_key. The interfaces above sign no message.

    The key is the session_key's text. Only for AES is the text decoded from base64.
    """
    return hmac.digest(session_key.reveal().encode(), message.encode(), "sha256").hex()


def _checked(body: bytes, errcodes: Mapping[int, type[WeChatError]] = ERRCODES) -> Answer:
    """Return the answer. Raises WeChatError if it has an errcode: the class in `errcodes`, if there is one."""
    answer = parse(body)
    if errcode := parse_errcode(answer):
        raise _error(errcode, str(answer.get("errmsg", "")), errcodes)
    return answer


def _error(errcode: int, message: str, errcodes: Mapping[int, type[WeChatError]]) -> WeChatError:
    """Log the errcode, and return its exception. WeChat's support needs the `rid`."""
    rid = _first(RID, message)
    if errcode not in errcodes and (hint := HINTS.get(errcode)):
        address = _first(ADDRESS, message)
        log.error("wechat_misconfigured", extra={"errcode": errcode, "rid": rid, "hint": hint, "ip": address})
        return WeChatMisconfigured(errcode, rid, hint, address)
    log.warning("wechat_errcode", extra={"errcode": errcode, "rid": rid})
    return errcodes.get(errcode, WeChatError)(errcode, rid)


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


def _retry_if_busy(ask: Callable[[], T], deadline: float) -> T:
    """Call `ask`, and again after -1: MAX_TRIES times in all."""
    for _ in range(MAX_TRIES - 1):
        try:
            return ask()
        except WeChatBusy:
            time.sleep(max(min(RETRY_PAUSE, deadline - time.monotonic()), 0))
    return ask()
