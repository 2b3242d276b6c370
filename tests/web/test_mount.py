"""`url_prefix`: the routes of the service in an application of one's own, and the application beside them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APP_SECRET, APPID, RING_KEY, Phone
from tests.support.clients import BACKEND, CLIENT_SECRET, basic
from wxauth import Settings, WxAuth, login_required, wx_session
from wxauth.errors import ConfigurationError
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.web.requests import MAX_BODY
from wxauth.web.services import Services, wechat_client
from wxauth.wechat.transport import Transport

CONFIG = {
    "WECHAT_APPID": APPID,
    "WECHAT_SECRET": APP_SECRET,
    "WXAUTH_SECRET_KEYS": RING_KEY,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "WXAUTH_CACHE_SIZE": "0",
}


class Prefixed(Phone):
    """A phone whose service is below `/auth`."""

    def try_to_log_in(self, outcome: str | None = None, **more: Any) -> TestResponse:
        code = self.wechat.wx_login(self.user, outcome)
        return self.client.post("/auth/login", json={"code": code, **more}, headers=self.headers)


def shop() -> Flask:
    """An application with pages, error pages and a blueprint `login` of its own."""
    app = Flask("shop")
    app.add_url_rule("/orders", "orders", login_required(lambda: {"openid": wx_session.openid}))
    app.add_url_rule("/upload", "upload", lambda: "ok", methods=["POST"])
    app.add_url_rule("/missing", "missing", lambda: abort(404))
    app.register_error_handler(404, lambda error: ("our own page", 404))
    app.register_error_handler(405, lambda error: ("our own 405", 405))
    own = Blueprint("login", __name__)
    own.add_url_rule("/login", "page", lambda: "our own login page")
    app.register_blueprint(own)
    return app


def mounted(store: SessionStore, wechat: FakeWeChat, prefix: str = "/auth", **config: str) -> Flask:
    settings = Settings.from_env(CONFIG | config)
    client = wechat_client(settings, Transport(settings.wechat_url, wechat))
    app = shop()
    WxAuth(app, settings, lambda found: Services(found, client, store), url_prefix=prefix)
    return app


@pytest.fixture
def client(store: SessionStore, wechat: FakeWeChat) -> FlaskClient:
    return mounted(store, wechat).test_client()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Prefixed(client, wechat).log_in()


def answer(response: TestResponse) -> tuple[int, str]:
    return response.status_code, (response.get_json(silent=True) or {}).get("code", response.text)


def test_login_below_the_prefix_opens_a_guarded_view(phone: Phone) -> None:
    openid = phone.get("/auth/session").get_json()["openid"]
    assert phone.get("/orders").get_json() == {"openid": openid}
    assert phone.delete("/auth/session").status_code == 204
    assert answer(phone.get("/orders")) == (401, "token_invalid")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/auth/session", (401, "token_missing")),
        ("GET", "/auth/sessions", (401, "token_missing")),
        ("POST", "/auth/phone", (401, "token_missing")),
        ("POST", "/auth/userdata/decrypt", (401, "token_missing")),
        ("POST", "/auth/login", (415, "unsupported_media_type")),
        ("GET", "/auth/nothing", (404, "not_found")),
        ("GET", "/auth/session/", (404, "not_found")),
        ("POST", "/auth/userdata", (404, "not_found")),
        ("GET", "/auth/", (404, "not_found")),
        ("POST", "/auth//login", (404, "not_found")),
        ("GET", "/auth/login", (405, "method_not_allowed")),
        ("OPTIONS", "/auth/login", (405, "method_not_allowed")),
        ("PUT", "/auth/session", (405, "method_not_allowed")),
    ],
)
def test_path_below_the_prefix_gets_the_problems_and_headers_of_the_service(
    client: FlaskClient, method: str, path: str, expected: tuple[int, str]
) -> None:
    response = client.open(path, method=method)
    assert answer(response) == expected
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.headers["Cache-Control"], response.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_405_below_the_prefix_names_the_methods(client: FlaskClient) -> None:
    assert client.get("/auth/login").headers["Allow"] == "POST"
    assert client.put("/auth/session").headers["Allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("path", ["/verify", "/healthz", "/readyz", "/metrics", "/admin", "/openapi.yaml", "/"])
def test_routes_of_the_service_alone_are_not_mounted(client: FlaskClient, path: str) -> None:
    assert client.get(f"/auth{path}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/login"), ("GET", "/missing"), ("GET", "/nowhere"), ("GET", "/upload"), ("OPTIONS", "/upload"),
        ("GET", "//login"), ("GET", "/static/none.css"),
    ],
)  # fmt: skip
def test_other_paths_are_answered_as_without_the_extension(client: FlaskClient, method: str, path: str) -> None:
    plain = shop().test_client().open(path, method=method)
    ours = client.open(path, method=method)
    assert (ours.status, ours.data, list(ours.headers)) == (plain.status, plain.data, list(plain.headers))


def test_upload_of_the_application_may_be_larger_than_a_body_of_ours(client: FlaskClient) -> None:
    assert client.post("/upload", data=b"x" * 10 * MAX_BODY).text == "ok"
    code = json.dumps({"code": "x" * MAX_BODY})
    assert answer(client.post("/auth/login", data=code, content_type="application/json")) == (413, "too_large")


def test_settings_of_the_application_change_no_mounted_route(store: SessionStore, wechat: FakeWeChat) -> None:
    app = mounted(store, wechat)
    app.config.update(MAX_CONTENT_LENGTH=10, PROPAGATE_EXCEPTIONS=True, TRAP_HTTP_EXCEPTIONS=False)
    phone = Prefixed(app.test_client(), wechat).log_in()
    assert phone.get("/auth/session").status_code == 200
    assert app.test_client().post("/upload", data=b"x" * 20).status_code == 200  # it reads no body


def test_lax_slashes_of_the_application_change_no_mounted_route() -> None:
    app = Flask("shop")
    app.url_map.strict_slashes = False
    config = CONFIG | {"WXAUTH_CORS_ORIGINS": "https://shop.example.com"}
    WxAuth(app, Settings.from_env(config), url_prefix="/auth")
    for method in ("GET", "OPTIONS"):
        assert answer(app.test_client().open("/auth/session/", method=method)) == (404, "not_found")


def test_limit_of_logins_holds_below_the_prefix(store: SessionStore, wechat: FakeWeChat) -> None:
    client = mounted(store, wechat, WXAUTH_LOGIN_RATE="2/day").test_client()
    answers = [Prefixed(client, wechat).try_to_log_in().status_code for _ in range(3)]
    assert answers == [200, 200, 429]


def test_routes_of_clients_are_there_only_if_one_is_configured(store: SessionStore, wechat: FakeWeChat) -> None:
    data, headers = {"token": "x"}, {"Authorization": basic()}
    without = mounted(store, wechat).test_client()
    assert answer(without.post("/auth/introspect", data=data, headers=headers)) == (404, "not_found")
    with_clients = mounted(store, wechat, WXAUTH_CLIENTS=f"{BACKEND}:{CLIENT_SECRET}").test_client()
    response = with_clients.post("/auth/introspect", data=data, headers=headers)
    assert response.get_json() == {"active": False}
    assert answer(with_clients.post("/auth/introspect", data=data)) == (401, "client_unauthorized")


def test_push_is_there_only_if_it_is_configured(store: SessionStore, wechat: FakeWeChat) -> None:
    assert answer(mounted(store, wechat).test_client().get("/auth/wechat/push")) == (404, "not_found")
    client = mounted(store, wechat, WXAUTH_PUSH_TOKEN="abcdef").test_client()
    assert answer(client.get("/auth/wechat/push")) == (400, "bad_request")


def test_prefix_of_several_parts_and_a_slash_at_its_end(store: SessionStore, wechat: FakeWeChat) -> None:
    client = mounted(store, wechat, "/api/v1/").test_client()
    assert answer(client.get("/api/v1/session")) == (401, "token_missing")
    assert answer(client.get("/api/v1/none")) == (404, "not_found")
    assert answer(client.get("/api/none")) == (404, "our own page")


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_abort_of_a_hook_of_the_application_keeps_its_status(
    store: SessionStore, wechat: FakeWeChat, status: int
) -> None:
    app = mounted(store, wechat)
    app.before_request(lambda: abort(status))
    assert app.test_client().get("/auth/session").status_code == status


def test_body_that_a_hook_has_read_has_the_limit_too(store: SessionStore, wechat: FakeWeChat) -> None:
    app = mounted(store, wechat)
    app.before_request(lambda: request.get_data() and None)
    body = json.dumps({"code": "the code is a mock one", "more": "x" * MAX_BODY})
    response = app.test_client().post("/auth/login", data=body, content_type="application/json")
    assert answer(response) == (413, "too_large")


def test_second_mount_raises_with_what_to_write(store: SessionStore, wechat: FakeWeChat) -> None:
    with pytest.raises(ConfigurationError, match="init_app once"):
        WxAuth(mounted(store, wechat), Settings.from_env(CONFIG), url_prefix="/again")


def test_prefix_slash_hides_routes_of_unconfigured_clients(store: SessionStore, wechat: FakeWeChat) -> None:
    client = mounted(store, wechat, "/").test_client()
    assert client.post("/introspect", data={"token": "x"}).status_code == 404


def test_prefix_slash_leaves_the_other_paths_to_the_application(store: SessionStore, wechat: FakeWeChat) -> None:
    app = Flask("root")
    app.register_error_handler(404, lambda error: ("our own page", 404))
    WxAuth(app, Settings.from_env(CONFIG), lambda found: Services(found, store=store), url_prefix="/")
    assert answer(app.test_client().get("/session")) == (401, "token_missing")
    assert answer(app.test_client().get("/none")) == (404, "our own page")


@pytest.mark.parametrize(("prefix", "right"), [("auth", "/auth"), ("", "/"), ("auth/", "/auth")])
def test_prefix_without_a_slash_raises_with_what_to_write(prefix: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WxAuth(shop(), Settings.from_env(CONFIG), url_prefix=prefix)
    assert f'url_prefix: write "{right}"' in str(caught.value)


def test_no_prefix_mounts_nothing(store: SessionStore, wechat: FakeWeChat) -> None:
    app = shop()
    rules = len(list(app.url_map.iter_rules()))
    WxAuth(app, Settings.from_env(CONFIG), partial(Services, store=store))
    assert len(list(app.url_map.iter_rules())) == rules


def test_bug_of_a_mounted_route_is_a_problem(store: SessionStore, wechat: FakeWeChat, monkeypatch: Any) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    app = mounted(store, wechat)
    phone = Prefixed(app.test_client(), wechat).log_in()
    monkeypatch.setattr(store, "sessions_of", crash)
    assert answer(phone.get("/auth/sessions")) == (500, "internal_error")
