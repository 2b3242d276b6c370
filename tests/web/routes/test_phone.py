"""`/phone`: the number goes to the user who tapped the button, and nowhere else. On both kinds of Redis."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone, worker
from wxauth.metrics import exposition
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings


def ask(phone: Phone, body: object) -> TestResponse:
    return phone.client.post("/phone", json=body, headers=phone.headers)


def tap(phone: Phone, user: str | None = None, outcome: str | None = None) -> TestResponse:
    """Send a code of this user's phone button, or of the button of `user`."""
    return ask(phone, {"code": phone.wechat.tap_phone_button(user or phone.user, APPID, outcome)})


def problem(response: TestResponse) -> tuple[int, str, str]:
    body: Any = response.get_json()
    return response.status_code, body["code"], body["action"]


def test_phone_returns_exactly_the_fields_of_the_contract(phone: Phone) -> None:
    """Caches must not store the answer."""
    response = tap(phone.log_in())
    body = response.get_json()
    assert response.status_code == 200, response.text
    assert set(body) == {"phoneNumber", "purePhoneNumber", "countryCode"}
    assert (body["phoneNumber"][:10], body["countryCode"]) == ("1206660000", "86")
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


def test_code_of_another_user_returns_code_invalid(client: FlaskClient, wechat: FakeWeChat) -> None:
    """Its owner can still use it."""
    alice, bob = (Phone(client, wechat, user).log_in() for user in ("alice", "bob"))
    code = wechat.tap_phone_button("alice", APPID)
    assert problem(ask(bob, {"code": code})) == (400, "code_invalid", "login")
    assert ask(alice, {"code": code}).status_code == 200


def test_code_of_another_mini_program_returns_code_invalid(phone: Phone) -> None:
    """WeChat answers 40013, but the configured AppID is right: the operator must not be alarmed."""
    phone.log_in()
    code = phone.wechat.tap_phone_button(phone.user, "wxfedcba9876543210")
    assert problem(ask(phone, {"code": code})) == (400, "code_invalid", "login")
    assert phone.get("/readyz").get_json()["wechat"] == "ok"


def test_phone_without_a_session_returns_401_and_keeps_the_code(phone: Phone) -> None:
    code = phone.wechat.tap_phone_button(phone.user, APPID)
    assert problem(ask(phone, {"code": code})) == (401, "token_missing", "login")
    phone.token = "wxa_forged"
    assert problem(ask(phone, {"code": code})) == (401, "token_invalid", "login")
    phone.token = ""
    assert ask(phone.log_in(), {"code": code}).status_code == 200


def test_used_code_returns_code_invalid(phone: Phone) -> None:
    """The detail tells the user to tap again."""
    code = phone.log_in().wechat.tap_phone_button(phone.user, APPID)
    first, second = ask(phone, {"code": code}), ask(phone, {"code": code})
    assert (first.status_code, problem(second)) == (200, (400, "code_invalid", "login"))
    assert "tap the button again" in second.get_json()["detail"]


def test_code_of_wx_login_returns_code_invalid(phone: Phone) -> None:
    """Developers confuse the two codes often."""
    assert problem(ask(phone.log_in(), {"code": phone.wechat.wx_login(phone.user)}))[1] == "code_invalid"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("40029", (400, "code_invalid", "login")),
        ("45011", (429, "rate_limited", "retry")),
        ("-1", (503, "wechat_busy", "retry")),
        ("garbage", (503, "wechat_unreachable", "retry")),
    ],
)
def test_errcode_of_wechat_returns_its_problem(phone: Phone, outcome: str, expected: tuple[int, str, str]) -> None:
    assert problem(tap(phone.log_in(), outcome=outcome)) == expected


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
    "129": "a" * 129,
}


@pytest.mark.parametrize("code", BAD_CODES.values(), ids=BAD_CODES.keys())
def test_malformed_code_returns_bad_request_without_asking_wechat(phone: Phone, code: object) -> None:
    assert problem(ask(phone.log_in(), {"code": code})) == (400, "bad_request", "none")


def test_form_returns_unsupported_media_type(phone: Phone) -> None:
    response = phone.log_in().client.post("/phone", data={"code": "a"}, headers=phone.headers)
    assert problem(response) == (415, "unsupported_media_type", "none")


def test_refused_access_token_is_replaced(phone: Phone, wechat: FakeWeChat) -> None:
    """Another server may have reset it."""
    assert tap(phone.log_in()).status_code == 200
    wechat.api.reject_access_token(APPID)
    assert tap(phone).status_code == 200


def test_access_token_refused_twice_returns_wechat_error(phone: Phone, wechat: FakeWeChat) -> None:
    """WeChat allows one forced refresh in a while."""
    phone.log_in()
    for _ in range(2):
        tap(phone)
        wechat.api.reject_access_token(APPID)
    assert problem(tap(phone)) == (502, "wechat_error", "none")


def test_login_fetches_no_access_token(phone: Phone, app: Flask, raw_redis: redis.Redis) -> None:
    phone.log_in()
    assert [key for key in cast(list[bytes], raw_redis.keys()) if APPID.encode() in key] == []


def test_number_code_and_access_token_are_in_no_log_redis_key_or_metric(
    phone: Phone, raw_redis: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        phone.log_in()
        code = phone.wechat.tap_phone_button(phone.user, APPID)
        number = ask(phone, {"code": code}).get_json()["phoneNumber"]
        ask(phone, {"code": code})
    token = phone.wechat.api.newest_access_token(APPID)
    told = "\n".join(f"{vars(record)} {record.exc_text}" for record in caplog.records) + exposition().decode()
    for key in cast(list[bytes], raw_redis.keys()):
        value = raw_redis.hgetall(key) if raw_redis.type(key) == b"hash" else raw_redis.get(key)
        told += f"{key!r} {value!r}"
    assert len(token) > 90
    assert [secret for secret in (number, code, token) if secret in told] == []


def test_user_beyond_the_phone_rate_returns_rate_limited(
    settings: Settings, wechat: FakeWeChat, store: SessionStore, raw_redis: redis.Redis
) -> None:
    """The limit holds in all sessions of the user, and for this user only: WeChat bills each number."""
    client = worker(settings, store, wechat, phone_rate="2/hour")
    alice, bob = Phone(client, wechat, "alice").log_in(), Phone(client, wechat, "bob").log_in()
    assert [tap(alice).status_code for _ in range(2)] == [200, 200]
    again = tap(Phone(client, wechat, "alice").log_in())
    assert (problem(again), tap(bob).status_code) == ((429, "rate_limited", "retry"), 200)
    assert again.headers["RateLimit-Policy"] == '"user";q=2;w=3600'
    openid = alice.get("/session").get_json()["openid"]
    assert [key for key in cast(list[bytes], raw_redis.keys("wxa:l:*")) if openid.encode() in key] == []


def test_address_beyond_the_login_rate_returns_rate_limited(
    settings: Settings, wechat: FakeWeChat, store: SessionStore
) -> None:
    """Phone numbers and logins are counted apart."""
    client = worker(settings, store, wechat, login_rate="2/minute")
    phone = Phone(client, wechat).log_in()
    answers = [tap(phone) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["RateLimit-Policy"] == '"address";q=2;w=60'
