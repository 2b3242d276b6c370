"""Calls to WeChat about one logged-in user: the phone number, and the user's session_key."""

from __future__ import annotations

from functools import partial

from ..errors import SessionKeyStale
from ..models import PhoneNumber, Secret, User
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from .store import SessionStore


class UserApi:
    """WeChat's interfaces for one user. They need an access token; a login does not.

    Every method raises WeChatError if WeChat refuses, and StoreUnavailable if Redis cannot be asked.
    """

    def __init__(self, wechat: WeChatClient, tokens: AccessTokens, store: SessionStore) -> None:
        self._wechat = wechat
        self._tokens = tokens
        self._store = store

    def phone_number(self, user: User, code: str) -> PhoneNumber:
        """Return the phone number for the code of the phone button.

        Raises PhoneCodeInvalid if WeChat does not know the code, or if it belongs to another user.
        """
        return self._tokens.use(user.appid, partial(self._wechat.phone_number, user, code))

    def check_session_key(self, user: User) -> None:
        """Check that the newest stored session_key is still valid at WeChat. Raises SessionKeyStale if not."""
        known = self._newest_session_key(user)
        self._tokens.use(user.appid, partial(self._wechat.check_session_key, user, known))

    def reset_session_key(self, user: User) -> None:
        """Let WeChat replace the user's session_key, and store the new one. Raises SessionKeyStale if ours is old.

        If WeChat's answer is lost, the stored key is stale until the next login.
        """
        known = self._newest_session_key(user)
        session_key = self._tokens.use(user.appid, partial(self._wechat.reset_session_key, user, known))
        self._store.replace_session_key(user, session_key)

    def _newest_session_key(self, user: User) -> Secret:
        keys = self._store.session_keys(user)
        if keys is None:
            # The last logout deletes the key.
            raise SessionKeyStale
        return keys.newest
