"""The fake WeChat after the login: access tokens, phone codes and session_keys follow WeChat's rules."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
import requests

from tests.conftest import APP_SECRET, APPID
from tests.sandbox.test_fake_wechat import APPS, OTHER_APPID, Clock
from wxauth.sandbox.fake_api import DAY, FORCED_INTERVAL, MAX_CODES, MAX_FORCED_PER_DAY, RENEWAL_WINDOW, TOKEN_TTL
from wxauth.sandbox.fake_wechat import FakeWeChat

URL = "https://api.weixin.qq.com"
PHONE, CHECK, RESET = "/wxa/business/getuserphonenumber", "/wxa/checksession", "/wxa/resetusersessionkey"
GOOD: dict[str, object] = {"grant_type": "client_credential", "appid": APPID, "secret": APP_SECRET}


class Developer:
    """Sends requests as WeChat documents them, without code of wxauth.wechat."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.fake = FakeWeChat(APPS, self.clock)

    def ask(self, method: str, path: str, body: object = None, **query: str) -> dict[str, Any]:
        data = json.dumps(body) if body is not None else None
        request = requests.Request(method, URL + path, params=query, data=data).prepare()
        answer: dict[str, Any] = self.fake.send(request, timeout=(1, 1)).json()
        return answer

    def issue(self, **more: object) -> dict[str, Any]:
        return self.ask("POST", "/cgi-bin/stable_token", GOOD | more)

    def token(self, **more: object) -> str:
        text: str = self.issue(**more)["access_token"]
        return text

    def log_in(self, user: str = "alice") -> tuple[str, str]:
        """Return openid and session_key."""
        query = {"appid": APPID, "secret": APP_SECRET, "grant_type": "authorization_code"}
        answer = self.ask("GET", "/sns/jscode2session", js_code=self.fake.wx_login(user), **query)
        return answer["openid"], answer["session_key"]

    def number(self, code: str, token: str | None = None, **more: str) -> dict[str, Any]:
        return self.ask("POST", PHONE, {"code": code, **more}, access_token=token or self.token())

    def signed(self, path: str, openid: str, session_key: str, **more: str) -> dict[str, Any]:
        signature = hmac.new(session_key.encode(), b"", hashlib.sha256).hexdigest()
        query = {"openid": openid, "signature": signature, "sig_method": "hmac_sha256", **more}
        return self.ask("GET", path, access_token=self.token(), **query)


@pytest.fixture
def dev() -> Developer:
    return Developer()


def test_stable_token_returns_the_same_token_while_it_is_valid(dev: Developer) -> None:
    """`expires_in` is the remaining time."""
    first = dev.issue()
    dev.clock.time += 1000
    assert (first["expires_in"], dev.issue()) == (TOKEN_TTL, first | {"expires_in": TOKEN_TTL - 1000})


def test_stable_token_in_the_last_five_minutes_returns_a_new_token_and_both_work(dev: Developer) -> None:
    """Until the old one expires."""
    first = dev.token()
    dev.clock.time += TOKEN_TTL - RENEWAL_WINDOW
    second = dev.token()
    assert second != first
    code = dev.fake.tap_phone_button
    assert [dev.number(code(), token)["errcode"] for token in (first, second)] == [0, 0]
    dev.clock.time += RENEWAL_WINDOW
    assert [dev.number(code(), token)["errcode"] for token in (first, second)] == [42001, 0]


def test_a_forced_refresh_revokes_the_old_token(dev: Developer) -> None:
    """It is rejected with 40001."""
    first, second = dev.token(), dev.token(force_refresh=True)
    code = dev.fake.tap_phone_button()
    assert (dev.number(code, first)["errcode"], dev.number(code, second)["errcode"]) == (40001, 0)


def test_a_second_forced_refresh_within_30_seconds_returns_the_same_token(dev: Developer) -> None:
    first = dev.token(force_refresh=True)
    dev.clock.time += FORCED_INTERVAL - 1
    assert dev.token(force_refresh=True) == first
    dev.clock.time += 1
    assert dev.token(force_refresh=True) != first


def test_a_forced_refresh_above_the_daily_limit_is_rejected(dev: Developer) -> None:
    """A request without force is still answered."""
    for _ in range(MAX_FORCED_PER_DAY):
        dev.token(force_refresh=True)
        dev.clock.time += FORCED_INTERVAL
    assert dev.issue(force_refresh=True)["errcode"] == 45009
    assert "access_token" in dev.issue()
    dev.clock.time += DAY
    assert "access_token" in dev.issue(force_refresh=True)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"grant_type": "authorization_code"}, 40002),
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
        ({"appid": "wxunknown0000000"}, 40013),
        ({"secret": "wrong"}, 40125),
    ],
)
def test_stable_token_rejects_an_invalid_request(dev: Developer, body: dict[str, object], errcode: int) -> None:
    assert dev.issue(**body)["errcode"] == errcode


