"""Call WeChat's interfaces.

Sources: the official "小程序登录凭证校验" (code2Session), "获取稳定版接口调用凭据" (stable_token), "获取手机号"
(getPhoneNumber), "检验登录态" (checkSessionKey), "重置登录态" (ResetUserSessionKey) and "获取不限制的小程序码"
(getwxacodeunlimit).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, TypeVar

from ..errors import WeChatBusy, WeChatError, WeChatMisconfigured
from ..metrics import WECHAT_SECONDS
from ..models import Identity, PhoneNumber, Secret, User
from . import answers
from .answers import AccessToken, Answer
from .crypto import hmac_signature
from .errcodes import ERRCODES, HINTS, PHONE_ERRCODES, Errcodes
from .transport import MAX_IMAGE, Request, Transport

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_TRIES: Final = 3
#: Seconds.
RETRY_PAUSE: Final = 0.1
RID: Final = re.compile(r"(?:rid|req_id): *([\w-]{1,64})", re.ASCII)
#: A word of the text of errcode 40164 that may be an IP address.
ADDRESS: Final = re.compile(r"(?<![^ ,])[0-9a-fA-F:.]{2,45}(?![^ ,])")


class WeChatClient:
    """Calls WeChat for the configured apps. One for each worker; safe to share between threads.

    Every method raises WeChatError; each errcode has its own subclass. A method with a `deadline` (a
    `time.monotonic()` value) must be called inside `slot()`. `timeout` is in seconds.
    """

    def __init__(self, apps: Mapping[str, Secret], transport: Transport, timeout: float, max_concurrent: int) -> None:
        self._apps = apps
        self._transport = transport
        self._timeout = timeout
        self._max_concurrent = max_concurrent
        self._free_all_slots()
        #: AppID -> the errcode that only the operator can fix, until a request with the AppSecret succeeds.
        self.misconfigured: dict[str, int] = {}

    def reset(self) -> None:
        """Forget connections and calls in flight. In a forked process they are those of its parent."""
        self._transport.reset()
        self._free_all_slots()

    def _free_all_slots(self) -> None:
        # A call to WeChat holds a thread. The limit keeps threads free for users who are logged in.
        self._slots = threading.BoundedSemaphore(self._max_concurrent)

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
        with self.slot() as deadline, self._noting(appid):
            answer = self._ask(Request("/sns/jscode2session", query), deadline, MAX_TRIES)
        return answers.parse_identity(appid, answer)

    def access_token(self, appid: str, deadline: float, *, force: bool = False) -> AccessToken:
        """Return the app's current access token (stable_token).

        `force` replaces it. WeChat allows this 20 times a day, 30 seconds apart.
        """
        body = self._app_fields(appid) | {"grant_type": "client_credential", "force_refresh": force}
        with self._noting(appid):
            answer = self._ask(Request("/cgi-bin/stable_token", {}, body), deadline, 1 if force else MAX_TRIES)
        return answers.parse_access_token(answer)

    def phone_number(self, user: User, code: str, token: Secret, deadline: float) -> PhoneNumber:
        """Return the phone number for a code of the phone button (getuserphonenumber).

        With the openid WeChat refuses the code of another user. The code works once. Nothing says that -1 leaves it
        unused, so the request is sent once.
        """
        query, body = {"access_token": token}, {"code": code, "openid": user.openid}
        request = Request("/wxa/business/getuserphonenumber", query, body)
        answer = self._ask(request, deadline, errcodes=PHONE_ERRCODES)
        return answers.parse_phone_number(user.appid, answer)

    def check_session_key(self, user: User, session_key: Secret, token: Secret, deadline: float) -> None:
        """Check that WeChat has this session_key for the user (checksession). Raises SessionKeyStale if not."""
        self._ask(_signed("/wxa/checksession", user, session_key, token), deadline, MAX_TRIES)

    def reset_session_key(self, user: User, session_key: Secret, token: Secret, deadline: float) -> Secret:
        """Replace the user's session_key, and return the new one (resetusersessionkey).

        Raises SessionKeyStale if `session_key` is not the current one. A second request would be signed with the
        replaced key, so it is sent once.
        """
        answer = self._ask(_signed("/wxa/resetusersessionkey", user, session_key, token), deadline)
        return answers.parse_session_key(answer)

    def code_image(self, scene: str, page: str, token: Secret, deadline: float) -> bytes:
        """Return a mini-program code with this `scene`, PNG or JPEG (getwxacodeunlimit).

        `page` is opened with it, "" for the first page of the mini program.
        """
        body = {"scene": scene} | ({"page": page} if page else {})
        request = Request("/wxa/getwxacodeunlimit", {"access_token": token}, body, MAX_IMAGE)
        return self._read(request, deadline, MAX_TRIES, _image)

    def _app_fields(self, appid: str) -> dict[str, str | bool | Secret]:
        return {"appid": appid, "secret": self._apps[appid]}

    @contextlib.contextmanager
    def _noting(self, appid: str) -> Iterator[None]:
        """Note whether WeChat accepts the app in the block, which sends the AppSecret."""
        try:
            yield
        except WeChatMisconfigured as error:
            self.misconfigured[appid] = error.errcode or 0
            raise
        self.misconfigured.pop(appid, None)

    def _ask(self, request: Request, deadline: float, tries: int = 1, errcodes: Errcodes = ERRCODES) -> Answer:
        """Send the request, and again after -1: `tries` times in all. Return the answer if it has no errcode."""
        return self._read(request, deadline, tries, partial(_checked, errcodes=errcodes))

    def _read(self, request: Request, deadline: float, tries: int, read: Callable[[bytes], T]) -> T:
        """Send the request as `_ask` does. Return what `read` makes of the body."""
        for _ in range(tries - 1):
            try:
                return read(self._transport.ask(request, deadline))
            except WeChatBusy:
                time.sleep(max(min(RETRY_PAUSE, deadline - time.monotonic()), 0))
        return read(self._transport.ask(request, deadline))


def _signed(path: str, user: User, session_key: Secret, token: Secret) -> Request:
    """Return a request that proves knowledge of the user's session_key."""
    proof = {"signature": hmac_signature(session_key), "sig_method": "hmac_sha256"}
    return Request(path, {"access_token": token, "openid": user.openid, **proof})


