"""`login_required` and `wx_session` in an application that uses the extension."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import flask_restful
import flask_restx
import pytest
from flask import Blueprint, Flask, abort
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder

from tests.conftest import ALICE
from wxauth import WxAuth, login_required, wx_session
from wxauth.clock import Clock
from wxauth.errors import StoreUnavailable
from wxauth.keys import KeyRing
from wxauth.models import Identity
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.services import Services

FORGED = f"wxa_{'A' * 65}.{'A' * 43}"


@pytest.fixture
def client(settings: Settings, store: SessionStore) -> FlaskClient:
    shop = Flask("shop")
    WxAuth(shop, settings, partial(Services, store=store))

    @shop.get("/orders")
    @login_required
    def orders() -> dict[str, str]:
        return {"openid": wx_session.openid}

    @shop.post("/pay")
    @login_required(fresh=300)
    def pay() -> str:
        return "paid"

    @shop.get("/peek")
    @login_required(touch=False)
    def peek() -> str:
        return wx_session.id

    @shop.get("/refuse")
    @login_required
    def refuse() -> str:
        abort(404)

    @shop.get("/cached")
    @login_required
    def cached() -> Any:
        return "ok", {"Cache-Control": "public", "Vary": "Accept"}

    @shop.get("/broken")
    @login_required
    def broken() -> str:
        raise StoreUnavailable("timeout")

    @shop.get("/open")
    def unguarded() -> str:
        return wx_session.openid

    return shop.test_client()


@pytest.fixture
def token(store: SessionStore, alice: Identity) -> str:
    return store.create(alice)[0].reveal()


def raise_store_unavailable(*_: object) -> None:
    raise StoreUnavailable("timeout")


def get(client: FlaskClient, path: str, authorization: str) -> Any:
    return client.get(path, headers={"Authorization": authorization})


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}", "{}"])
def test_live_token_opens_the_view(client: FlaskClient, token: str, alice: Identity, form: str) -> None:
    response = get(client, "/orders", form.format(token))
    assert response.get_json() == {"openid": alice.user.openid}


def test_missing_token_returns_token_missing_without_calling_the_view(client: FlaskClient) -> None:
    """The challenge has no `error`."""
    response = client.get("/orders")
    assert response.get_json()["code"] == "token_missing"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxauth"'


@pytest.mark.parametrize(
    "form",
    [
        "Basic {}",
        "Token {}",
        "Bearer {},Bearer {}",
        "{}, {}",
        "Bearer",
        "Bearer ",
        "Bearer {} x",
        "{}x",
        "Bearer Bearer {}",
    ],
)
def test_other_credential_returns_token_invalid(client: FlaskClient, token: str, form: str) -> None:
    """Two headers joined to one, another scheme, and text after the token."""
    response = get(client, "/orders", form.replace("{}", token))
    assert (response.status_code, response.get_json()["code"]) == (401, "token_invalid")


def test_all_invalid_tokens_get_the_same_answer(
    client: FlaskClient, store: SessionStore, token: str, alice: Identity, clock: Clock
) -> None:
    """Malformed, forged, revoked and expired tokens differ in the request_id only."""
    revoked, session = store.create(alice)
    store.revoke(session)
    expired, _ = store.create(alice)
    clock.advance(604801)
    forged = token[:-4] + "AAAA"
    answers = []
    for text in ("malformed", forged, revoked.reveal(), expired.reveal()):
        response = get(client, "/orders", f"Bearer {text}")
        body = response.get_json() | {"request_id": None}
        answers.append((response.status_code, sorted(response.headers), body))
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize("text", [FORGED, f"Bearer {FORGED}", "Bearer nonsense", "Basic YTpi", "Bearer", "\xff"])
def test_forged_token_returns_401_without_a_redis_command(settings: Settings, ring: KeyRing, text: str) -> None:
    """Redis is down here, so any command would end in 503."""
    shop = Flask("shop")
    WxAuth(shop, settings)
    shop.get("/orders")(login_required(lambda: "ok"))
    response = get(shop.test_client(), "/orders", text)
    assert (response.status_code, response.get_json()["code"]) == (401, "token_invalid")
    assert get(shop.test_client(), "/orders", ring.issue(ALICE).text).status_code == 503


@pytest.mark.parametrize("query", ["access_token={}", "token={}", "anything={}", "a=1&x={}"])
def test_token_in_the_query_string_returns_400(client: FlaskClient, token: str, query: str) -> None:
    """Even with a good header, because the logs of every proxy would keep it."""
    response = get(client, f"/orders?{query.format(token)}", f"Bearer {token}")
    assert (response.status_code, response.get_json()["code"]) == (400, "bad_request")


def test_fresh_refuses_an_old_login_with_login_too_old(client: FlaskClient, token: str, clock: Clock) -> None:
    """The challenge names the maximal age (RFC 9470)."""
    headers = {"Authorization": token}
    assert client.post("/pay", headers=headers).status_code == 200
    clock.advance(301)
    response = client.post("/pay", headers=headers)
    assert response.get_json()["code"] == "login_too_old"
    assert response.headers["WWW-Authenticate"].endswith('error="insufficient_user_authentication", max_age="300"')


def test_touch_false_does_not_extend_the_idle_time(client: FlaskClient, token: str, clock: Clock) -> None:
    clock.advance(500000)
    get(client, "/peek", token)
    clock.advance(200000)
    assert get(client, "/peek", token).status_code == 401


def test_answer_of_a_guarded_view_is_not_stored_by_caches(client: FlaskClient, token: str) -> None:
    response = get(client, "/orders", token)
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


@pytest.mark.parametrize("path", ["/refuse", "/orders"])
def test_error_answer_of_a_guarded_view_is_not_stored_by_caches(client: FlaskClient, token: str, path: str) -> None:
    """Both where the view raises and where it is not called."""
    response = get(client, path, token if path == "/refuse" else "nonsense")
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


def test_cache_control_of_the_view_is_replaced_and_its_vary_is_extended(client: FlaskClient, token: str) -> None:
    response = get(client, "/cached", token)
    assert (response.headers["Cache-Control"], response.vary.as_set()) == ("no-store", {"accept", "authorization"})


def test_head_has_no_body_and_a_stream_is_streamed(client: FlaskClient, token: str) -> None:
    headers = {"Authorization": token}
    client.application.get("/stream")(login_required(lambda: iter(["one", "two"])))
    assert client.head("/orders", headers=headers).data == b""
    environ = EnvironBuilder(path="/stream", headers=[*headers.items()]).get_environ()
    assert list(client.application.wsgi_app(environ, lambda *given: lambda part: None)) == [b"one", b"two"]


def test_problem_has_the_request_id_of_the_log(client: FlaskClient, token: str, lines: io.StringIO) -> None:
    problem = get(client, "/broken", token).get_json()
    (line,) = map(json.loads, lines.getvalue().splitlines())
    assert (line["event"], line["request_id"]) == ("store_unavailable", problem["request_id"])


def test_outage_inside_the_view_returns_store_unavailable(
    client: FlaskClient, token: str, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wx_session.session_key` is read from Redis when the view asks for it."""
    client.application.get("/key")(login_required(lambda: str(wx_session.session_key)))
    monkeypatch.setattr(store, "session_keys", raise_store_unavailable)
    response = get(client, "/key", token)
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")


