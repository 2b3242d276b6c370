"""Access tokens, which WeChat asks for in all but a login: one for each app, shared by all workers through Redis.

    wxa:{<appid>}:t:<name>    the token, sealed; `name` is a keyed hash, so each ring key has its own
    wxa:{<appid>}:lock        whoever is fetching one; it ends by itself if that worker dies
    wxa:{<appid>}:forced      WeChat was made to replace it a moment ago
    wxa:{<appid>}:often       how often that was done of late

The AppID stands there in the clear: it is in every copy of the mini program. Knows no session and no user.
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

#: Seconds before its end from which on WeChat gives another one, while the former goes on working.
MARGIN: Final = 300
POLL_INTERVAL: Final = 0.1
#: What a lock outlives its owner's deadline by, for the look-up of WeChat's name is outside that.
LOCK_GRACE: Final = 2.0
#: WeChat allows 30 seconds. It counts when a request arrives, which one may do late and the next at once.
FORCE_INTERVAL: Final = 90
#: WeChat allows 20 a day. Any day touches two of these windows at most, wherever WeChat lets it begin.
FORCE_WINDOW: Final = 86400
FORCED_AT_MOST: Final = 10
#: "Invalid, or not the newest". The other errcodes about a token are mended by asking for the one that is.
NOT_THE_NEWEST: Final = 40001


@dataclass(frozen=True, slots=True)
class Refusal:
    """A token that WeChat has just refused, and how."""

    token: Secret
    error: AccessTokenRefused


class AccessTokens:
    """Lends the app's access token to calls. One for each worker; raises StoreUnavailable where Redis can't be asked.

    Without Redis nobody would know who else is fetching, nor how often WeChat was forced, so nothing is fetched then.
    """

    def __init__(
        self, redis: RedisClient, ring: KeyRing, wechat: WeChatClient, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._ring = ring
        self._wechat = wechat
        self._now = clock

    def use(self, appid: str, call: Callable[[Secret, float], T]) -> T:
        """What `call`, given a token and a deadline, returns; a refused token is replaced, and `call` made once more.

        WeChat looks at the token first, so a call with a refused one has not been made. Raises WeChatError.
        """
        with self._wechat.slot() as deadline:
            token = self._token(appid, deadline)
            try:
                return call(token, deadline)
            except AccessTokenRefused as error:
                refusal = Refusal(token, error)
            return call(self._token(appid, deadline, refusal), deadline)

    def _token(self, appid: str, deadline: float, refusal: Refusal | None = None) -> Secret:
        """The shared token, unless it is the refused one: fetched by one worker, awaited by the others."""
        while True:
            if token := self._shared(appid, refusal):
                return token
            with self._alone(appid, deadline) as alone:
                if alone:
                    # Somebody may have brought it between the look and the lock.
                    return self._shared(appid, refusal) or self._fetch(appid, deadline, refusal)
            if time.monotonic() + POLL_INTERVAL > deadline:
                raise WeChatBusy
            time.sleep(POLL_INTERVAL)

    def _shared(self, appid: str, refusal: Refusal | None) -> Secret | None:
        """What lies in Redis under any key of the ring; after a refusal only what is written nowadays."""
        found = (self._opened(appid, key) for key in ([self._ring.newest] if refusal else self._ring))
        return next((token for token in found if token and not (refusal and token == refusal.token)), None)

    def _opened(self, appid: str, key: SigningKey) -> Secret | None:
        name = _name(appid, key)
        found = self._redis.read(name)
        try:
            expires_at, token = unseal(key.for_app(appid, "seal"), name, found[0] if found else b"")
        except InvalidSeal:
            return None
        # A backup that was restored may hold one that is long over.
        return Secret(token.decode()) if expires_at > self._now() else None

    @contextlib.contextmanager
    def _alone(self, appid: str, deadline: float) -> Iterator[bool]:
        """Whether this worker alone may fetch the app's token within the block."""
        lock, life = f"wxa:{{{appid}}}:lock", deadline - time.monotonic() + LOCK_GRACE
        ends_at = time.monotonic() + life
        mine = self._redis.claim(lock, secrets.token_hex(16), life)
        try:
            yield mine
        finally:
            # Later it may be another's.
            if mine and time.monotonic() < ends_at:
                with contextlib.suppress(StoreUnavailable):
                    self._redis.delete(lock)

    def _fetch(self, appid: str, deadline: float, refusal: Refusal | None) -> Secret:
        """A token from WeChat, put where all find it."""
        token = self._wechat.access_token(appid, deadline)
        if refusal and token.secret == refusal.token:
            # So it is the newest, and refused all the same.
            token = self._forced(appid, deadline, refusal)
        self._share(appid, token)
        return token.secret

    def _forced(self, appid: str, deadline: float, refusal: Refusal) -> AccessToken:
        """Another token in place of WeChat's newest, if that may be asked for; else the refusal stands."""
        if refusal.error.errcode != NOT_THE_NEWEST or not self._may_force(appid):
            raise refusal.error
        log.warning("access_token_forced")
        return self._wechat.access_token(appid, deadline, force=True)

    def _may_force(self, appid: str) -> bool:
        if not self._redis.claim(f"wxa:{{{appid}}}:forced", secrets.token_hex(16), FORCE_INTERVAL):
            return False
        return self._redis.count(f"wxa:{{{appid}}}:often", FORCE_WINDOW, 1) <= FORCED_AT_MOST

    def _share(self, appid: str, token: AccessToken) -> None:
        key = self._ring.newest
        name, expires_at = _name(appid, key), int(self._now()) + token.expires_in
        sealed = seal(key.for_app(appid, "seal"), name, expires_at, token.secret.reveal().encode())
        self._redis.set(name, max(token.expires_in - MARGIN, 1), sealed)


def _name(appid: str, key: SigningKey) -> str:
    return f"wxa:{{{appid}}}:t:{key.app_name(appid)}"
