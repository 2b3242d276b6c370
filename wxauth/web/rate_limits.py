"""How often one address or one user may ask: fixed windows, counted in Redis, or in memory while Redis fails."""

from __future__ import annotations

import hmac
import time
from typing import Final

from flask import has_request_context, request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage

from ..errors import RateLimited, StoreUnavailable
from ..keys import derive
from ..models import User
from ..settings import Settings
from ..storage.client import RedisClient
from .requests import client_network

PREFIX: Final = "wxa:l:"


class RateLimits:
    """Count requests, and raise RateLimited beyond the limits of `settings`.

    Only requests over HTTP are counted: a call without a request context, such as a script's, is not limited.
    """

    def __init__(self, settings: Settings, redis: RedisClient) -> None:
        self._login = parse(settings.login_rate)
        self._phone = parse(settings.phone_rate)
        self._client = parse(settings.client_rate)
        self._redis = redis
        self._memory = MemoryStorage()
        self._key = derive(b"", settings.secret_keys[0].reveal().encode(), "wxauth address")

    def check_login(self) -> None:
        """Count a login of the address."""
        self._check(self._login, "login")

    def check_phone(self, user: User) -> None:
        """Count a phone number, of the address and of the user: the operator pays for each number."""
        self._check(self._login, "phone")
        self._check(self._phone, "phone", user)

    def check_client(self) -> None:
        """Count a request of a backend, for each endpoint apart."""
        self._check(self._client, request.endpoint or "")

    def _check(self, limit: RateLimitItem, scope: str, user: User | None = None) -> None:
        if not has_request_context():
            return
        source = "user" if user else "address"
        caller = f"{user.appid} {user.openid}" if user else client_network(request.remote_addr or "")
        name = self._name(limit.key_for(scope, source, caller))
        try:
            wait = self._count_in_redis(limit, name)
        except StoreUnavailable:
            wait = self._count_in_memory(limit, name)
        if wait is not None:
            raise RateLimited(max(int(wait) + 1, 1), limit.amount, limit.get_expiry(), source)

    def _count_in_redis(self, limit: RateLimitItem, name: str) -> float | None:
        """Return None within the limit, else the seconds until the window ends."""
        count, seconds_left = self._redis.count(name, limit.get_expiry(), 1)
        return None if count <= limit.amount else seconds_left

    def _count_in_memory(self, limit: RateLimitItem, name: str) -> float | None:
        if self._memory.incr(name, limit.get_expiry()) <= limit.amount:
            return None
        return self._memory.get_expiry(name) - time.time()

    def _name(self, key: str) -> str:
        """Return an HMAC: a plain hash of an IPv4 address can be reversed by brute force."""
        return f"{PREFIX}{hmac.digest(self._key, key.encode(), 'sha256').hex()[:32]}"
