"""Access tokens: every WeChat interface except the login needs one. All workers share one for each app in Redis.

    wxa:{<appid>}:t:<name>    the sealed token; `name` is a keyed hash, so each ring key has its own
    wxa:{<appid>}:lock        a worker is fetching the token; the lock expires if the worker dies
    wxa:{<appid>}:forced      a worker has forced WeChat to replace the token within FORCE_INTERVAL

The AppID is in the clear: it is in every copy of the mini program.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from ..errors import AccessTokenRefused, WeChatBusy
from ..keys import InvalidSeal, KeyRing, SigningKey, seal, unseal
from ..models import Secret
from ..storage.client import RedisClient
from ..storage.single_flight import single_flight
from .answers import AccessToken
from .client import WeChatClient

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds before the end of a token at which WeChat issues the next one. Both work until then.
MARGIN: Final = 300
#: Seconds: at most 13 times in any day. WeChat allows 20.
FORCE_INTERVAL: Final = 7200
#: "Invalid, or not the newest". After the other errcodes about a token, fetch the current one without forcing.
NOT_THE_NEWEST: Final = 40001


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
                refusal = error
            newer = self._token(appid, deadline, token, can_force=refusal.errcode == NOT_THE_NEWEST)
            if newer == token:
                raise refusal
            return call(newer, deadline)

    def _token(self, appid: str, deadline: float, refused: Secret | None = None, can_force: bool = False) -> Secret:
        """Return the shared token, if it is not the refused one. Else one worker fetches it and the others wait.

        Returns the refused token if WeChat has no other, and must not be forced to replace it.
        """
        stored = partial(self._stored, appid, refused)
        fetch = partial(self._fetch, appid, deadline, refused, can_force)
        try:
            # If the lock expires too early, two workers ask WeChat. They get the same token, and forcing has a count.
            return single_flight(self._redis, f"wxa:{{{appid}}}:lock", deadline, stored, fetch)
        except TimeoutError:
            raise WeChatBusy from None

    def _stored(self, appid: str, refused: Secret | None) -> Secret | None:
        """Return the token of any ring key. After a refusal, only the newest key: new tokens are stored there."""
        found = (self._load(appid, key) for key in ([self._ring.newest] if refused else self._ring))
        return next((token for token in found if token not in (None, refused)), None)

    def _load(self, appid: str, key: SigningKey) -> Secret | None:
        name = _name(appid, key)
        found = self._redis.read(name)
        try:
            renew_at, token = unseal(key.for_app(appid, "seal"), name, found or b"")
        except InvalidSeal:
            return None
        # The TTL in Redis only cleans up. A restored backup may hold an old token.
        return Secret(token.decode()) if renew_at > self._now() else None

    def _fetch(self, appid: str, deadline: float, refused: Secret | None, can_force: bool) -> Secret:
        """Get a token from WeChat, and store it for all workers."""
        token = self._wechat.access_token(appid, deadline)
        # If WeChat refuses its own newest token, let it replace that token.
        if token.secret == refused and can_force and self._may_force(appid):
            log.warning("access_token_forced")
            token = self._wechat.access_token(appid, deadline, force=True)
        self._save(appid, token)
        return token.secret

    def _may_force(self, appid: str) -> bool:
        """Count an attempt to force. Return whether it is the first of its interval."""
        return self._redis.count(f"wxa:{{{appid}}}:forced", FORCE_INTERVAL) == 1

    def _save(self, appid: str, token: AccessToken) -> None:
        key = self._ring.newest
        name, seconds = _name(appid, key), max(token.expires_in - MARGIN, 1)
        renew_at = int(self._now()) + seconds
        sealed = seal(key.for_app(appid, "seal"), name, renew_at, token.secret.reveal().encode())
        self._redis.set(name, seconds, sealed)


def _name(appid: str, key: SigningKey) -> str:
    return f"wxa:{{{appid}}}:t:{key.for_app(appid, 'name', 16).hex()}"
