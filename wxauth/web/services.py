"""What one application uses: settings, store, cache, limits, WeChat. `services()` returns them in a request."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final

from flask import Flask, current_app

from ..clock import Clock
from ..errors import ConfigurationError, ServerBusy
from ..keys import KeyRing
from ..sessions.cache import SessionCache
from ..sessions.code_images import CodeImages
from ..sessions.device_codes import DeviceCodes
from ..sessions.revocations import RevocationListener
from ..sessions.store import SessionPolicy, SessionStore
from ..sessions.tickets import Tickets
from ..sessions.user_api import UserApi
from ..settings import Settings
from ..storage.client import RedisClient
from ..storage.connections import connector
from ..storage.fair_semaphore import FairSemaphore
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from ..wechat.transport import Transport
from .rate_limits import RateLimits

log = logging.getLogger(__name__)

#: The key in `app.extensions`.
EXTENSION: Final = "wxauth"
#: The part of a worker's connections to Redis that logins may use at the same time.
LOGIN_SHARE: Final = 3 / 4
TOO_MANY_LOGINS: Final = "raise WXAUTH_REDIS_CONNECTIONS, or start more workers"


class Services:
    """What one application uses. Nothing connects before its first use. Tests pass `wechat` and `store`."""

    def __init__(
        self, settings: Settings, wechat: WeChatClient | None = None, store: SessionStore | None = None
    ) -> None:
        self.settings = settings
        self.wechat = wechat or wechat_client(settings, transport(settings, settings.max_wechat_calls))
        self.store = store or session_store(settings, redis_client(settings))
        self.redis = self.store.redis
        ring = KeyRing(settings.secret_keys)
        tokens = AccessTokens(self.redis, ring, self.wechat, self.store.now)
        self.user_api = UserApi(self.wechat, tokens, self.store)
        self.tickets = Tickets(self.store, ring)
        self.device_codes = DeviceCodes(self.redis, ring, self.store)
        self.code_images = CodeImages(
            self.redis, self.device_codes, tokens, self.wechat, settings.scan_page, settings.max_images
        )
        # The sandbox's Redis is in this process, so there is nothing to listen to.
        listener = None if settings.sandbox else RevocationListener(self.redis)
        self.cache = SessionCache(self.store, listener, settings.cache_size)
        self.rate_limits = RateLimits(settings, self.redis, self.store.now)
        self._free_all_turns()
        reset = weakref.WeakMethod(self._reset)
        if hasattr(os, "register_at_fork"):  # Windows cannot fork
            os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    @contextlib.contextmanager
    def login_turn(self, seconds: float, *, is_code_used: bool = False) -> Iterator[None]:
        """Hold one of the few turns of logins at Redis inside the block.

        If very many users log in at once, most logins wait here. So a check gets a connection to Redis and the
        processor. Raises ServerBusy after `seconds`, or StoreUnavailable if Redis has answered nobody in the meantime
        and the code is still unused.
        """
        turns, start = self._turns, time.monotonic()
        if not turns.acquire(seconds):
            log.warning("too_many_logins", extra={"hint": TOO_MANY_LOGINS})
            raise ServerBusy
        try:
            if not is_code_used:
                # If Redis was silent while the login waited, the login would wait for Redis once more.
                self.redis.check_answers_since(start)
            yield
        finally:
            turns.release()

    def check_caller(self) -> None:
        """Raise an error if the caller of this request may not log in. The sandbox answers this machine only."""

    def _reset(self) -> None:
        """Forget what a forked process must not share with its parent: connections, and locks that may be held."""
        self._free_all_turns()
        self.redis.reset()
        self.wechat.reset()
        self.code_images.reset()
        self.cache.reset()
        self.rate_limits.reset()

    def _free_all_turns(self) -> None:
        self._turns = FairSemaphore(max(int(self.settings.redis_connections * LOGIN_SHARE), 1))


#: Return the current application. An attribute of Flask's proxy would take four times as long.
_app: Callable[[], Flask] = current_app._get_current_object  # type: ignore[attr-defined]


def services() -> Services:
    """Return the services of the current application. Raises ConfigurationError if it has no configuration."""
    found: Services | ConfigurationError | None = _app().extensions.get(EXTENSION)
    if isinstance(found, Services):
        return found
    raise ConfigurationError(found.errors if found else ["write WxAuth(app), or auth.init_app(app) in its factory."])


def redis_client(settings: Settings) -> RedisClient:
    """Return the client for the Redis of `settings`."""
    url, size, timeout = settings.redis_url.reveal(), settings.redis_connections, settings.redis_timeout
    connect = connector(url, settings.redis_tls, size, timeout)
    return RedisClient(connect, settings.wait_replicas)


def session_store(settings: Settings, redis: RedisClient, clock: Clock | None = None) -> SessionStore:
    """Return the session store over `redis`."""
    policy = SessionPolicy(settings.idle_ttl, settings.max_ttl, settings.max_sessions, settings.userdata_max_age)
    return SessionStore(redis, KeyRing(settings.secret_keys), policy, clock)


def transport(settings: Settings, pool_size: int) -> Transport:
    """Return the transport to the WeChat of `settings`."""
    return Transport(settings.wechat_url, pool_size=pool_size, proxy=settings.wechat_proxy)


def wechat_client(settings: Settings, transport: Transport) -> WeChatClient:
    """Return the client for WeChat."""
    return WeChatClient(settings.apps, transport, settings.wechat_timeout, settings.max_wechat_calls)
