"""The image that a website shows, so that a phone can scan a user_code.

wxa:d:{<22 characters>}:i    the image from WeChat, for the life of the user_code
wxa:d:{<22 characters>}:f    a worker is fetching it
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

from ..errors import WeChatBusy
from ..models import Secret
from ..storage.client import RedisClient
from ..storage.single_flight import single_flight
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from .device_codes import DeviceCodes


class CodeImages:
    """Mini-program codes from WeChat. One for each worker. `page` is WXAUTH_SCAN_PAGE.

    At most `max_concurrent` are fetched or waited for at the same time. Each holds a thread and a slot for WeChat.
    Logins need both.
    """

    def __init__(
        self,
        redis: RedisClient,
        codes: DeviceCodes,
        tokens: AccessTokens,
        wechat: WeChatClient,
        page: str,
        max_concurrent: int = 8,
    ) -> None:
        self._redis = redis
        self._codes = codes
        self._tokens = tokens
        self._wechat = wechat
        self._page = page
        self._max_concurrent = max_concurrent
        self.reset()

    def reset(self) -> None:
        """Forget the fetches in flight. In a forked process they are those of its parent."""
        self._slots = threading.BoundedSemaphore(self._max_concurrent)

    def get(self, user_code: str, before_fetch: Callable[[], None] = lambda: None) -> bytes:
        """Return the mini-program code, PNG or JPEG. It is fetched once. `before_fetch` may raise an error.

        Raises DeviceCodeNotFound, WeChatError or StoreUnavailable.
        """
        asked, seconds = self._codes.show(user_code)
        found = self._kept(user_code)
        if found is not None:
            return found
        before_fetch()
        with self._slot():
            return self._tokens.use(asked.appid, partial(self._shared, user_code, seconds))

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """Take one of the slots. Raises WeChatBusy if all are taken, or if the block raises TimeoutError."""
        if not self._slots.acquire(blocking=False):
            raise WeChatBusy
        try:
            yield
        except TimeoutError:
            raise WeChatBusy from None
        finally:
            self._slots.release()

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