@pytest.mark.parametrize(
    ("method", "path", "errcode"),
    [("GET", "/cgi-bin/stable_token", 43002), ("GET", PHONE, 43002), ("POST", CHECK, 43001), ("POST", RESET, 43001)],
)
def test_each_interface_rejects_the_other_method(dev: Developer, method: str, path: str, errcode: int) -> None:
    assert dev.ask(method, path, {} if method == "POST" else None)["errcode"] == errcode


@pytest.mark.parametrize(("token", "errcode"), [("", 41001), ("unknown", 40001)])
def test_a_missing_or_unknown_access_token_is_rejected(dev: Developer, token: str, errcode: int) -> None:
    assert dev.ask("GET", CHECK, access_token=token)["errcode"] == errcode


def test_a_rejected_access_token_is_still_returned(dev: Developer) -> None:
    """Only a forced refresh helps."""
    first = dev.token()
    dev.fake.api.reject_access_token(APPID)
    assert (dev.number(dev.fake.tap_phone_button(), first)["errcode"], dev.token()) == (40001, first)


def test_a_phone_code_returns_the_same_test_number_for_a_user(dev: Developer) -> None:
    """The watermark names the app."""
    found = [dev.number(dev.fake.tap_phone_button("alice"))["phone_info"] for _ in range(2)]
    assert found[0]["phoneNumber"] == found[1]["phoneNumber"] in {f"1206660000{last}" for last in range(1, 5)}
    assert found[0]["watermark"]["appid"] == APPID


def test_a_phone_code_is_single_use_and_valid_for_five_minutes(dev: Developer) -> None:
    used, old = dev.fake.tap_phone_button(), dev.fake.tap_phone_button()
    assert [dev.number(used)["errcode"] for _ in range(2)] == [0, 40029]
    dev.clock.time += 300
    assert dev.number(old)["errcode"] == 40029


def test_a_phone_code_with_the_openid_of_another_user_is_rejected(dev: Developer) -> None:
    """The code stays valid for its own user."""
    alice, bob = (dev.log_in(user)[0] for user in ("alice", "bob"))
    code = dev.fake.tap_phone_button("alice")
    assert [dev.number(code, openid=openid)["errcode"] for openid in (bob, alice)] == [40029, 0]


def test_a_phone_code_of_another_app_is_rejected(dev: Developer) -> None:
    assert dev.number(dev.fake.tap_phone_button("alice", OTHER_APPID))["errcode"] == 40013


def test_a_login_code_is_rejected_as_a_phone_code(dev: Developer) -> None:
    assert dev.number(dev.fake.wx_login("alice"))["errcode"] == 40029


@pytest.mark.parametrize(("outcome", "errcode"), [("40029", 40029), ("45011", 45011), ("-1", -1)])
def test_a_phone_code_with_an_outcome_returns_its_errcode(dev: Developer, outcome: str, errcode: int) -> None:
    assert dev.number(dev.fake.tap_phone_button("alice", outcome=outcome))["errcode"] == errcode


def test_a_phone_code_above_the_maximum_drops_the_oldest(dev: Developer) -> None:
    oldest, second, *_ = [dev.fake.tap_phone_button() for _ in range(MAX_CODES + 1)]
    assert [dev.number(code)["errcode"] for code in (oldest, second)] == [40029, 0]


def test_check_session_compares_the_signature(dev: Developer) -> None:
    """Another key is rejected with 87009, an unknown user with 87007."""
    openid, session_key = dev.log_in()
    assert dev.signed(CHECK, openid, session_key)["errcode"] == 0
    assert dev.signed(CHECK, openid, dev.log_in("bob")[1])["errcode"] == 87009
    assert dev.signed(CHECK, "oUNKNOWN", session_key)["errcode"] == 87007


@pytest.mark.parametrize(
    ("more", "errcode"), [({"sig_method": "md5"}, 87008), ({"openid": ""}, 40097), ({"signature": ""}, 40097)]
)
def test_check_session_rejects_an_incomplete_request(dev: Developer, more: dict[str, str], errcode: int) -> None:
    openid, session_key = dev.log_in()
    query = {"openid": openid} | more
    assert dev.signed(CHECK, session_key=session_key, **query)["errcode"] == errcode


def test_reset_session_key_replaces_the_key_and_keeps_its_expiry(dev: Developer) -> None:
    openid, old = dev.log_in()
    dev.clock.time += 200
    new = dev.signed(RESET, openid, old)["session_key"]
    assert [dev.signed(CHECK, openid, key)["errcode"] for key in (old, new)] == [87009, 0]
    assert dev.log_in()[1] == new
    dev.clock.time += 100
    assert dev.log_in()[1] != new
