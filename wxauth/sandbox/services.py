"""What an application uses in the sandbox: a fake WeChat and an in-memory Redis, in this process only."""

from __future__ import annotations

import time

from flask import has_request_context, request

from ..clock import Clock
from ..errors import BadRequest
from ..keys import KeyRing
from ..logs import request_id
from ..settings import Settings
from ..storage.client import RedisClient
from ..web.services import Services, session_store, wechat_client
from ..wechat.transport import Transport
from .fake_redis import OUTAGE, FakeRedis
from .fake_wechat import FakeWeChat
from .loopback import REFUSED, is_from_this_machine
from .trace import Trace
from .watched_wechat import WatchedWeChat


class SandboxServices(Services):
    """The services of an application, over fakes. A stopped Redis starts again after `outage` seconds.

    Only this machine may log in, except in the tests of an application.
    """

    def __init__(
        self, settings: Settings, clock: Clock | None = None, outage: float = OUTAGE, *, is_test: bool = False
    ) -> None:
        self._is_test = is_test
        self.trace = Trace(_current_request_id)
        self.ring = KeyRing(settings.secret_keys)
        self.fake_wechat = FakeWeChat(settings.apps, clock or time.time)
        self.fake_redis = FakeRedis(self.trace, outage=outage)
        transport = Transport(settings.wechat_url, WatchedWeChat(self.fake_wechat, self.trace))
        redis = RedisClient(lambda: self.fake_redis.client)
        super().__init__(settings, wechat_client(settings, transport), session_store(settings, redis, clock))

    def check_caller(self) -> None:
        """Raise BadRequest if the request is from another machine."""
        if has_request_context() and not self._is_test and not is_from_this_machine(request.environ):
            raise BadRequest(REFUSED)


def _current_request_id() -> str | None:
    # An application has no middleware of ours, and `/verify` of the service is not in Flask.
    return request_id(request.environ if has_request_context() else None)
