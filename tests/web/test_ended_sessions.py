"""What the token of an ended session gets: the same code from every guarded route and from `/verify`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from tests.conftest import APPID, Phone
from tests.support.clients import ask, post, settings_with_clients
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings

CHALLENGE = 'Bearer realm="wxauth", error="invalid_token"'
GUARDED = [("GET", "/session"), ("DELETE", "/session"), ("GET", "/sessions"), ("POST", "/phone"), ("GET", "/verify")]


@pytest.fixture
def settings() -> Settings:
    return settings_with_clients()


@pytest.fixture
def old(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID)


@pytest.fixture
def new(client: FlaskClient, wechat: FakeWeChat, old: Phone) -> Phone:
    """A second phone of the same user."""
    return Phone(client, wechat).log_in(appid=APPID)


def id_of(phone: Phone) -> str:
    return str(phone.get("/session").get_json()["id"])


def path_of(phone: Phone) -> str:
    return f"/users/{APPID}/{phone.get('/session').get_json()['openid']}"


def log_in_often(old: Phone, new: Phone) -> None:
    for _ in range(9):
        Phone(new.client, new.wechat).log_in(appid=APPID)


ENDS: dict[str, tuple[Callable[[Phone, Phone], object], int, str, str]] = {
    "own logout": (lambda old, new: old.delete("/session"), 401, "token_invalid", "login"),
    "own logout by id": (lambda old, new: old.delete(f"/sessions/{id_of(old)}"), 401, "token_invalid", "login"),
    "own logout everywhere": (lambda old, new: old.delete("/sessions"), 401, "token_invalid", "login"),
    "limit": (log_in_often, 401, "session_replaced", "ask"),
    "other device, by id": (lambda old, new: new.delete(f"/sessions/{id_of(old)}"), 401, "session_revoked", "ask"),
    "other device, all": (lambda old, new: new.delete("/sessions"), 401, "session_revoked", "ask"),
    "other device, all others": (
        lambda old, new: new.delete("/sessions?keep=current"), 401, "session_revoked", "ask"
    ),
    "/revoke": (lambda old, new: post(old.client, "/revoke", old.token), 401, "session_revoked", "ask"),
    "operator": (
        lambda old, new: ask(old.client, "DELETE", f"{path_of(old)}/sessions"), 401, "session_revoked", "ask"
    ),
    "ban": (lambda old, new: ask(old.client, "PUT", f"{path_of(old)}/ban"), 403, "user_banned", "none"),
}  # fmt: skip


@pytest.mark.parametrize(("end", "status", "code", "action"), ENDS.values(), ids=ENDS.keys())
def test_every_guarded_route_says_why_the_session_ended(
    old: Phone, new: Phone, end: Callable[[Phone, Phone], object], status: int, code: str, action: str
) -> None:
    end(old, new)
    for method, path in GUARDED:
        response = old.client.open(path, method=method, headers=old.headers, json={})
        problem = response.get_json()
        assert (response.status_code, problem["code"], problem["action"]) == (status, code, action), path
        assert response.headers.get("WWW-Authenticate") == (CHALLENGE if status == 401 else None)
        assert response.headers.get("X-WXAuth-Problem") == (code if path == "/verify" else None)


def test_introspect_of_an_ended_session_returns_inactive(old: Phone, new: Phone) -> None:
    new.delete("/sessions?keep=current")
    assert post(old.client, "/introspect", old.token).get_json() == {"active": False}


@pytest.mark.parametrize("end", ["session_revoked", "user_banned"])
def test_login_with_the_token_of_an_ended_session_succeeds(old: Phone, new: Phone, end: str) -> None:
    """A ban refuses its own user alone: another user may log in on the same phone."""
    if end == "user_banned":
        ask(old.client, "PUT", f"{path_of(old)}/ban")
        old.user = "bob"
    else:
        new.delete("/sessions?keep=current")
    assert old.try_to_log_in(appid=APPID).status_code == 200


def test_reason_is_in_the_access_log(old: Phone, new: Phone, lines: io.StringIO) -> None:
    new.delete("/sessions?keep=current")
    old.get("/session")
    assert json.loads(lines.getvalue().splitlines()[-1])["problem"] == "session_revoked"


def test_only_the_phone_above_the_limit_is_told_to_ask(
    client: FlaskClient, wechat: FakeWeChat, store: SessionStore
) -> None:
    """So no phone logs in again by itself, and none ends the session of another."""
    phones = [Phone(client, wechat).log_in(appid=APPID) for _ in range(store.policy.max_sessions + 1)]
    actions = [phone.get("/session").get_json().get("action") for phone in phones]
    assert actions == ["ask"] + [None] * store.policy.max_sessions