def _checked(body: bytes, errcodes: Errcodes) -> Answer:
    """Return the answer. Raises WeChatError if it has an errcode: the class in `errcodes`, if there is one.

    The log gets the errcode and the `rid`, which WeChat's support needs.
    """
    answer = answers.parse(body)
    errcode, message = answers.parse_errcode(answer), str(answer.get("errmsg"))
    if errcode == 0:
        return answer
    rid = _first(RID, message)
    if errcode in HINTS and errcode not in errcodes:
        hint, address = HINTS[errcode], _refused_address(message)
        log.error("wechat_misconfigured", extra={"errcode": errcode, "rid": rid, "hint": hint, "ip": address})
        raise WeChatMisconfigured(errcode, rid, hint, address)
    log.warning("wechat_errcode", extra={"errcode": errcode, "rid": rid})
    raise errcodes.get(errcode, WeChatError)(errcode, rid)


def _image(body: bytes) -> bytes:
    """Return an image. WeChat sends errors as JSON, under any Content-Type. Raises WeChatError."""
    if body.startswith(b"{"):
        _checked(body, ERRCODES)
    return answers.parse_image(body)


def _refused_address(message: str) -> str | None:
    """Return the address of this server in the text of errcode 40164, as the IP list of the console takes it.

    WeChat names it once or twice: IPv4, IPv6, or IPv4 in the form of IPv6 (::ffff:203.0.113.7).
    """
    for word in ADDRESS.findall(message.partition("invalid ip")[2]):
        with contextlib.suppress(ValueError):
            found = ipaddress.ip_address(word)
            return str((isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped) or found)
    return None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None
