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
from wxauth.web.actions import auth


def problem(response: Any) -> tuple[int, str, str]:
    body = response.get_json()
    return response.status_code, body["code"], body["action"]


def test_login_returns_exactly_the_members_of_the_contract(phone: Phone) -> None:
    """No session_key is among them."""
    body = phone.try_to_log_in().get_json()
    assert body == {"token": body["token"], "token_type": "Bearer", "expires_in": body["expires_in"]}
    assert 604800 - body["expires_in"] in (0, 1)
    assert body["token"].startswith("wxa_")


def test_session_returns_the_identity_of_the_token(phone: Phone) -> None:
    body = phone.log_in(device="iPhone").get("/session").get_json()
    assert set(body) == {"id", "appid", "openid", "unionid", "device", "created_at", "expires_in"}
    assert (body["appid"], body["device"], body["openid"][:8]) == (APPID, "iPhone", "oSANDBOX")


def test_session_omits_device_if_there_is_none(phone: Phone) -> None:
    assert "device" not in phone.log_in().get("/session").get_json()


def test_bare_token_is_accepted(phone: Phone) -> None:
    """Much mini-program code sends it without the word Bearer."""
    phone.log_in()
    assert phone.client.get("/session", headers={"Authorization": phone.token}).status_code == 200


def test_tokens_of_two_users_return_two_openids(client: FlaskClient, wechat: FakeWeChat) -> None:
    alice, bob = (Phone(client, wechat, user).log_in().get("/session").get_json() for user in ("alice", "bob"))
    assert alice["openid"] != bob["openid"]


def test_logout_returns_204_and_the_token_then_401(phone: Phone) -> None:
    assert phone.log_in().delete("/session").status_code == 204
    assert problem(phone.get("/session")) == (401, "token_invalid", "login")


def test_sessions_are_listed_oldest_first_with_the_current_one_marked(
    client: FlaskClient, wechat: FakeWeChat
) -> None:
    Phone(client, wechat).log_in(device="old")
    rows = Phone(client, wechat).log_in(device="new").get("/sessions").get_json()["sessions"]
    assert [(row["device"], row["current"]) for row in rows] == [("old", False), ("new", True)]


def test_logout_everywhere_with_keep_current_keeps_this_session(client: FlaskClient, wechat: FakeWeChat) -> None:
    old, new = Phone(client, wechat).log_in(), Phone(client, wechat).log_in()
    assert new.delete("/sessions?keep=current").status_code == 204
    assert (old.get("/session").status_code, new.get("/session").status_code) == (401, 200)


def test_logout_everywhere_ends_all_sessions(client: FlaskClient, wechat: FakeWeChat) -> None:
    old, new = Phone(client, wechat).log_in(), Phone(client, wechat).log_in()
    assert new.delete("/sessions").status_code == 204
    assert (old.get("/session").status_code, new.get("/session").status_code) == (401, 401)


def test_logout_everywhere_with_a_misspelt_keep_ends_nothing(phone: Phone) -> None:
    assert problem(phone.log_in().delete("/sessions?keep=curent")) == (400, "bad_request", "none")
    assert phone.get("/session").status_code == 200


def test_session_is_ended_by_its_id(client: FlaskClient, wechat: FakeWeChat) -> None:
    old, new = Phone(client, wechat).log_in(), Phone(client, wechat).log_in()
    id = old.get("/session").get_json()["id"]
    assert new.delete(f"/sessions/{id}").status_code == 204
    assert old.get("/session").status_code == 401


def test_session_of_another_user_returns_404_and_stays_live(client: FlaskClient, wechat: FakeWeChat) -> None:
    alice, bob = Phone(client, wechat, "alice").log_in(), Phone(client, wechat, "bob").log_in()
    id = alice.get("/session").get_json()["id"]
    assert problem(bob.delete(f"/sessions/{id}")) == (404, "not_found", "none")
    assert alice.get("/session").status_code == 200


def test_login_ends_the_session_of_the_token_sent_along(phone: Phone) -> None:
    first = phone.log_in().token
    phone.log_in()
    assert phone.client.get("/session", headers={"Authorization": first}).status_code == 401
    assert len(phone.get("/sessions").get_json()["sessions"]) == 1


@pytest.mark.parametrize("header", ["wxa_nonsense", "Bearer ", "Basic YTpi", "a, b"])
def test_login_ignores_a_dead_token(phone: Phone, header: str) -> None:
    """Many clients send the old token with a new login."""
    code = phone.wechat.wx_login()
    response = phone.client.post("/login", json={"code": code}, headers={"Authorization": header})
    assert response.status_code == 200


