"""The routes for the mini program, on both kinds of Redis."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import APPID, Phone
from wxauth import logged_in, logged_out
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat


def problem(response: Any) -> tuple[int, str, str]:
    body = response.get_json()
    return response.status_code, body["code"], body["action"]


def test_a_code_gives_a_token(phone: Phone) -> None:
    """The answer has exactly what the contract says, no session_key among it."""
    body = phone.try_to_log_in().get_json()
    assert body == {"token": body["token"], "token_type": "Bearer", "expires_in": body["expires_in"]}
    assert 604800 - body["expires_in"] in (0, 1)
    assert body["token"].startswith("wxa_")


def test_the_token_knows_its_user(phone: Phone) -> None:
    """`/session` answers the identity behind the token."""
    body = phone.log_in(device="iPhone").get("/session").get_json()
    assert set(body) == {"id", "appid", "openid", "unionid", "device", "created_at", "expires_in"}
    assert (body["appid"], body["device"], body["openid"][:8]) == (APPID, "iPhone", "oSANDBOX")


def test_what_there_is_none_of_is_left_out(phone: Phone) -> None:
    """No device was given, so none is shown."""
    assert "device" not in phone.log_in().get("/session").get_json()


def test_a_bare_token_is_taken(phone: Phone) -> None:
    """Much mini-program code sends it without the word Bearer."""
    phone.log_in()
    assert phone.client.get("/session", headers={"Authorization": phone.token}).status_code == 200


def test_two_users_are_two(client: FlaskClient, wechat: FakeWeChat) -> None:
    """Each token answers its own openid."""
    alice, bob = (Phone(client, wechat, user).log_in().get("/session").get_json() for user in ("alice", "bob"))
    assert alice["openid"] != bob["openid"]


def test_logout_ends_the_session(phone: Phone) -> None:
    """204, and from then on 401."""
    assert phone.log_in().delete("/session").status_code == 204
    assert problem(phone.get("/session")) == (401, "token_invalid", "login")


def test_the_list_shows_which_one_is_current(client: FlaskClient, wechat: FakeWeChat) -> None:
    """Oldest first, each with its label."""
    Phone(client, wechat).log_in(device="old")
    rows = Phone(client, wechat).log_in(device="new").get("/sessions").get_json()["sessions"]
    assert [(row["device"], row["current"]) for row in rows] == [("old", False), ("new", True)]


def test_all_but_this_one_can_be_ended(client: FlaskClient, wechat: FakeWeChat) -> None:
    """`keep=current` keeps the caller in."""
    old, new = Phone(client, wechat).log_in(), Phone(client, wechat).log_in()
    assert new.delete("/sessions?keep=current").status_code == 204
    assert (old.get("/session").status_code, new.get("/session").status_code) == (401, 200)


def test_all_can_be_ended(client: FlaskClient, wechat: FakeWeChat) -> None:
    """The caller's own goes too."""
    old, new = Phone(client, wechat).log_in(), Phone(client, wechat).log_in()
    assert new.delete("/sessions").status_code == 204
    assert (old.get("/session").status_code, new.get("/session").status_code) == (401, 401)


def test_another_word_than_current_is_refused(phone: Phone) -> None:
    """A typo must not log anybody out."""
    assert problem(phone.log_in().delete("/sessions?keep=curent")) == (400, "bad_request", "none")
    assert phone.get("/session").status_code == 200


def test_one_session_can_be_ended(client: FlaskClient, wechat: FakeWeChat) -> None:
    """By its id from the list."""
    old, new = Phone(client, wechat).log_in(), Phone(client, wechat).log_in()
    id = old.get("/session").get_json()["id"]
    assert new.delete(f"/sessions/{id}").status_code == 204
    assert old.get("/session").status_code == 401


def test_a_strangers_session_is_not_found(client: FlaskClient, wechat: FakeWeChat) -> None:
    """Nor does it end."""
    alice, bob = Phone(client, wechat, "alice").log_in(), Phone(client, wechat, "bob").log_in()
    id = alice.get("/session").get_json()["id"]
    assert problem(bob.delete(f"/sessions/{id}")) == (404, "not_found", "none")
    assert alice.get("/session").status_code == 200


