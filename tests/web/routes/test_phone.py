"""`/phone`: the number goes to the user who tapped, and nowhere else; on both kinds of Redis."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, cast

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone
from wxauth.metrics import exposition
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.app import create_app
from wxauth.web.extension import wechat_client
from wxauth.wechat.transport import Transport


def ask(phone: Phone, body: object) -> TestResponse:
    return phone.client.post("/phone", json=body, headers=phone.headers)


def tap(phone: Phone, user: str | None = None, outcome: str | None = None) -> TestResponse:
    """The phone sends a code that its own button gave, or that of `user`."""
    return ask(phone, {"code": phone.wechat.tap_phone_button(user or phone.user, APPID, outcome)})


def problem(response: TestResponse) -> tuple[int, str, str]:
    body: Any = response.get_json()
    return response.status_code, body["code"], body["action"]


def test_the_button_gives_a_number(phone: Phone) -> None:
    """Exactly the three fields of the contract, and no cache may keep them."""
    response = tap(phone.log_in())
    body = response.get_json()
    assert response.status_code == 200, response.text
    assert set(body) == {"phoneNumber", "purePhoneNumber", "countryCode"}
    assert (body["phoneNumber"][:10], body["countryCode"]) == ("1206660000", "86")
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


def test_another_users_code_is_refused(client: FlaskClient, wechat: FakeWeChat) -> None:
    """Whoever has taken it from somebody else learns nothing by it; and its owner still can use it."""
    alice, bob = (Phone(client, wechat, user).log_in() for user in ("alice", "bob"))
    code = wechat.tap_phone_button("alice", APPID)
    assert problem(ask(bob, {"code": code})) == (400, "code_invalid", "login")
    assert ask(alice, {"code": code}).status_code == 200


def test_a_code_of_another_mini_program_is_the_callers_fault(phone: Phone) -> None:
    """WeChat says 40013 to it; but the AppID that the operator configured is right, and no alarm is due."""
    phone.log_in()
    code = phone.wechat.tap_phone_button(phone.user, "wxfedcba9876543210")
    assert problem(ask(phone, {"code": code})) == (400, "code_invalid", "login")
    assert phone.get("/readyz").get_json()["wechat"] == "ok"


def test_nobody_gets_a_number_without_a_session(phone: Phone) -> None:
    """And no code is spent."""
    code = phone.wechat.tap_phone_button(phone.user, APPID)
    assert problem(ask(phone, {"code": code})) == (401, "token_missing", "login")
    phone.token = "wxa_forged"
    assert problem(ask(phone, {"code": code})) == (401, "token_invalid", "login")
    phone.token = ""
    assert ask(phone.log_in(), {"code": code}).status_code == 200


def test_a_code_can_be_used_once(phone: Phone) -> None:
    """The user is told to tap again, and that this is not the code of a login."""
    code = phone.log_in().wechat.tap_phone_button(phone.user, APPID)
    first, second = ask(phone, {"code": code}), ask(phone, {"code": code})
    assert (first.status_code, problem(second)) == (200, (400, "code_invalid", "login"))
    assert "tap the button again" in second.get_json()["detail"]


def test_the_code_of_a_login_is_refused(phone: Phone) -> None:
    """The two are mixed up more than anything else."""
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
def test_what_wechat_refuses_is_a_problem(phone: Phone, outcome: str, expected: tuple[int, str, str]) -> None:
    """As the contract's table says."""
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
def test_a_code_that_can_be_none_is_refused_before_anybody_is_asked(phone: Phone, code: object) -> None:
    """400 from us alone."""
    assert problem(ask(phone.log_in(), {"code": code})) == (400, "bad_request", "none")


def test_only_json_is_read(phone: Phone) -> None:
    """A form is none."""
    response = phone.log_in().client.post("/phone", data={"code": "a"}, headers=phone.headers)
    assert problem(response) == (415, "unsupported_media_type", "none")


def test_a_token_that_was_reset_elsewhere_is_replaced(phone: Phone, wechat: FakeWeChat) -> None:
    """The user notices nothing."""
    assert tap(phone.log_in()).status_code == 200
    wechat.api.reject_access_token(APPID)
    assert tap(phone).status_code == 200


def test_one_that_can_not_be_replaced_is_wechats_refusal(phone: Phone, wechat: FakeWeChat) -> None:
    """502: it was forced a moment ago, and may not be again."""
    phone.log_in()
    for _ in range(2):
        tap(phone)
        wechat.api.reject_access_token(APPID)
    assert problem(tap(phone)) == (502, "wechat_error", "none")


def test_logins_need_no_access_token(phone: Phone, app: Flask, raw_redis: redis.Redis) -> None:
    """None is fetched before a number is asked for."""
    phone.log_in()
    assert [key for key in cast(list[bytes], raw_redis.keys()) if APPID.encode() in key] == []


def test_the_number_goes_nowhere_else(phone: Phone, raw_redis: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Neither into a log, nor into Redis, nor into a metric; nor do the code and the access token."""
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


def test_a_user_has_a_limit_of_his_own(
    settings: Settings, wechat: FakeWeChat, store: SessionStore, raw_redis: redis.Redis
) -> None:
    """Each number is billed, so past the limit a user waits, in whichever session; another does not."""
    limited = dataclasses.replace(settings, phone_rate="2/hour")
    transport = Transport(settings.wechat_url, wechat)
    client = create_app(limited, wechat=wechat_client(limited, transport), store=store).test_client()
    alice, bob = Phone(client, wechat, "alice").log_in(), Phone(client, wechat, "bob").log_in()
    assert [tap(alice).status_code for _ in range(2)] == [200, 200]
    again = tap(Phone(client, wechat, "alice").log_in())
    assert (problem(again), tap(bob).status_code) == ((429, "rate_limited", "retry"), 200)
    assert again.headers["RateLimit-Policy"] == '"user";q=2;w=3600'
    openid = alice.get("/session").get_json()["openid"]
    assert [key for key in cast(list[bytes], raw_redis.keys("wxa:l:*")) if openid.encode() in key] == []


def test_an_address_is_limited_as_with_logins(settings: Settings, wechat: FakeWeChat, store: SessionStore) -> None:
    """Counted apart from those."""
    limited = dataclasses.replace(settings, login_rate="2/minute")
    transport = Transport(settings.wechat_url, wechat)
    client = create_app(limited, wechat=wechat_client(limited, transport), store=store).test_client()
    phone = Phone(client, wechat).log_in()
    answers = [tap(phone) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["RateLimit-Policy"] == '"address";q=2;w=60'
