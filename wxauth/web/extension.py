"""The Flask extension: `WxAuth` and what it keeps for each application, in `app.extensions["wxauth"]`.

The service is such an application too, so every application can do what the service does.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable
from typing import Any, Final

from blinker import NamedSignal
from flask import Flask, current_app

from ..errors import BadRequest, ConfigurationError, WxAuthError
from ..keys import KeyRing
from ..metrics import LOGINS
from ..models import PhoneNumber, Secret, User
from ..sessions.cache import SessionCache
from ..sessions.revocations import RevocationListener
from ..sessions.store import SessionPolicy, SessionStore, WxSession
from ..sessions.user_api import UserApi
from ..settings import REDIS_URL_NAMES, Settings
from ..storage.client import RedisClient
from ..storage.connections import connector
from ..wechat.access_tokens import AccessTokens
from ..wechat.client import WeChatClient
from ..wechat.transport import Transport
from .problems import handle_errors
from .rate_limits import RateLimits
from .requests import label

EXTENSION: Final = "wxauth"
#: The variables that no other extension reads. REDIS_URL alone does not show that this one is configured.
OURS: Final = re.compile(r"WXAUTH_|WECHAT_(APPID|SECRET)$")

#: Sent by the application after a login, with `session`.
logged_in = NamedSignal("wxauth-logged-in")
#: Sent by the application after a logout, ban or purge, with `user`. Not if the limit or the time ended a session.
logged_out = NamedSignal("wxauth-logged-out")


class Services:
    """What one application uses. Nothing connects before its first use. `wechat` and `store` are seams for fakes."""

    def __init__(
        self, settings: Settings, wechat: WeChatClient | None = None, store: SessionStore | None = None
    ) -> None:
        self.settings = settings
        self.wechat = wechat or wechat_client(settings, Transport(settings.wechat_url))
        self.store = store or session_store(settings, redis_client(settings))
        self.redis = self.store.redis
        tokens = AccessTokens(self.redis, KeyRing(settings.secret_keys), self.wechat)
        self.user_api = UserApi(self.wechat, tokens, self.store)
        # The sandbox's Redis is in this process, so there is nothing to listen to.
        listener = None if settings.sandbox else RevocationListener(self.redis)
        self.cache = SessionCache(self.store, listener, settings.cache_size)
        self.rate_limits = RateLimits(settings, self.redis)
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _reset(self) -> None:
        """Forget what a forked process must not share with its parent: connections, and locks that may be held."""
        self.redis.reset()
        self.wechat.reset()
        self.cache.reset()
        self.rate_limits.reset()


class WxAuth:
    """Sessions of WeChat users in a Flask application.

    `WxAuth(app)` initializes one application at once. `WxAuth()` with `init_app` is for application factories; one
    object serves any number of applications. Its methods act for the current application, so they need Flask's
    application context, which every request has.

        auth = WxAuth()

        def create_app():
            app = Flask(__name__)
            auth.init_app(app)
            return app

    Settings have the names of the service's environment variables. A key of `app.config` (str or int) wins over the
    variable of the same name; times are seconds. `settings` replaces the configuration; `make` is
    a seam for fakes. Raises ConfigurationError with all mistakes, as `init_app` says.
    """

    def __init__(
        self, app: Flask | None = None, settings: Settings | None = None, make: Callable[..., Services] = Services
    ) -> None:
        self._settings = settings
        self._make = make
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, settings: Settings | None = None) -> None:
        """Prepare `app`. The `settings` given here replace those of `WxAuth(...)`.

        Adds an error handler for this package's own errors, and nothing else. Raises ConfigurationError if the
        configuration has mistakes. If nothing is configured at all, the first use of the extension raises it instead.
        """
        app.extensions[EXTENSION] = self._services(environment(app), settings or self._settings)
        handle_errors(app)

    def _services(self, environ: dict[str, str], settings: Settings | None) -> Services | ConfigurationError:
        try:
            return self._make(settings or Settings.from_env(environ))
        except ConfigurationError as error:
            if any(text.strip() for name, text in environ.items() if OURS.match(name)):
                raise
            return error

    def log_in(
        self, code: str, appid: str | None = None, device: str | None = None, replacing: WxSession | None = None
    ) -> tuple[Secret, WxSession]:
        """Exchange the code of `wx.login`. Return the token for the client, and its session.

        `appid` may be None if one app is configured. `device` is any text: see `label`. The login ends the session
        `replacing`. Counts against WXAUTH_LOGIN_RATE of the address. Raises BadRequest, RateLimited, UserBanned,
        WeChatError or StoreUnavailable.
        """
        current = services()
        try:
            current.rate_limits.check_login()
            identity = current.wechat.exchange(self.known_appid(appid), code)
            token, session = current.store.create(identity, label(device), replacing)
        except WxAuthError as error:
            LOGINS.labels(error.code).inc()
            raise
        LOGINS.labels("ok").inc()
        if replacing:
            _send(logged_out, user=replacing.user)
        _send(logged_in, session=session)
        return token, session

    def phone_number(self, session: WxSession, code: str) -> PhoneNumber:
        """Return the phone number for a code of the phone button. WeChat bills each success.

        Counts against WXAUTH_LOGIN_RATE of the address and WXAUTH_PHONE_RATE of the user. Raises PhoneCodeInvalid if
        another user tapped the button, RateLimited, WeChatError or StoreUnavailable.
        """
        services().rate_limits.check_phone(session.user)
        return services().user_api.phone_number(session.user, code)

    def check_session_key(self, session: WxSession) -> None:
        """Return if WeChat accepts `session.session_key`. Raises SessionKeyStale, WeChatError or StoreUnavailable."""
        services().user_api.check_session_key(session.user)

    def reset_session_key(self, session: WxSession) -> None:
        """Replace the user's session_key at WeChat and here.

        Raises SessionKeyStale if the key kept here is not WeChat's, WeChatError or StoreUnavailable.
        """
        services().user_api.reset_session_key(session.user)

    def log_out(self, session: WxSession) -> None:
        """End this session, for its holder. Like all methods below, raises StoreUnavailable."""
        self._end(session.user, services().store.revoke, session)

    def revoke(self, session: WxSession) -> None:
        """End this session, for the operator. Its token raises SessionRevoked from now on."""
        self._end(session.user, services().store.revoke, session, "revoked")

    def log_out_one(self, session: WxSession, id: str) -> None:
        """End the session `id` of the same user. Raises SessionNotFound."""
        self._end(session.user, services().store.end, session.user, id, session.id)

    def log_out_everywhere(self, session: WxSession, *, keep_current: bool = False) -> None:
        """End all sessions of the user, or all but this one."""
        if keep_current:
            self._end(session.user, services().store.end_others, session)
        else:
            self._end(session.user, services().store.end_all, session.user, "everywhere", session.id)

    def log_out_user(self, user: User) -> None:
        """End all sessions of a user."""
        self._end(user, services().store.end_all, user)

    def forget(self, user: User) -> None:
        """End all sessions of a user who closed the account. The metric counts them as `purge`."""
        self._end(user, services().store.end_all, user, "purge")

    def ban(self, user: User) -> None:
        """End all sessions of a user and refuse the user's logins."""
        self._end(user, services().store.ban, user)

    def _end(self, user: User, end: Callable[..., object], *args: object) -> None:
        """End sessions of `user` by calling `end`, then send `logged_out`."""
        end(*args)
        _send(logged_out, user=user)

    def known_appid(self, appid: str | None) -> str:
        """Return the configured app that `appid` names. None means the only one. Raises BadRequest."""
        apps = services().settings.apps
        found = next(iter(apps)) if appid is None and len(apps) == 1 else appid
        if found is None or found not in apps:
            raise BadRequest("Send the appid of a mini program that is configured here.")
        return found


