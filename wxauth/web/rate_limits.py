"""How often one address or one user may ask: fixed windows, counted in Redis, or in memory while Redis fails."""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final

from flask import has_request_context, request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage

from ..errors import DeviceCodeAnswered, DeviceCodeNotFound, RateLimited, StoreUnavailable
from ..keys import derive
from ..models import User
from ..settings import Settings
from ..storage.client import RedisClient
from .requests import client_network

PREFIX: Final = "wxa:l:"
#: Mobile networks share addresses.
ADDRESS_GUESSES: Final = parse("300 per 5 minutes")
USER_GUESSES: Final = parse("10 per 5 minutes")
#: An image has up to 512 KiB, and is kept for as long as this.
IMAGES: Final = parse("300 per 5 minutes")
#: A network of IPv6 has 65,536 addresses that count as one each. A device code takes 1 KB of Redis with its counters.
PUBLIC_CODES: Final = parse("20000 per 5 minutes")


class RateLimits:
    """Count requests, and raise RateLimited beyond the limits of `settings`.

    Users are counted in every call. Addresses are counted in a request only: a script's call has none.
    """

    def __init__(self, settings: Settings, redis: RedisClient, clock: Callable[[], float] = time.time) -> None:
        self._login = parse(settings.login_rate)
        self._phone = parse(settings.phone_rate)
        self._client = parse(settings.client_rate)
        self._redis = redis
        self._now = clock
        self._key = derive(b"", settings.secret_keys[0].reveal().encode(), "wxauth address")

    def reset(self) -> None:
        """Forget the counts in memory. In a forked process their lock may be held."""
        self.__dict__.pop("_memory", None)

    @cached_property
    def _memory(self) -> MemoryStorage:
        """The counts in memory. They have a thread: uWSGI hangs at SIGTERM if it runs while uWSGI forks."""
        return MemoryStorage()

    def check_login(self) -> None:
        """Count a login of the address. Raises StoreUnavailable before the code is spent: a code works once."""
        self._check(self._login, "login")

    def check_phone(self, user: User) -> None:
        """Count a phone number, of the address and of the user: the operator pays for each number."""
        self._check(self._login, "phone")
        self._check(self._phone, "phone", user)

    def check_client(self) -> None:
        """Count a request of a backend, by endpoint. Without Redis the count in memory is enough."""
        with contextlib.suppress(StoreUnavailable):
            self._check(self._client, request.endpoint or "")

    def check_public_client(self) -> None:
        """Count a device code for a public client, of the address and of all: everyone can ask for one."""
        self._check(self._login, "device code")
        self._check(PUBLIC_CODES, "device code", shared=True)

    def check_image(self) -> None:
        """Count an image to scan that WeChat has to draw: everyone can ask for one, and Redis keeps it."""
        self._check(IMAGES, "image")

    @contextlib.contextmanager
    def counting_guesses(self, user: User | None = None) -> Iterator[None]:
        """Count a user_code that the body does not find. Raises RateLimited before the body after too many.

        A user_code has 34 bits and lives for five minutes (RFC 8628, 5.1).
        """
        limits = [(ADDRESS_GUESSES, None), *([(USER_GUESSES, user)] if user else [])]
        for limit, source in limits:
            self._check(limit, "user_code", source, 0)
        try:
            yield
        except DeviceCodeAnswered:
            raise
        except DeviceCodeNotFound:
            for limit, source in limits:
                self._check(limit, "user_code", source)
            raise

    def _check(
        self, limit: RateLimitItem, scope: str, user: User | None = None, amount: int = 1, *, shared: bool = False
    ) -> None:
        """Count in Redis. While it cannot be asked, count in memory, and raise StoreUnavailable within the limit.

        With `amount=0` it only asks whether one more is allowed. A `shared` limit counts all callers as one.
        """
        if user is None and not has_request_context():
            return
        source, caller = ("service", "") if shared else _caller(user)
        # An HMAC: a plain hash of an IPv4 address can be reversed by brute force.
        key = hmac.digest(self._key, limit.key_for(scope, source, caller).encode(), "sha256").hex()[:32]
        window, failure = limit.get_expiry(), None
        number, age = divmod(int(self._now()), window)
        name = f"{PREFIX}{key}:{number}"
        try:
            count = self._redis.count(name, window, amount)
        except StoreUnavailable as error:
            failure = error
            count = self._memory.incr(name, window, amount)
        if count + 1 - amount > limit.amount:
            raise RateLimited(window - age, limit.amount, window, source)
        if failure:
            raise failure


def _caller(user: User | None) -> tuple[str, str]:
    """Return what a limit counts: the user if there is one, else the address of the request."""
    return ("user", f"{user.appid} {user.openid}") if user else ("address", client_network(request.remote_addr or ""))
