"""`WxAuth` in applications: `init_app`, the configuration, several applications, and limits without the service."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from flask import Flask

from tests.conftest import APP_SECRET, APPID, RING_KEY
from wxauth import Settings, WxAuth, login_required, wx_session
from wxauth.errors import ConfigurationError, RateLimited
from wxauth.models import Identity, Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.web.services import EXTENSION, Services, services, wechat_client
from wxauth.wechat.transport import Transport

CONFIG: dict[str, Any] = {
    "WECHAT_APPID": APPID,
    "WECHAT_SECRET": APP_SECRET,
    "WXAUTH_SECRET_KEYS": RING_KEY,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "WXAUTH_CACHE_SIZE": 0,
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this package is set."""
    for name in (*CONFIG, "WXAUTH_APPS", "REDIS_TLS_URL"):
        monkeypatch.delenv(name, raising=False)


def shop(**config: Any) -> Flask:
    """An application with one guarded and one open route."""
    app = Flask("shop")
    app.config.update(config)
    app.add_url_rule("/orders", "orders", login_required(lambda: {"openid": wx_session.openid}))
    app.add_url_rule("/open", "open", lambda: "open")
    return app


def settings_of(app: Flask) -> Settings:
    settings: Settings = app.extensions[EXTENSION].settings
    return settings


def test_init_app_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CONFIG.items():
        monkeypatch.setenv(name, str(value))
    WxAuth().init_app(app := shop())
    assert settings_of(app).cache_size == 0


def test_app_config_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may be str or int, and None means the same as a missing key."""
    monkeypatch.setenv("WXAUTH_MAX_SESSIONS", "3")
    monkeypatch.setenv("WXAUTH_IDLE_TTL", "60")
    WxAuth(app := shop(**CONFIG, WXAUTH_MAX_SESSIONS=5, WXAUTH_IDLE_TTL=None))
    assert (settings_of(app).max_sessions, settings_of(app).idle_ttl) == (5, 60)


def test_false_in_app_config_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a number it is 0."""
    monkeypatch.setenv("WXAUTH_SCAN_LINK", "1")
    WxAuth(app := shop(**CONFIG))
    assert settings_of(app).scan_link is True
    WxAuth(app := shop(**CONFIG | {"WXAUTH_SCAN_LINK": False, "WXAUTH_CACHE_SIZE": False}))
    assert (settings_of(app).scan_link, settings_of(app).cache_size) == (False, 0)


def test_false_in_app_config_hides_no_real_redis_from_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WXAUTH_SANDBOX", "1")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:2/0")
    with pytest.raises(ConfigurationError, match="WXAUTH_SANDBOX: remove this, or REDIS_URL"):
        WxAuth(shop(REDIS_URL=False))


def test_redis_url_alias_in_app_config_wins_over_redis_url_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:2/0")
    config = {name: value for name, value in CONFIG.items() if name != "REDIS_URL"}
    WxAuth(app := shop(**config, REDIS_TLS_URL="rediss://127.0.0.1:3/0"))
    assert settings_of(app).redis_url == Secret("rediss://127.0.0.1:3/0")


def test_init_app_uses_the_settings_argument() -> None:
    chosen = Settings({APPID: Secret(APP_SECRET)}, (Secret(RING_KEY),), Secret("redis://127.0.0.1:1/0"))
    WxAuth(settings=chosen).init_app(one := shop())
    WxAuth().init_app(two := shop(), chosen)
    assert (settings_of(one), settings_of(two)) == (chosen, chosen)