def test_failed_login_keeps_the_session_of_the_token_sent_along(phone: Phone) -> None:
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
def test_errcode_of_wechat_returns_its_problem(phone: Phone, outcome: str, expected: tuple[int, str, str]) -> None:
    assert problem(phone.try_to_log_in(outcome)) == expected


def test_used_code_returns_400(phone: Phone) -> None:
    code = phone.wechat.wx_login()
    answers = [phone.client.post("/login", json={"code": code}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]


def test_login_accepts_a_configured_appid_only(phone: Phone) -> None:
    assert phone.try_to_log_in(appid=APPID).status_code == 200
    assert problem(phone.try_to_log_in(appid="wxother")) == (400, "bad_request", "none")


def test_login_without_appid_returns_bad_request_if_there_are_several_apps(app: Flask, phone: Phone) -> None:
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
def test_malformed_code_returns_bad_request_without_asking_wechat(phone: Phone, code: object) -> None:
    """The fake WeChat would answer code_invalid."""
    assert problem(phone.client.post("/login", json={"code": code})) == (400, "bad_request", "none")


FAMILY = "👨\u200d👩\u200d👧"
LABELS: dict[str, tuple[object, str | None]] = {
    "emoji sequence": (FAMILY, FAMILY),
    "no-break space": ("Ann's\u00a0iPhone", "Ann's\u00a0iPhone"),
    "right-to-left mark": ("\u200fهاتف", "\u200fهاتف"),
    "tab": ("old\tphone", "oldphone"),
    "two lines": ("two\r\nlines\u2028here", "twolineshere"),
    "NUL, DEL and C1": ("\0a\x7fb\x85c", "abc"),
    "override of the direction": ("\u202egnp.exe\u2066", "gnp.exe"),
    "lone surrogate": ("a\ud83d", "a"),
    "64": ("x" * 64, "x" * 64),
    "65": ("x" * 65, "x" * 64),
    "65 outside the BMP": ("😀" * 65, "😀" * 64),
    "cut after the controls are dropped": ("\t" * 9 + "x" * 64, "x" * 64),
    "2000": ("长" * 2000, "长" * 64),
    "nothing but controls": ("\0\n", None),
    "empty": ("", None),
    "null": (None, None),
    "number": (5, None),
    "list": (["phone"], None),
    "object": ({"a": "\ud800"}, None),
}


@pytest.mark.parametrize(("device", "label"), LABELS.values(), ids=LABELS.keys())
def test_device_is_cut_and_never_refuses_a_login(phone: Phone, device: object, label: str | None) -> None:
    """Both places that show the label have it."""
    phone.log_in(device=device)
    (row,) = phone.get("/sessions").get_json()["sessions"]
    assert phone.get("/session").get_json().get("device") == row.get("device") == label


def test_log_in_of_the_extension_takes_any_label(app: Flask, phone: Phone) -> None:
    """An application may hand on what the phone sent."""
    with app.test_request_context():
        _, session = auth.log_in(phone.wechat.wx_login(), APPID, "a\ud800\n" + "x" * 64)
    assert session.device == "a" + "x" * 63


@pytest.mark.parametrize(
    "appid", ["", "wx", "a\nb", "\ud800", "x" * 10000, 5, ["a"], {"a": 1}, False], ids=lambda appid: ascii(appid)[:12]
)
def test_malformed_appid_returns_bad_request_and_keeps_the_code(phone: Phone, appid: object) -> None:
    code = phone.wechat.wx_login()
    first = phone.client.post("/login", json={"code": code, "appid": appid})
    assert problem(first) == (400, "bad_request", "none")
    assert phone.client.post("/login", json={"code": code}).status_code == 200


def test_login_and_logout_send_their_signals(app: Flask, phone: Phone) -> None:
    heard: list[str] = []

    def on_login(sender: Flask, session: Any) -> None:
        heard.append(f"in {session.openid}")

    def on_logout(sender: Flask, user: Any) -> None:
        heard.append(f"out {user.openid}")

    with logged_in.connected_to(on_login, app), logged_out.connected_to(on_logout, app):
        openid = phone.log_in().get("/session").get_json()["openid"]
        phone.delete("/session")
    assert heard == [f"in {openid}", f"out {openid}"]
