"""The Flask extension: configure an application, and mount the routes in it.

The service is such an application too, so every application can do what the service does.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Flask

from ..errors import ConfigurationError
from ..sessions.store import WxSession
from ..settings import FLAGS, REDIS_URL_NAMES, Settings
from .actions import Actions
from .guard import USER_LOADER, warn_of_open_views
from .mount import mount
from .problems import handle_errors
from .services import EXTENSION, Services

#: The variables that no other extension reads. REDIS_URL alone does not show that this one is configured.
OURS: Final = re.compile(r"WXAUTH_|WECHAT_(APPID|SECRET)$")

Loader = TypeVar("Loader", bound=Callable[[WxSession], Any])


class WxAuth(Actions):
    """Sessions of WeChat users in a Flask application.

    `WxAuth(app)` initializes one application at once. `WxAuth()` with `init_app` is for application factories; one
    object serves any number of applications. Its methods act for the current application, so they need Flask's
    application context, which every request has.

        auth = WxAuth()

        def create_app():
            app = Flask(__name__)
            auth.init_app(app, url_prefix="/auth")
            return app

    With `url_prefix` the routes of the service are mounted below it, so that the application is its own login
    service: `/auth/login`, `/auth/session` and the others. None mounts nothing.

    Settings have the names of the service's environment variables. A key of `app.config` (str, int or bool) wins over
    the variable of the same name; times are seconds. `settings` replaces the configuration; tests pass `make`.
    Raises ConfigurationError with all mistakes, as `init_app` says.
    """

    def __init__(
        self,
        app: Flask | None = None,
        settings: Settings | None = None,
        make: Callable[[Settings], Services] | None = None,
        *,
        url_prefix: str | None = None,
    ) -> None:
        self._settings = settings
        self._make = make
        self._load_user: Callable[[WxSession], Any] | None = None
        if app is not None:
            self.init_app(app, url_prefix=url_prefix)

    def init_app(self, app: Flask, settings: Settings | None = None, *, url_prefix: str | None = None) -> None:
        """Prepare `app`, and mount the routes below `url_prefix`. `settings` replaces those of `WxAuth(...)`.

        Besides the routes, it adds an error handler for this package's own errors, and nothing else. Raises
        ConfigurationError if the configuration has mistakes. If nothing is configured at all, the first use of the
        extension raises it instead. With WXAUTH_SANDBOX=1 WeChat and Redis are fakes, and the playground is at
        `<url_prefix>/`.
        """
        found = self._services(environment(app), settings or self._settings)
        app.extensions[EXTENSION] = found
        app.extensions[USER_LOADER] = self._user
        handle_errors(app)
        warn_of_open_views(app)
        if url_prefix is not None:
            known = found.settings if isinstance(found, Services) else None
            extend = sandbox().extend if known and known.sandbox else None
            origins = known.cors_origins if known else frozenset()
            mount(app, url_prefix, extend, hide_unconfigured=True, cors_origins=origins)

    def user_loader(self, load: Loader) -> Loader:
        """Register the function that returns the application's own user for a session. `wx_user` is its result.

        @auth.user_loader
        def load_user(session):
            return db.session.get(Customer, session.openid)
        """
        self._load_user = load
        return load

    def _user(self, session: WxSession) -> Any:
        if self._load_user is None:
            raise LookupError("wx_user needs a function of yours: write @auth.user_loader above it")
        return self._load_user(session)

    def _services(self, environ: dict[str, str], settings: Settings | None) -> Services | ConfigurationError:
        try:
            settings = settings or Settings.from_env(environ)
            return self._make(settings) if self._make else make_services(settings)
        except ConfigurationError as error:
            if any(text.strip() for name, text in environ.items() if OURS.match(name)):
                raise
            return error


def make_services(settings: Settings) -> Services:
    """Return the services of an application: those of the sandbox, or the real ones."""
    services: Services = sandbox().SandboxServices(settings) if settings.sandbox else Services(settings)
    return services


def sandbox() -> Any:
    """Return the package `wxauth.sandbox`, which production never imports. Raises ConfigurationError if it cannot."""
    try:
        return importlib.import_module("wxauth.sandbox")
    except ImportError as error:
        fix = f"the sandbox needs {error.name}: pip install 'wxauth[sandbox]'"
    raise ConfigurationError([f"WXAUTH_SANDBOX: {fix}"])


def environment(app: Flask) -> dict[str, str]:
    """Return the environment, with the keys of `app.config` that are this package's in place of its variables."""
    config = configured(app)
    # Of these names the first that is set wins. So if app.config sets one, none counts in the environment.
    ignored = REDIS_URL_NAMES if not config.keys().isdisjoint(REDIS_URL_NAMES) else ()
    return {name: value for name, value in os.environ.items() if name not in ignored} | config


def configured(app: Flask) -> dict[str, str]:
    """Return the keys of `app.config` that are this package's."""
    ours = {name: value for name, value in app.config.items() if OURS.match(name) or name in REDIS_URL_NAMES}
    return {name: _text(name, value) for name, value in ours.items() if value is not None}


def _text(name: str, value: object) -> str:
    """Return the text of a variable with this value. False is an empty text for a flag, and 0 for a number."""
    if isinstance(value, bool):
        return str(int(value)) if value or name not in FLAGS else ""
    return str(value)
