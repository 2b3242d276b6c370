"""What WeChat's answers to calls with an access token hold, and what can't be its answer."""

from __future__ import annotations

import pytest

from tests.conftest import APPID, SESSION_KEY
from wxauth.errors import WeChatUnreachable
from wxauth.models import PhoneNumber, Secret
from wxauth.wechat.answers import AccessToken, Answer, parse_access_token, parse_phone_number, parse_session_key

NOT_DIGITS: list[object] = [None, "", True, "1\n", "1" * 33, ["1"]]
WATERMARK = {"timestamp": 1637744274, "appid": APPID}
INFO = {"phoneNumber": "12066600001", "purePhoneNumber": "12066600001", "countryCode": "86", "watermark": WATERMARK}
NUMBER = PhoneNumber("12066600001", "12066600001", "86")


def test_an_access_token_has_what_is_left_of_its_life() -> None:
    """Seconds, which are seldom the full two hours."""
    assert parse_access_token({"access_token": "t" * 512, "expires_in": 345}) == AccessToken(Secret("t" * 512), 345)


@pytest.mark.parametrize("token", [None, "", "t" * 1025, "t\n", "t t", 7, ["t"]])
def test_what_is_no_access_token(token: object) -> None:
    """It would be sent on in a query."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "bad_access_token"):
        parse_access_token({"access_token": token, "expires_in": 7200})


@pytest.mark.parametrize("seconds", [None, 0, -1, 86401, "7200", 7200.0, True])
def test_what_is_no_life(seconds: object) -> None:
    """Redis would refuse some of them, and keep others for ever."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == "bad_expires_in"):
        parse_access_token({"access_token": "t", "expires_in": seconds})


@pytest.mark.parametrize("country", ["86", 86], ids=["text", "number"])
def test_a_phone_number_is_read(country: object) -> None:
    """The country's code is a number in some of WeChat's own examples."""
    assert parse_phone_number(APPID, {"phone_info": INFO | {"countryCode": country}}) == NUMBER


def test_a_number_of_another_country_is_read() -> None:
    """Its code stands in front."""
    info = INFO | {"phoneNumber": "+44 20 79460000", "purePhoneNumber": "2079460000", "countryCode": "44"}
    assert parse_phone_number(APPID, {"phone_info": info}).number == "+44 20 79460000"


def test_a_number_sealed_for_another_app_is_none() -> None:
    """The watermark says for which mini program it is."""
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
def test_what_is_no_phone_number(answer: Answer) -> None:
    """Whatever is missing or of another form: no half of a number is handed on."""
    with pytest.raises(WeChatUnreachable):
        parse_phone_number(APPID, answer)


def test_a_phone_number_is_not_printed() -> None:
    """Not even by somebody who logs the object."""
    assert "120666" not in f"{NUMBER!r}{NUMBER}"


def test_a_session_key_is_read() -> None:
    """That of a reset as that of a login."""
    assert parse_session_key({"openid": "o", "session_key": SESSION_KEY}) == Secret(SESSION_KEY)
