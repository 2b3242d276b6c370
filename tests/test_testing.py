"""`wxauth.testing`: the examples of its documentation, and each method."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from wxauth import WxAuth, login_required, wx_session, wx_user
from wxauth.errors import CodeInvalid, ConfigurationError, WeChatBusy
from wxauth.testing import Sandbox

auth = WxAuth()


@auth.user_loader
def load_user(session: Any) -> dict[str, str]:
    return {"name": f"customer {session.openid}"}


def create_app(**config: Any) -> Flask:
    app = Flask("shop")
    app.config.update(TESTING=True, **config)
    auth.init_app(app, url_prefix="/auth")
    app.add_url_rule(
        "/orders", "orders", login_required(lambda: {"openid": wx_session.openid, "user": wx_user["name"]})
    )
    return app


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a variable that would be an error."""
    for name in ("REDIS_URL", "WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "WXAUTH_SANDBOX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(create_app())


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json["code"]


def test_client_is_logged_in(sandbox: Sandbox) -> None:
    alice = sandbox.client("alice")
    assert alice.get("/orders").json == {"openid": alice.openid, "user": f"customer {alice.openid}"}


def test_client_without_a_login_is_refused(sandbox: Sandbox) -> None:
    assert code_of(sandbox.app.test_client().get("/orders")) == (401, "token_missing")


def test_two_users_have_two_openids_and_two_phones_have_two_tokens(sandbox: Sandbox) -> None:
    alice, again, bob = (sandbox.client(user) for user in ("alice", "alice", "bob"))
    assert (alice.openid, alice.openid) != (again.openid, bob.openid)
    assert len({client.token for client in (alice, again, bob)}) == 3
    assert re.fullmatch(r"wxa_[\w-]+\.[\w-]+", alice.token)


def test_session_ends_when_the_time_has_moved(sandbox: Sandbox) -> None:
    alice = sandbox.client()
    sandbox.advance(days=6)
    assert alice.get("/orders").status_code == 200
    sandbox.advance(days=7, minutes=1)
    assert code_of(alice.get("/orders")) == (401, "token_invalid")


def test_reason_and_limit_move_with_the_time() -> None:
    app = create_app()
    app.config.update(WXAUTH_MAX_SESSIONS=1, WXAUTH_LOGIN_RATE="1/hour")
    sandbox = Sandbox(app)
    old, new = sandbox.client(), sandbox.client()
    assert code_of(old.get("/orders")) == (401, "session_replaced")
    assert new.get("/orders").status_code == 200
    for expected in (400, 429):
        assert new.post("/auth/login", json={"code": "unknown"}).status_code == expected
    sandbox.advance(hours=1)
    assert new.post("/auth/login", json={"code": "unknown"}).status_code == 400
    sandbox.advance(days=8)
    assert code_of(old.get("/orders")) == (401, "token_invalid")


def test_redis_down_is_seen_by_the_next_request_and_so_is_redis_up(sandbox: Sandbox) -> None:
    alice = sandbox.client()
    sandbox.redis_down()
    assert [code_of(alice.get("/orders")) for _ in range(7)] == [(503, "store_unavailable")] * 7
    sandbox.redis_up()
    assert alice.get("/orders").status_code == 200


def test_wechat_error_is_the_answer_to_the_next_logins(sandbox: Sandbox) -> None:
    sandbox.wechat_error(40029)
    with pytest.raises(CodeInvalid):
        sandbox.client()
    sandbox.wechat_error(-1, times=3)
    with pytest.raises(WeChatBusy):
        sandbox.client()
    assert sandbox.client().get("/orders").status_code == 200


def test_settings_of_a_real_installation_are_not_used() -> None:
    """The same factory makes the application for production."""
    real = {"WECHAT_APPID": "wx0123456789abcdef", "WECHAT_SECRET": "s" * 32, "WXAUTH_SECRET_KEYS": "k" * 40}
    app = create_app(**real, REDIS_URL="redis://192.0.2.1:6379/0", WXAUTH_MAX_SESSIONS=2)
    alice = Sandbox(app).client()
    with app.app_context():
        assert alice.get("/auth/session").get_json()["appid"] == "wx0123456789abcdef"


def test_two_sandboxes_share_nothing() -> None:
    one, two = Sandbox(create_app()), Sandbox(create_app())
    token = one.client().token
    assert two.app.test_client().get("/orders", headers={"Authorization": token}).status_code == 401


def test_application_without_the_extension_raises_with_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"auth\.init_app\(app\)"):
        Sandbox(Flask("bare"))


def test_playground_is_not_mounted_for_tests(sandbox: Sandbox) -> None:
    """The routes of the sandbox are for WXAUTH_SANDBOX=1."""
    assert sandbox.app.test_client().get("/auth/sandbox/redis").status_code == 404