#: The extension for the routes of the service: its methods act for the current application.
auth: Final = WxAuth()


def services() -> Services:
    """Return the services of the current application. Raises ConfigurationError if it has no configuration."""
    found: Services | ConfigurationError = current_app.extensions[EXTENSION]
    if isinstance(found, ConfigurationError):
        raise ConfigurationError(found.errors)
    return found


def environment(app: Flask) -> dict[str, str]:
    """Return the environment, with the keys of `app.config` that are this package's in place of its variables."""
    ours = {name: value for name, value in app.config.items() if OURS.match(name) or name in REDIS_URL_NAMES}
    config = {name: str(value) for name, value in ours.items() if value is not None}
    # Of these names the first that is set wins. So if app.config sets one, none counts in the environment.
    ignored = REDIS_URL_NAMES if not config.keys().isdisjoint(REDIS_URL_NAMES) else ()
    return {name: value for name, value in os.environ.items() if name not in ignored} | config


def _send(signal: NamedSignal, **fields: Any) -> None:
    # Receivers are registered for the application itself, not for Flask's proxy.
    signal.send(current_app._get_current_object(), **fields)  # type: ignore[attr-defined]  # typed as Flask


def redis_client(settings: Settings) -> RedisClient:
    """Return the client for the Redis of `settings`."""
    connect = connector(settings.redis_url.reveal(), settings.redis_tls, settings.redis_connections)
    return RedisClient(connect, settings.wait_replicas)


def session_store(settings: Settings, redis: RedisClient) -> SessionStore:
    """Return the session store over `redis`."""
    policy = SessionPolicy(settings.idle_ttl, settings.max_ttl, settings.max_sessions, settings.userdata_max_age)
    return SessionStore(redis, KeyRing(settings.secret_keys), policy)


def wechat_client(settings: Settings, transport: Transport) -> WeChatClient:
    """Return the client for WeChat. At most half of the worker's threads wait for WeChat at the same time."""
    return WeChatClient(settings.apps, transport, settings.wechat_timeout, max(settings.threads // 2, 1))
