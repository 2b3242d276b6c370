"""WeChat's interfaces as this service uses them. Knows no HTTP of ours and no Redis.

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

#: What is said of a code or its user, once the AppID and the AppSecret have been accepted.
CODE_ERRORS: Final = (CodeInvalid, CodeUsed, UserBlocked, WeChatRateLimited)
#: What a caller's code can bring about: it may be of another mini program, too.
PHONE_ERRCODES: Final = {**ERRCODES, 40029: PhoneCodeInvalid, 40013: PhoneCodeInvalid}
BUSY_TRIES: Final = 3
BUSY_PAUSE: Final = 0.1
RID: Final = re.compile(r"(?:rid|req_id): *([\w-]{1,64})", re.ASCII)
ADDRESS: Final = re.compile(r"invalid ip ([0-9.]{7,15})", re.ASCII)


class WeChatClient:
    """Asks WeChat on behalf of the configured apps. One for each worker; safe to share between threads.

    Every method raises WeChatError, each errcode as its own leaf. Those that take a `deadline` (a `time.monotonic()`
    value) are called within a `turn`.
    """

    def __init__(self, apps: Mapping[str, Secret], transport: Transport, timeout: float, max_concurrent: int) -> None:
        self._apps = apps
        self._transport = transport
        self._timeout = timeout
        # Whoever waits for WeChat holds a thread, and those who are logged in need some too.
        self._slots = threading.BoundedSemaphore(max_concurrent)
        #: For each app whose newest answer was an errcode that only the operator can mend, that errcode.
        self.misconfigured: dict[str, int] = {}

    @contextlib.contextmanager
    def slot(self) -> Iterator[float]:
        """A place among those who wait for WeChat, and the deadline for all that is asked there.

        Raises WeChatBusy at once where too many are waiting already.
        """
        if not self._slots.acquire(blocking=False):
            raise WeChatBusy
        try:
            with WECHAT_SECONDS.time():
                yield time.monotonic() + self._timeout
        finally:
            self._slots.release()

    def exchange(self, appid: str, code: str) -> Identity:
        """Exchange the code of `wx.login` for the identity behind it (jscode2session).

        A code can be exchanged once, so nothing is sent twice but after -1, which has not consumed it.
        """
        query: Fields = {
            "appid": appid,
            "secret": self._apps[appid],
            "js_code": code,
            "grant_type": "authorization_code",
        }
        with self.slot() as deadline:
            return _unless_busy(lambda: self._exchange(appid, query, deadline), deadline)

    def _exchange(self, appid: str, query: Fields, deadline: float) -> Identity:
        body = self._transport.get("/sns/jscode2session", query, deadline)
        return parse_identity(appid, self._answer_to_secret(appid, body))

    def access_token(self, appid: str, deadline: float, *, force: bool = False) -> AccessToken:
        """The app's access token (stable_token): the same one for as long as it lives.

        `force` ends that one and gives another: at most 20 times a day, 30 seconds apart.
        """
        body: Fields = {
            "grant_type": "client_credential",
            "appid": appid,
            "secret": self._apps[appid],
            "force_refresh": force,
        }

        def ask() -> AccessToken:
            answer = self._transport.post("/cgi-bin/stable_token", {}, body, deadline)
            return parse_access_token(self._answer_to_secret(appid, answer))

        return ask() if force else _unless_busy(ask, deadline)

    def phone_number(self, user: User, code: str, token: Secret, deadline: float) -> PhoneNumber:
        """The number behind the code of the phone button, if it was this user who tapped it (getuserphonenumber).

        Such a code can be used once, and that -1 leaves it unused is said of `wx.login` alone: it is sent once.
        """
        query, body = {"access_token": token}, {"code": code, "openid": user.openid}
        answer = self._transport.post("/wxa/business/getuserphonenumber", query, body, deadline)
        return parse_phone_number(user.appid, self._answer(answer, PHONE_ERRCODES))

    def check_session_key(self, user: User, session_key: Secret, token: Secret, deadline: float) -> None:
        """Returns if the session_key is the user's at WeChat (checksession), else SessionKeyStale."""
        _unless_busy(lambda: self._ask_signed("/wxa/checksession", user, session_key, token, deadline), deadline)

    def reset_session_key(self, user: User, session_key: Secret, token: Secret, deadline: float) -> Secret:
        """The user's new session_key; the given one is dead from now on (resetusersessionkey), or SessionKeyStale.

        The second of two would be signed with a dead key, so it is sent once.
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
        return self._answer(self._transport.get(path, query, deadline))

    def _answer_to_secret(self, appid: str, body: bytes) -> Answer:
        """As `_answer`, to a request with the AppSecret in it: whether WeChat takes that is then known."""
        try:
            answer = self._answer(body)
        except CODE_ERRORS:
            self.misconfigured.pop(appid, None)
            raise
        except WeChatMisconfigured as error:
            self.misconfigured[appid] = error.errcode or 0
            raise
        self.misconfigured.pop(appid, None)
        return answer

    def _answer(self, body: bytes, errcodes: Mapping[int, type[WeChatError]] = ERRCODES) -> Answer:
        """What WeChat answers, unless that is an errcode, which `errcodes` may know as one of the caller's making."""
        answer = parse(body)
        errcode = parse_errcode(answer)
        if errcode == 0:
            return answer
        message = str(answer.get("errmsg", ""))
        rid = found[1] if (found := RID.search(message)) else None
        if errcode not in errcodes and (hint := HINTS.get(errcode)):
            address = found[1] if (found := ADDRESS.search(message)) else None
            log.error("wechat_misconfigured", extra={"errcode": errcode, "rid": rid, "hint": hint, "ip": address})
            raise WeChatMisconfigured(errcode, rid, hint, address)
        log.warning("wechat_errcode", extra={"errcode": errcode, "rid": rid})
        raise errcodes.get(errcode, WeChatError)(errcode, rid)


def signature(session_key: Secret, message: str = "") -> str:
    """What proves to WeChat that we know the user's session_key; in the interfaces above, of no message at all.

    The key is the text as it was received. Elsewhere it stands for the 16 bytes that it encodes; not here.
    """
    return hmac.digest(session_key.reveal().encode(), message.encode(), "sha256").hex()


def _unless_busy(ask: Callable[[], T], deadline: float) -> T:
    """What `ask` returns; after -1 it is asked again, BUSY_TRIES times in all."""
    for _ in range(BUSY_TRIES - 1):
        try:
            return ask()
        except WeChatBusy:
            time.sleep(max(min(BUSY_PAUSE, deadline - time.monotonic()), 0))
    return ask()
