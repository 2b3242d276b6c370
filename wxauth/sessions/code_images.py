"""The image that a website shows, so that a phone can scan a user_code.

wxa:d:{<22 characters>}:i    the image from WeChat, for the life of the user_code
wxa:d:{<22 characters>}:f    a worker is fetching it
"""

from __future__ import annotations

from functools import partial

from ..errors import WeChatBusy
from ..models import Secret
from ..storage.client import RedisClient
from ..storage.single_flight import single_flight
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from .device_codes import DeviceCodes


class CodeImages:
    """Mini-program codes from WeChat. One for each worker. `page` is WXAUTH_SCAN_PAGE."""

    def __init__(
        self, redis: RedisClient, codes: DeviceCodes, tokens: AccessTokens, wechat: WeChatClient, page: str
    ) -> None:
        self._redis = redis
        self._codes = codes
        self._tokens = tokens
        self._wechat = wechat
        self._page = page

    def get(self, user_code: str) -> bytes:
        """Return the mini-program code, PNG or JPEG. It is fetched once.

        Raises DeviceCodeNotFound, WeChatError or StoreUnavailable.
        """
        asked, seconds = self._codes.show(user_code)
        try:
            return self._kept(user_code) or self._tokens.use(asked.appid, partial(self._shared, user_code, seconds))
        except TimeoutError:
            raise WeChatBusy from None

    def _kept(self, user_code: str) -> bytes | None:
        return self._redis.read(f"{self._codes.name_of(user_code)}:i")

    def _shared(self, user_code: str, seconds: int, token: Secret, deadline: float) -> bytes:
        lock = f"{self._codes.name_of(user_code)}:f"
        fetch = partial(self._fetch, user_code, seconds, token, deadline)
        return single_flight(self._redis, lock, deadline, partial(self._kept, user_code), fetch)

    def _fetch(self, user_code: str, seconds: int, token: Secret, deadline: float) -> bytes:
        image = self._wechat.code_image(user_code, self._page, token, deadline)
        self._redis.set(f"{self._codes.name_of(user_code)}:i", max(seconds, 1), image)
        return image
