"""`login_required(optional=True)`, `wx_user`, and the warning about an open route."""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, request_started

from wxauth import WxAuth, login_required, wx_session, wx_user
from wxauth.testing import Sandbox


def application(view: Callable[[], Any], auth: WxAuth | None = None, **options: Any) -> Sandbox:
    app = Flask("shop")
    (auth or WxAuth()).init_app(app)
    app.add_url_rule("/", "view", login_required(**options)(view) if options else view)
    return Sandbox(app)


def test_optional_view_without_a_token_has_a_false_session() -> None:
    sandbox = application(lambda: {"known": bool(wx_session)}, optional=True)
    assert sandbox.app.test_client().get("/").json == {"known": False}
    assert sandbox.client().get("/").json == {"known": True}


def test_optional_view_with_a_bad_token_is_not_called() -> None:
    sandbox = application(lambda: "called", optional=True)
    response = sandbox.app.test_client().get("/", headers={"Authorization": "Bearer x"})
    assert (response.status_code, response.json["code"]) == (401, "token_invalid")  # type: ignore[index]
    response = sandbox.app.test_client().get("/?access_token=x")
    assert (response.status_code, response.json["code"]) == (400, "bad_request")  # type: ignore[index]


@pytest.mark.parametrize("view", [lambda: wx_session.openid, lambda: wx_user.name, lambda: wx_user["name"]])
def test_attribute_of_a_false_session_is_token_missing(view: Callable[[], Any]) -> None:
    """The view asks for a user, so the answer asks for a login."""
    response = application(view, optional=True).app.test_client().get("/")
    assert (response.status_code, response.json["code"]) == (401, "token_missing")  # type: ignore[index]


@pytest.mark.parametrize("use", [bool, str, len, lambda proxy: proxy.openid])
@pytest.mark.parametrize("proxy", [wx_session, wx_user], ids=["wx_session", "wx_user"])
def test_session_outside_of_a_guarded_view_raises_with_what_to_write(use: Callable[[Any], Any], proxy: Any) -> None:
    app = application(lambda: "").app
    with app.test_request_context("/"), pytest.raises(LookupError, match="@login_required"):
        use(proxy)


@pytest.mark.parametrize("proxy", [wx_session, wx_user], ids=["wx_session", "wx_user"])
def test_tools_may_look_at_the_proxies_outside_of_a_request(proxy: Any) -> None:
    """pytest asks this of each name in a module of tests. As Flask's `request`, they have no value there."""
    assert not isinstance(proxy, int)
    with pytest.raises(RuntimeError):
        proxy.openid  # noqa: B018


def test_false_session_cannot_be_written() -> None:
    """One object stands for all requests without a token: a value in it would be seen by others."""

    def view() -> str:
        wx_session.openid = "oATTACK"  # type: ignore[misc]
        return "written"

    response = application(view, optional=True).app.test_client().get("/")
    assert (response.status_code, response.json["code"]) == (401, "token_missing")  # type: ignore[index]


def test_loader_that_fails_does_not_make_a_false_user() -> None:
    """Werkzeug's proxy answers bool() with False after a RuntimeError."""
    auth = WxAuth()

    @auth.user_loader
    def load(session: Any) -> None:
        raise NotImplementedError

    sandbox = application(lambda: {"known": bool(wx_user)}, auth, touch=True)
    sandbox.app.testing = True
    with pytest.raises(LookupError, match="user_loader failed"):
        sandbox.client().get("/")


def test_user_is_loaded_once_in_a_request_and_only_if_it_is_used() -> None:
    auth, loaded = WxAuth(), []

    @auth.user_loader
    def load(session: Any) -> dict[str, str]:
        loaded.append(session.openid)
        return {"name": "Alice"}

    used = application(lambda: [wx_user["name"], wx_user["name"]], auth, touch=True)
    unused = application(lambda: "", auth, touch=True)
    alice = used.client()
    assert alice.get("/").json == ["Alice", "Alice"]
    assert unused.client().get("/").text == ""
    assert loaded == [alice.openid]


def test_user_without_a_loader_raises_with_what_to_write() -> None:
    sandbox = application(lambda: wx_user["name"], touch=True)
    sandbox.app.testing = True
    with pytest.raises(LookupError, match=r"@auth\.user_loader"):
        sandbox.client().get("/")


def test_whole_blueprint_is_guarded_by_before_request() -> None:
    app, shop = Flask("shop"), Blueprint("shop", __name__)
    shop.before_request(login_required(lambda: None))
    shop.add_url_rule("/orders", "orders", lambda: {"openid": wx_session.openid})
    app.register_blueprint(shop)
    WxAuth(app)
    sandbox = Sandbox(app)
    assert sandbox.app.test_client().get("/orders").status_code == 401
    alice = sandbox.client()
    assert alice.get("/orders").json == {"openid": alice.openid}


OPEN = r"The route of .*orders is open: write @login_required below"


def test_guard_above_the_route_warns_when_it_is_written() -> None:
    WxAuth(app := Flask("shop"))
    with pytest.warns(UserWarning, match=OPEN):

        @login_required
        @app.get("/orders")
        def orders() -> str:
            return ""


def test_guard_above_the_route_warns_when_the_extension_is_initialized() -> None:
    app = Flask("shop")

    @login_required
    @app.get("/orders")
    def orders() -> str:
        return ""

    with pytest.warns(UserWarning, match=OPEN):
        WxAuth(app)


def test_guard_above_the_route_of_a_blueprint_warns_at_the_first_request() -> None:
    app, shop = Flask("shop"), Blueprint("shop", __name__)

    @login_required
    @shop.get("/orders")
    def orders() -> str:
        return ""

    WxAuth(app)
    app.register_blueprint(shop)
    with pytest.warns(UserWarning, match=OPEN):
        app.test_client().get("/")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app.test_client().get("/")


def test_after_the_first_request_the_signal_has_no_receiver_of_ours() -> None:
    gc.collect()
    before = set(request_started.receivers)
    WxAuth(app := Flask("shop"))
    assert set(request_started.receivers) > before
    app.test_client().get("/")
    assert set(request_started.receivers) <= before


def test_guard_above_another_decorator_and_the_route_warns() -> None:
    WxAuth(app := Flask("shop"))

    def audited(view: Callable[[], str]) -> Callable[[], str]:
        return functools.wraps(view)(lambda: view())

    with pytest.warns(UserWarning, match=OPEN):

        @login_required
        @audited
        @app.get("/orders")
        def orders() -> str:
            return ""


def test_guard_below_the_route_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app = Flask("shop")
        WxAuth(app)

        @app.get("/orders")
        @login_required
        def orders() -> str:
            return ""

        assert Sandbox(app).client().get("/orders").status_code == 200
