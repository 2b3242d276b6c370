"""`WxAuth(app)`: what a Flask application holds of this package, in `app.extensions["wxauth"]`.

The service is itself such an application, so whatever it does, another application of the operator's can do too.
"""

from __future__ import annotations

import os
from typing import TypeVar

from blinker import Namespace
from flask import Flask, current_app

from ..errors import BadRequest, WxAuthError
from ..keys import KeyRing
from ..logs import naming
from ..metrics import LOGINS
from ..models import PhoneNumber, Secret, User
from ..sessions.cache import SessionCache
from ..sessions.revocations import RevocationListener
from ..sessions.store import SessionPolicy, SessionStore, WxSession
from ..sessions.user_api import UserApi
from ..settings import Settings
from ..storage.client import RedisClient
from ..storage.connections import connector
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from ..wechat.transport import Transport
from . import problems

EXTENSION = "wxauth"

T = TypeVar("T")

signals = Namespace()
#: Sent by the application that logged a user in, with `session`.
logged_in = signals.signal("wxauth-logged-in")
#: Sent by the application that ended sessions, with `user`.
logged_out = signals.signal("wxauth-logged-out")


class WxAuth:
    """Sessions of WeChat users for a Flask application, from the same environment as the service.

    `settings` default to the environment (ConfigurationError lists its faults); `wechat` and `store` are seams for
    fakes. Nothing is connected before it is needed.
    """

    def __init__(
        self,
        app: Flask,
        settings: Settings | None = None,
        *,
        wechat: WeChatClient | None = None,
        store: SessionStore | None = None,
    ) -> None:
        self.settings = settings or Settings.from_env(os.environ)
        self.wechat = wechat or wechat_client(self.settings, Transport(self.settings.wechat_url))
        self.store = store or session_store(self.settings, redis_client(self.settings))
        self._on_behalf = user_api(self.settings, self.wechat, self.store)
        # The sandbox's Redis is at hand already.
        feed = None if self.settings.sandbox else RevocationListener(self.store.redis)
        self.cache = SessionCache(self.store, feed, self.settings.cache_size)
        app.extensions[EXTENSION] = self
        app.wsgi_app = naming(app.wsgi_app)  # type: ignore[assignment, method-assign]  # as Flask says to
        problems.register(app)

    def log_in(
        self,
        code: str,
        appid: str | None = None,
        device: str | None = None,
        replacing: WxSession | None = None,
    ) -> tuple[Secret, WxSession]:
        """Exchange the code of `wx.login`: the token to hand out, and its session.

        `appid` may be left out while one app is configured; `replacing` is a session that this login ends. Raises
        BadRequest, UserBanned, WeChatError and StoreUnavailable.
        """
        try:
            # A code can be exchanged once: it is not to be spent where no session can be kept.
            self.store.ping()
            identity = self.wechat.exchange(self.known_appid(appid), code)
            token, session = self.store.create(identity, device, replacing)
        except WxAuthError as error:
            LOGINS.labels(problems.row(error).code).inc()
            raise
        LOGINS.labels("ok").inc()
        if replacing:
            logged_out.send(unwrapped(current_app), user=replacing.user)
        logged_in.send(unwrapped(current_app), session=session)
        return token, session

    def phone_number(self, session: WxSession, code: str) -> PhoneNumber:
        """The number behind the code of the phone button, if it was this user who tapped it; else PhoneCodeInvalid.

        WeChat bills each success. As the next two, it raises WeChatError and StoreUnavailable.
        """
        return self._on_behalf.phone_number(session.user, code)

    def check_session_key(self, session: WxSession) -> None:
        """Returns if `session.session_key` is the one that WeChat has for the user, else SessionKeyStale."""
        self._on_behalf.check_session_key(session.user)

    def reset_session_key(self, session: WxSession) -> None:
        """Make WeChat and this server forget the user's session_key for a new one; SessionKeyStale if it was old."""
        self._on_behalf.reset_session_key(session.user)

    def log_out(self, session: WxSession) -> None:
        """End this session."""
        self.store.revoke(session)
        logged_out.send(unwrapped(current_app), user=session.user)

    def log_out_one(self, session: WxSession, id: str) -> None:
        """End a session of the same user; SessionNotFound if it has none of that id."""
        self.store.end(session.user, id)
        logged_out.send(unwrapped(current_app), user=session.user)

    def log_out_everywhere(self, session: WxSession, *, keep_current: bool = False) -> None:
        """End all sessions of the user, or all but this one."""
        if keep_current:
            self.store.end_others(session)
        else:
            self.store.end_all(session.user)
        logged_out.send(unwrapped(current_app), user=session.user)

    def log_out_user(self, user: User) -> None:
        """End all sessions of a user, as the operator's backends may."""
        self.store.end_all(user)
        logged_out.send(unwrapped(current_app), user=user)

    def forget(self, user: User) -> None:
        """End all sessions of a user and forget the session_keys, for whoever has closed the account."""
        self.store.purge(user)
        logged_out.send(unwrapped(current_app), user=user)

    def ban(self, user: User) -> None:
        """End all sessions of a user and refuse the next login."""
        self.store.ban(user)
        logged_out.send(unwrapped(current_app), user=user)

    def known_appid(self, appid: str | None) -> str:
        """The configured app that is meant, or BadRequest; None means the only one."""
        apps = self.settings.apps
        if appid is None and len(apps) == 1:
            return next(iter(apps))
        if appid is None:
            raise BadRequest("Say which mini program this is: appid.")
        if appid not in apps:
            raise BadRequest("This appid is not configured here.")
        return appid


def wxauth() -> WxAuth:
    """What the current application holds."""
    found: WxAuth = unwrapped(current_app).extensions[EXTENSION]
    return found


def unwrapped(proxy: T) -> T:
    """What one of Flask's proxies stands for: no sender of a signal may be one, and their attributes are slow."""
    found: T = proxy._get_current_object()  # type: ignore[attr-defined]  # its type is that of what it stands for
    return found


def redis_client(settings: Settings) -> RedisClient:
    return RedisClient(connector(settings.redis_url.reveal(), settings.redis_tls), settings.wait_replicas)


def session_store(settings: Settings, redis: RedisClient) -> SessionStore:
    limits = SessionPolicy(settings.idle_ttl, settings.max_ttl, settings.max_sessions, settings.userdata_max_age)
    return SessionStore(redis, KeyRing(settings.secret_keys), limits)


def wechat_client(settings: Settings, transport: Transport) -> WeChatClient:
    return WeChatClient(
        settings.apps, transport, settings.wechat_timeout, max_concurrent=max(settings.threads // 2, 1)
    )


def user_api(settings: Settings, wechat: WeChatClient, store: SessionStore) -> UserApi:
    return UserApi(wechat, AccessTokens(store.redis, KeyRing(settings.secret_keys), wechat), store)
