"""The door to Flask-Limiter: how often one address may ask. Counted in our Redis, or in memory while that is down."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from typing import Any, Final

from flask import Flask, Response, request
from flask_limiter import Limiter, RequestLimit
from limits.storage import Storage

from . import backends
from .errors import RateLimited, StoreUnavailable
from .problems import respond
from .redis_client import RedisClient
from .settings import Settings

SCHEME: Final = "wxauth"


def limit(app: Flask, settings: Settings, redis: RedisClient) -> None:
    """Limit `/login` and what the backends ask, for each address."""
    limiter = Limiter(
        _address,
        app=app,
        storage_uri=f"{SCHEME}://",
        storage_options={"redis": redis},  # type: ignore[dict-item]  # whatever it is, it is handed on
        in_memory_fallback_enabled=True,
        strategy="fixed-window",
        on_breach=_refuse,
    )
    log_in = "login.log_in"
    limited = limiter.limit(settings.login_rate)(app.view_functions[log_in])
    app.view_functions[log_in] = limited  # type: ignore[assignment]  # Flask-Limiter forgets that it is not async
    limiter.limit(settings.client_rate)(backends.bp)


def _address() -> str:
    """The caller's address; of IPv6 the /64, for that is what one caller has."""
    address = ipaddress.ip_address(request.remote_addr or "127.0.0.1")
    return str(ipaddress.ip_network((address, 64), strict=False) if address.version == 6 else address)


def _refuse(breached: RequestLimit) -> Response:
    seconds = max(int(breached.reset_at - time.time()) + 1, 1)
    return respond(RateLimited(seconds, breached.limit.amount, breached.limit.get_expiry()))


class Counters(Storage):
    """What Flask-Limiter asks of a store, over the one door to Redis: its TLS, its budget, its breaker."""

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - the base class declares it so

    def __init__(self, uri: str | None, redis: RedisClient, **options: Any) -> None:
        super().__init__(uri, **options)
        self._redis = redis

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._redis.count(_name(key), expiry, amount)

    def get(self, key: str) -> int:
        found = self._redis.read(_name(key))
        return int(found[0]) if found else 0

    def get_expiry(self, key: str) -> float:
        found = self._redis.read(_name(key))
        return time.time() + (found[1] if found else 0)

    def check(self) -> bool:
        try:
            self._redis.read(_name(""))
        except StoreUnavailable:
            return False
        return True

    def reset(self) -> int | None:
        raise NotImplementedError("nobody resets everybody's counters")

    def clear(self, key: str) -> None:
        self._redis.delete(_name(key))


def _name(key: str) -> str:
    """A hash of it: addresses are nobody's business in Redis."""
    return f"wxa:l:{hashlib.sha256(key.encode()).hexdigest()[:32]}"