# --- Applications with error handling of their own


Shop = Callable[..., FlaskClient]


def orders() -> dict[str, str]:
    """Ask Redis for the session_key too, so that the view itself can fail."""
    return {"openid": wx_session.openid, "has_key": str(bool(wx_session.session_key))}


async def async_orders() -> dict[str, str]:
    return orders()


def with_restful(shop: Flask) -> None:
    class Orders(flask_restful.Resource):  # type: ignore[misc]  # it has no annotations
        method_decorators = (login_required,)

        def get(self) -> dict[str, str]:
            return orders()

    flask_restful.Api(shop).add_resource(Orders, "/orders")


def with_restx(shop: Flask) -> None:
    class Orders(flask_restx.Resource):  # type: ignore[misc]  # it has no annotations
        method_decorators = (login_required,)

        def get(self) -> dict[str, str]:
            return orders()

    flask_restx.Api(shop).add_resource(Orders, "/orders")


def with_catch_all(shop: Flask) -> None:
    """The handlers of a blueprint come before those of the application, also for a class further up."""
    blueprint = Blueprint("shop", __name__)
    blueprint.errorhandler(Exception)(lambda error: ("a page", 500))
    blueprint.get("/orders")(login_required(orders))
    shop.errorhandler(Exception)(lambda error: ("a page", 500))
    shop.errorhandler(HTTPException)(lambda error: ("a page", 500))
    shop.register_blueprint(blueprint)


def with_async(shop: Flask) -> None:
    blueprint = Blueprint("shop", __name__)
    blueprint.errorhandler(Exception)(lambda error: ("a page", 500))
    blueprint.get("/orders")(login_required(async_orders))
    shop.register_blueprint(blueprint)


FRAMEWORKS = [with_restful, with_restx, with_catch_all, with_async]
#: What an application may set, and what changes how Flask treats an exception.
CONFIGS: dict[str, dict[str, bool]] = {
    "production": {},
    "debug": {"DEBUG": True},
    "testing": {"TESTING": True},
    "propagate": {"PROPAGATE_EXCEPTIONS": True},
    "not propagate": {"PROPAGATE_EXCEPTIONS": False, "DEBUG": True},
}


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest, settings: Settings, store: SessionStore) -> Shop:
    def start(config: dict[str, bool]) -> FlaskClient:
        shop = Flask("shop")
        shop.config.update(config)
        WxAuth(shop, settings, partial(Services, store=store))
        request.param(shop)
        return shop.test_client()

    return start


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_missing_token_returns_401_in_any_application(framework: Shop, config: dict[str, bool]) -> None:
    response = framework(config).get("/orders")
    assert (response.status_code, response.get_json()["code"]) == (401, "token_missing")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxauth"'
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_live_token_opens_the_view_in_any_application(
    framework: Shop, config: dict[str, bool], token: str, alice: Identity
) -> None:
    response = get(framework(config), "/orders", token)
    assert response.get_json() == {"openid": alice.user.openid, "has_key": "True"}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_outage_inside_the_view_returns_503_in_any_application(
    framework: Shop, config: dict[str, bool], token: str, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "session_keys", raise_store_unavailable)
    response = get(framework(config), "/orders", token)
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")
    assert response.headers["Retry-After"] == "1"


def test_wx_session_raises_without_login_required(client: FlaskClient) -> None:
    client.application.testing = True
    with pytest.raises(LookupError, match="login_required"):
        client.get("/open")


def test_wx_session_ends_with_its_request(client: FlaskClient, token: str) -> None:
    """Also if the next request has the same application context, as in many tests."""
    client.application.testing = True
    with client.application.app_context():
        assert get(client, "/orders", token).status_code == 200
        with pytest.raises(LookupError, match="login_required"):
            client.get("/open")


def test_created_at_is_a_unix_time_in_seconds(store: SessionStore, token: str) -> None:
    assert 0 <= time.time() - store.resolve(token).created_at < 60
