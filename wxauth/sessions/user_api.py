"""What WeChat is asked about a user who is logged in: the phone number, and whether the session_key is still the one.

Knows no HTTP of ours. A login asks nothing of this, so it needs no access token.
"""

from __future__ import annotations

from ..errors import SessionKeyStale
from ..models import PhoneNumber, Secret, User
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from .store import SessionStore


class UserApi:
    """Every method raises WeChatError, and StoreUnavailable where Redis can't be asked."""

    def __init__(self, wechat: WeChatClient, tokens: AccessTokens, store: SessionStore) -> None:
        self._wechat = wechat
        self._tokens = tokens
        self._store = store

    def phone_number(self, user: User, code: str) -> PhoneNumber:
        """The number behind the code of the phone button; PhoneCodeInvalid also if somebody else tapped it."""
        return self._tokens.use(
            user.appid, lambda token, deadline: self._wechat.phone_number(user, code, token, deadline)
        )

    def check_session_key(self, user: User) -> None:
        """Returns if the newest session_key held here is the user's at WeChat, else SessionKeyStale."""
        known = self._newest_session_key(user)
        self._tokens.use(
            user.appid, lambda token, deadline: self._wechat.check_session_key(user, known, token, deadline)
        )

    def reset_session_key(self, user: User) -> None:
        """Have WeChat replace the user's session_key, and keep the new one; SessionKeyStale if that held here is old.

        Where WeChat's answer is lost on the way, nobody here knows the new one: the next login brings it.
        """
        known = self._newest_session_key(user)
        session_key = self._tokens.use(
            user.appid, lambda token, deadline: self._wechat.reset_session_key(user, known, token, deadline)
        )
        self._store.replace_session_key(user, session_key)

    def _newest_session_key(self, user: User) -> Secret:
        keys = self._store.session_keys(user)
        if keys is None:
            # There is none after the last logout.
            raise SessionKeyStale
        return keys.newest