def test_a_token_sent_along_is_ended_by_the_login(phone: Phone) -> None:
    """One phone, one session."""
    former = phone.log_in().token
    phone.log_in()
    assert phone.client.get("/session", headers={"Authorization": former}).status_code == 401
    assert len(phone.get("/sessions").get_json()["sessions"]) == 1


@pytest.mark.parametrize("header", ["wxa_nonsense", "Bearer ", "Basic YTpi", "a, b"])
def test_a_dead_token_sent_along_is_no_hindrance(phone: Phone, header: str) -> None:
    """Whoever logs in anew often still sends the old token."""
    code = phone.wechat.wx_login()
    response = phone.client.post("/login", json={"code": code}, headers={"Authorization": header})
    assert response.status_code == 200


def test_a_failed_login_ends_nothing(phone: Phone) -> None:
    """The token sent along stays good when WeChat refuses the new code."""
    phone.log_in()
    assert problem(phone.try_to_log_in("40226")) == (403, "user_blocked", "none")
    assert phone.get("/session").status_code == 200


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("40029", (400, "code_invalid", "login")),
        ("40163", (400, "code_used", "login")),
        ("40226", (403, "user_blocked", "none")),
        ("45011", (429, "rate_limited", "retry")),
        ("-1", (503, "wechat_busy", "retry")),
        ("garbage", (503, "wechat_unreachable", "retry")),
    ],
)
def test_what_wechat_refuses_is_a_problem(phone: Phone, outcome: str, expected: tuple[int, str, str]) -> None:
    """Each errcode as the contract's table says."""
    assert problem(phone.try_to_log_in(outcome)) == expected


def test_a_code_can_be_used_once(phone: Phone) -> None:
    """The second exchange is refused by WeChat, and by us in its words."""
    code = phone.wechat.wx_login()
    answers = [phone.client.post("/login", json={"code": code}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]


def test_the_appid_may_be_given(phone: Phone) -> None:
    """It must then be one that is configured."""
    assert phone.try_to_log_in(appid=APPID).status_code == 200
    assert problem(phone.try_to_log_in(appid="wxother")) == (400, "bad_request", "none")


def test_with_several_apps_the_appid_is_needed(app: Flask, phone: Phone) -> None:
    """Nobody guesses which mini program it is."""
    apps = app.extensions["wxauth"].settings.apps
    apps["wxsecond"] = Secret("s")
    assert problem(phone.try_to_log_in()) == (400, "bad_request", "none")
    assert phone.log_in(appid="wxsecond").get("/session").get_json()["appid"] == "wxsecond"


BAD_CODES: dict[str, object] = {
    "missing": None,
    "empty": "",
    "number": 7,
    "list": ["a"],
    "NUL": "a\0b",
    "CR LF": "a\r\nb",
    "space": "a b",
    "other script": "代码",
    "surrogate": "\ud800",
    "10 kB": "a" * 10000,
}


@pytest.mark.parametrize("code", BAD_CODES.values(), ids=BAD_CODES.keys())
def test_a_code_that_can_be_none_is_refused_before_anybody_is_asked(phone: Phone, code: object) -> None:
    """400 from us alone: the fake WeChat would have said code_invalid."""
    assert problem(phone.client.post("/login", json={"code": code})) == (400, "bad_request", "none")


@pytest.mark.parametrize("device", ["", "x" * 65, 5, "two\nlines"], ids=["empty", "65", "number", "two lines"])
def test_a_device_that_is_no_label_is_refused_before_wechat(phone: Phone, device: object) -> None:
    """And the code is still good afterwards."""
    code = phone.wechat.wx_login()
    first = phone.client.post("/login", json={"code": code, "device": device})
    second = phone.client.post("/login", json={"code": code, "device": "x" * 64})
    assert (problem(first), second.status_code) == ((400, "bad_request", "none"), 200)


def test_signals_tell_of_logins_and_logouts(app: Flask, phone: Phone) -> None:
    """An application can listen to what happens to its users."""
    heard: list[str] = []

    def on_login(sender: Flask, session: Any) -> None:
        heard.append(f"in {session.openid}")

    def on_logout(sender: Flask, user: Any) -> None:
        heard.append(f"out {user.openid}")

    with logged_in.connected_to(on_login, app), logged_out.connected_to(on_logout, app):
        openid = phone.log_in().get("/session").get_json()["openid"]
        phone.delete("/session")
    assert heard == [f"in {openid}", f"out {openid}"]
