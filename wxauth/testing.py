"""For the tests of an application: WeChat and Redis are fakes in this process, and the time can be moved.

    from wxauth.testing import Sandbox

    def test_orders():
        sandbox = Sandbox(app)
        alice = sandbox.client("alice")
        assert alice.get("/orders").json["openid"] == alice.openid

As a fixture of pytest:

    @pytest.fixture
    def sandbox():
        return Sandbox(create_app())
"""

from __future__ import annotations

import math
from datetime import timedelta

from flask import Flask
from flask.testing import FlaskClient

from .clock import Clock
from .errors import ConfigurationError
from .settings import Settings, production_names
from .web.actions import auth
from .web.extension import configured, sandbox
from .web.services import EXTENSION


class LoggedInClient(FlaskClient):
    """Flask's test client. It sends the `token` of a user with each request."""

    openid: str
    token: str


class Sandbox:
    """Replaces WeChat and Redis of `app`, an application with `WxAuth(app)` or `auth.init_app(app)`.

    It needs no server, no environment and no configuration. Of `app.config` it takes the settings of this package,
    but not the address of Redis and the secrets. There is no session cache, so the next request sees an outage.

    Each end moves with `advance`: of a session, a reason, a rate limit. Raises ConfigurationError if the extension is
    not initialized.
    """

    def __init__(self, app: Flask) -> None:
        if EXTENSION not in app.extensions:
            raise ConfigurationError(["Sandbox(app): first write WxAuth(app), or auth.init_app(app)."])
        config = configured(app)
        real = [name for name in production_names(config) if name != "WECHAT_APPID"]
        environ = {name: text for name, text in config.items() if name not in real}
        self.app = app
        self._clock = Clock()
        settings = Settings.from_env(environ | {"WXAUTH_SANDBOX": "1", "WXAUTH_CACHE_SIZE": "0"})
        self._services = sandbox().SandboxServices(settings, self._clock, math.inf, is_test=True)
        app.extensions[EXTENSION] = self._services

    def client(self, user: str = "alice") -> LoggedInClient:
        """Log `user` in, any name. Return a test client with this login; `client.openid` is the user's openid.

        Two clients of one user are two phones. Raises what `auth.log_in` raises.
        """
        client = LoggedInClient(self.app, self.app.response_class)
        with self.app.app_context():
            token, session = auth.log_in(self._services.fake_wechat.wx_login(user))
        client.openid, client.token = session.openid, token.reveal()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {client.token}"
        return client

    def advance(self, **time: float) -> None:
        """Move the time forward, by the arguments of `datetime.timedelta`: `advance(days=8)`."""
        self._clock.advance(timedelta(**time).total_seconds())

    def redis_down(self) -> None:
        """Stop Redis: requests with a token get 503 `store_unavailable`."""
        self._services.fake_redis.stop()

    def redis_up(self) -> None:
        """Start Redis again, with all its data."""
        self._services.fake_redis.start()
        self._services.redis.reset()

    def wechat_error(self, errcode: int, times: int = 1) -> None:
        """Let WeChat answer the next `times` requests with `errcode`, 40029 for example.

        After -1 the service asks up to three times, as WeChat wants it.
        """
        self._services.fake_wechat.fail_next(errcode, times)
