"""The door to Flask-Limiter: how often an address or a user may ask. Counted in our Redis, or in memory instead."""

from __future__ import annotations

import hmac
import logging
import time
from typing import Any, Final

from flask import Flask, Response, request
from flask_limiter import Limiter, RequestLimit
from limits.storage import Storage

from ..errors import RateLimited, StoreUnavailable
from ..keys import derive
from ..metrics import LOGINS
from ..settings import Settings
from ..storage.client import RedisClient
from .addresses import client_network
from .extension import WxAuth
from .guard import wx_session
from .problems import RATE_LIMITED, respond
from .routes import clients as backends

SCHEME: Final = "wxauth"
#: Seconds after a count that failed in which it is not asked whether the next would do better.
REST: Final = 1.0

# At INFO it names the address of whoever is refused.
logging.getLogger("flask-limiter").setLevel(logging.WARNING)


def limit(app: Flask, settings: Settings, auth: WxAuth) -> None:
    """Limit logins and phone numbers, once the body has been read, and what the backends ask, for each address.

    Phone numbers for each user too: the operator pays for them, and a user has as many addresses as he likes.
    """
    key = derive(b"", settings.secret_keys[0].reveal().encode(), "wxauth address")
    limiter = Limiter(
        _address,
        app=app,
        storage_uri=f"{SCHEME}://",
        storage_options={"redis": auth.store.redis, "key": key},  # type: ignore[dict-item]  # whatever it is, it is handed on
        in_memory_fallback_enabled=True,
        strategy="fixed-window",
        on_breach=_refuse_address,
    )
    log_in = limiter.limit(settings.login_rate, on_breach=_count_login)(auth.log_in)
    auth.log_in = log_in  # type: ignore[method-assign]
    of_user = limiter.limit(settings.phone_rate, key_func=_user, on_breach=_refuse_user)
    auth.phone_number = limiter.limit(settings.login_rate)(of_user(auth.phone_number))  # type: ignore[method-assign]
    metrics = app.view_functions["health.metrics"]
    app.view_functions["health.metrics"] = limiter.limit(settings.client_rate)(metrics)  # type: ignore[assignment]
    limiter.limit(settings.client_rate)(backends.bp)


def _address() -> str:
    return client_network(request.remote_addr or "")


def _user() -> str:
    return f"{wx_session.appid} {wx_session.openid}"


def _count_login(_: RequestLimit) -> None:
    """It never came to the counting of logins: the limit stands in front of that."""
    LOGINS.labels(RATE_LIMITED.code).inc()


def _refuse_address(breached: RequestLimit) -> Response:
    return _refuse(breached, "address")


def _refuse_user(breached: RequestLimit) -> Response:
    return _refuse(breached, "user")


def _refuse(breached: RequestLimit, source: str) -> Response:
    seconds = max(int(breached.reset_at - time.time()) + 1, 1)
    return respond(RateLimited(seconds, breached.limit.amount, breached.limit.get_expiry(), source))


class Counters(Storage):
    """What Flask-Limiter asks of a store, over the one door to Redis: its TLS, its budget, its breaker.

    Addresses and users are nobody's business in Redis, and addresses so few that a plain hash would hide none: `key`
    keys it.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - the base class declares it so

    def __init__(self, uri: str | None, redis: RedisClient, key: bytes, **options: Any) -> None:
        super().__init__(uri, **options)
        self._redis = redis
        self._key = key
        self._failed_at = float("-inf")

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        try:
            return self._redis.count(self._name(key), expiry, amount)
        except StoreUnavailable:
            self._failed_at = time.monotonic()
            raise

    def get(self, key: str) -> int:
        found = self._redis.read(self._name(key))
        return int(found[0]) if found else 0

    def get_expiry(self, key: str) -> float:
        found = self._redis.read(self._name(key))
        return time.time() + (found[1] if found else 0)

    def check(self) -> bool:
        # Flask-Limiter asks at once, of somebody who has waited for the failure already.
        if time.monotonic() < self._failed_at + REST:
            return False
        try:
            self._redis.read(self._name(""))
        except StoreUnavailable:
            return False
        return True

    def reset(self) -> int | None:
        raise NotImplementedError("nobody resets everybody's counters")

    def clear(self, key: str) -> None:
        self._redis.delete(self._name(key))

    def _name(self, key: str) -> str:
        return f"wxa:l:{hmac.digest(self._key, key.encode(), 'sha256').hex()[:32]}"