@pytest.mark.parametrize("environ", [{}, {"REDIS_URL": "redis://127.0.0.1:1/0"}], ids=["nothing", "REDIS_URL"])
def test_unconfigured_application_raises_all_errors_at_the_first_use(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """REDIS_URL alone may belong to another extension."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    WxAuth(app := shop())
    app.testing = True
    client = app.test_client()
    assert client.get("/open").text == "open"
    for _ in range(2):
        with pytest.raises(ConfigurationError) as caught:
            client.get("/orders")
    assert {error.partition(":")[0] for error in caught.value.errors} >= {"WECHAT_APPID", "WXAUTH_SECRET_KEYS"}


def test_partly_configured_application_raises_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        WxAuth(shop(WECHAT_APPID=APPID))
    assert "WECHAT_SECRET" in str(caught.value)


def test_unknown_key_in_app_config_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="WXAUTH_IDLE_TLL"):
        WxAuth(shop(**CONFIG, WXAUTH_IDLE_TLL=60))


def test_one_extension_object_serves_two_applications(store: SessionStore, alice: Identity) -> None:
    """Each has its own settings. The same object acts for the application of the request."""
    auth = WxAuth(make=partial(Services, store=store))
    apps = [shop(**CONFIG), shop(**{**CONFIG, "WECHAT_APPID": "wxother"})]
    for app in apps:
        auth.init_app(app)
    token = store.create(alice)[0].reveal()
    assert [app.test_client().get("/orders", headers={"Authorization": token}).status_code for app in apps] == [
        200,
        200,
    ]
    with apps[0].app_context(), apps[1].app_context():
        assert list(services().settings.apps) == ["wxother"]
    with apps[0].app_context():
        assert list(services().settings.apps) == [APPID]


def test_extension_needs_an_application_context() -> None:
    auth = WxAuth(shop(**CONFIG))
    with pytest.raises(RuntimeError, match="application context"):
        auth.log_in("a-code")


def test_unguarded_routes_and_errors_of_an_application_stay_as_they_are() -> None:
    plain, ours = shop(), shop(**CONFIG)
    WxAuth(ours)
    for path in ("/open", "/nowhere"):
        one, two = plain.test_client().get(path), ours.test_client().get(path)
        assert (one.status, one.data, list(one.headers)) == (two.status, two.data, list(two.headers))


@pytest.fixture
def limited(store: SessionStore) -> tuple[Flask, WxAuth, FakeWeChat]:
    """An application that is not the service, with one login a minute and one phone number an hour."""
    app = shop(**CONFIG, WXAUTH_LOGIN_RATE="2/minute", WXAUTH_PHONE_RATE="1/hour")
    settings = Settings.from_env({name: str(value) for name, value in app.config.items() if name in CONFIG})
    fake = FakeWeChat(settings.apps)
    client = wechat_client(settings, Transport(settings.wechat_url, fake))
    auth = WxAuth(app, make=partial(Services, wechat=client, store=store))
    return app, auth, fake


def test_login_limit_holds_in_an_application(limited: tuple[Flask, WxAuth, FakeWeChat]) -> None:
    app, auth, fake = limited
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        for _ in range(2):
            auth.log_in(fake.wx_login("alice"))
        with pytest.raises(RateLimited):
            auth.log_in(fake.wx_login("alice"))


def test_phone_limit_of_a_user_holds_in_an_application(limited: tuple[Flask, WxAuth, FakeWeChat]) -> None:
    """Also if the user changes the address."""
    app, auth, fake = limited
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        _, session = auth.log_in(fake.wx_login("alice"))
        auth.phone_number(session, fake.tap_phone_button("alice", APPID))
    with (
        app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.2"}),
        pytest.raises(RateLimited) as caught,
    ):
        auth.phone_number(session, fake.tap_phone_button("alice", APPID))
    assert caught.value.source == "user"


def test_phone_limit_of_a_user_holds_outside_of_a_request(limited: tuple[Flask, WxAuth, FakeWeChat]) -> None:
    """In a script or a queue's worker. It shares the count with the requests of the user."""
    app, auth, fake = limited
    with app.app_context():
        _, session = auth.log_in(fake.wx_login("alice"))
        auth.phone_number(session, fake.tap_phone_button("alice", APPID))
    for context in (app.app_context(), app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"})):
        with context, pytest.raises(RateLimited) as caught:
            auth.phone_number(session, fake.tap_phone_button("alice", APPID))
        assert caught.value.source == "user"


def test_logins_outside_of_a_request_are_not_limited(limited: tuple[Flask, WxAuth, FakeWeChat]) -> None:
    """They have no address."""
    app, auth, fake = limited
    with app.app_context():
        tokens = [auth.log_in(fake.wx_login("alice"))[0] for _ in range(4)]
        assert services().store.resolve(tokens[-1].reveal()).appid == APPID


def test_application_without_the_extension_raises_with_what_to_write() -> None:
    app = shop()
    app.testing = True
    with pytest.raises(ConfigurationError, match=r"auth\.init_app\(app\)"):
        app.test_client().get("/orders", headers={"Authorization": "x"})
