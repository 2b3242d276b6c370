"""Access tokens: every WeChat interface except the login needs one. All workers share one for each app in Redis.

    wxa:{<appid>}:t:<name>    the sealed token; `name` is a keyed hash, so each ring key has its own
    wxa:{<appid>}:lock        a worker is fetching the token; the lock expires if the worker dies
    wxa:{<appid>}:forced      a worker has forced WeChat to replace the token within FORCE_INTERVAL
    wxa:{<appid>}:often       how often this happened within FORCE_WINDOW

The AppID is in the clear: it is in every copy of the mini program.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import AccessTokenRefused, StoreUnavailable, WeChatBusy
from ..keys import InvalidSeal, KeyRing, SigningKey, seal, unseal
from ..models import Secret
from ..storage.client import RedisClient
from .answers import AccessToken
from .client import WeChatClient

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds before the end of a token at which WeChat issues the next one. Both work until then.
MARGIN: Final = 300
POLL_INTERVAL: Final = 0.1
#: Seconds by which a lock outlives the deadline of its owner: a DNS look-up can exceed the deadline.
LOCK_GRACE: Final = 2.0
#: Seconds. WeChat allows 30 between the arrivals of two requests, and a request can arrive late.
FORCE_INTERVAL: Final = 90
#: WeChat allows 20 a day. A day, whenever WeChat lets it begin, overlaps two windows at most.
FORCE_WINDOW: Final = 86400
MAX_FORCED: Final = 10
#: "Invalid, or not the newest". For the other errcodes about a token, WeChat's current token is the fix.
NOT_THE_NEWEST: Final = 40001


@dataclass(frozen=True, slots=True)
class Refusal:
    """A token that WeChat has just refused, and its error."""

    token: Secret
    error: AccessTokenRefused


class AccessTokens:
    """Gives calls the app's access token. One for each worker.

    Raises StoreUnavailable if Redis cannot be asked: then a worker does not know what the others fetch or force.
    """

    def __init__(
        self, redis: RedisClient, ring: KeyRing, wechat: WeChatClient, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._ring = ring
        self._wechat = wechat
        self._now = clock

    def use(self, appid: str, call: Callable[[Secret, float], T]) -> T:
        """Return `call(token, deadline)`. If WeChat refuses the token, replace it and call once more.

        WeChat checks the token first, so a call with a refused token has had no effect. Raises WeChatError.
        """
        with self._wechat.slot() as deadline:
            token = self._token(appid, deadline)
            try:
                return call(token, deadline)
            except AccessTokenRefused as error:
                refusal = Refusal(token, error)
            return call(self._token(appid, deadline, refusal), deadline)

    def _token(self, appid: str, deadline: float, refusal: Refusal | None = None) -> Secret:
        """Return the shared token, if it is not the refused one. Else one worker fetches it and the others wait."""
        while True:
            if token := self._stored(appid, refusal):
                return token
            with self._lock(appid, deadline) as is_owner:
                if is_owner:
                    # Another worker may have stored it before this one got the lock.
                    return self._stored(appid, refusal) or self._fetch(appid, deadline, refusal)
            if time.monotonic() + POLL_INTERVAL > deadline:
                raise WeChatBusy
            time.sleep(POLL_INTERVAL)

    def _stored(self, appid: str, refusal: Refusal | None) -> Secret | None:
        """Return the token of any ring key. After a refusal, only the newest key: new tokens are stored there."""
        found = (self._load(appid, key) for key in ([self._ring.newest] if refusal else self._ring))
        return next((token for token in found if token and not (refusal and token == refusal.token)), None)

    def _load(self, appid: str, key: SigningKey) -> Secret | None:
        name = _name(appid, key)
        found = self._redis.read(name)
        try:
            renew_at, token = unseal(key.for_app(appid, "seal"), name, found or b"")
        except InvalidSeal:
            return None
        # The TTL in Redis only cleans up. A restored backup may hold an old token.
        return Secret(token.decode()) if renew_at > self._now() else None

    @contextlib.contextmanager
    def _lock(self, appid: str, deadline: float) -> Iterator[bool]:
        """Try to take the app's lock for the block. Yields whether this worker has it."""
        lock, life = f"wxa:{{{appid}}}:lock", deadline - time.monotonic() + LOCK_GRACE
        ends_at = time.monotonic() + life
        is_owner = self._redis.claim(lock, secrets.token_hex(16), life)
        try:
            yield is_owner
        finally:
            # After `ends_at` another worker may have the lock.
            if is_owner and time.monotonic() < ends_at:
                with contextlib.suppress(StoreUnavailable):
                    self._redis.delete(lock)

    def _fetch(self, appid: str, deadline: float, refusal: Refusal | None) -> Secret:
        """Get a token from WeChat, and store it for all workers."""
        token = self._wechat.access_token(appid, deadline)
        if refusal and token.secret == refusal.token:
            # WeChat refuses its own newest token.
            token = self._forced(appid, deadline, refusal)
        self._save(appid, token)
        return token.secret

    def _forced(self, appid: str, deadline: float, refusal: Refusal) -> AccessToken:
        """Let WeChat replace its newest token. Raises the refusal if that is not allowed now."""
        if refusal.error.errcode != NOT_THE_NEWEST or not self._may_force(appid):
            raise refusal.error
        log.warning("access_token_forced")
        return self._wechat.access_token(appid, deadline, force=True)

    def _may_force(self, appid: str) -> bool:
        if not self._redis.claim(f"wxa:{{{appid}}}:forced", secrets.token_hex(16), FORCE_INTERVAL):
            return False
        return self._redis.count(f"wxa:{{{appid}}}:often", FORCE_WINDOW, 1)[0] <= MAX_FORCED

    def _save(self, appid: str, token: AccessToken) -> None:
        key = self._ring.newest
        name, seconds = _name(appid, key), max(token.expires_in - MARGIN, 1)
        renew_at = int(self._now()) + seconds
        sealed = seal(key.for_app(appid, "seal"), name, renew_at, token.secret.reveal().encode())
        self._redis.set(name, seconds, sealed)


def _name(appid: str, key: SigningKey) -> str:
    return f"wxa:{{{appid}}}:t:{key.app_name(appid)}"
