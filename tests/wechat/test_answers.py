"""Parsing of WeChat's answers to calls with an access token."""

from __future__ import annotations

import pytest

from tests.conftest import APPID, SESSION_KEY
from wxauth.errors import WeChatUnreachable
from wxauth.models import PhoneNumber, Secret
from wxauth.wechat.answers import AccessToken, Answer, parse_access_token, parse_phone_number, parse_session_key

WATERMARK = {"timestamp": 1637744274, "appid": APPID}
INFO = {"phoneNumber": "12066600001", "purePhoneNumber": "12066600001", "countryCode": "86", "watermark": WATERMARK}
NUMBER = PhoneNumber("12066600001", "12066600001", "86")


def test_parse_access_token_returns_the_seconds_left() -> None:
    """The seconds left are rarely the full two hours."""
    assert parse_access_token({"access_token": "t" * 512, "expires_in": 345}) == AccessToken(Secret("t" * 512), 345)


@pytest.mark.parametrize("token", [None, "", "t" * 1025, "t\n", "t t", 7, ["t"]])
def test_parse_access_token_raises_for_a_malformed_token(token: object) -> None:
    """The token is sent on in a query."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "bad_access_token"):
        parse_access_token({"access_token": token, "expires_in": 7200})


@pytest.mark.parametrize("seconds", [None, 0, -1, 86401, "7200", 7200.0, True])
def test_parse_access_token_raises_for_a_bad_lifetime(seconds: object) -> None:
    """Redis refuses some of these as a TTL."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "bad_expires_in"):
        parse_access_token({"access_token": "t", "expires_in": seconds})


@pytest.mark.parametrize("country", ["86", 86], ids=["text", "number"])
def test_parse_phone_number_returns_the_number(country: object) -> None:
    """In some of WeChat's examples the country code is a number."""
    assert parse_phone_number(APPID, {"phone_info": INFO | {"countryCode": country}}) == NUMBER


def test_parse_phone_number_accepts_a_foreign_number() -> None:
    """It begins with the country code."""
    info = INFO | {"phoneNumber": "+44 20 79460000", "purePhoneNumber": "2079460000", "countryCode": "44"}
    assert parse_phone_number(APPID, {"phone_info": info}).number == "+44 20 79460000"


def test_parse_phone_number_raises_for_another_app() -> None:
    """The watermark names the mini program."""
    foreign = INFO | {"watermark": WATERMARK | {"appid": "wxother"}}
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "bad_watermark"):
        parse_phone_number(APPID, {"phone_info": foreign})


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"phone_info": None},
        {"phone_info": []},
        {"phone_info": INFO | {"watermark": None}},
        *(
            {"phone_info": INFO | {name: value}}
            for name in list(INFO)[:3]
            for value in (None, "", True, "1\n", "1" * 33, ["1"])
        ),
    ],
    ids=lambda answer: str(answer)[-60:],
)
def test_parse_phone_number_raises_for_a_bad_field(answer: Answer) -> None:
    """A missing or malformed field refuses the whole answer."""
    with pytest.raises(WeChatUnreachable):
        parse_phone_number(APPID, answer)


def test_repr_of_a_phone_number_hides_it() -> None:
    assert "120666" not in f"{NUMBER!r}{NUMBER}"


def test_parse_session_key_returns_the_key() -> None:
    assert parse_session_key({"openid": "o", "session_key": SESSION_KEY}) == Secret(SESSION_KEY)
