"""The sandbox's WeChat beyond the login: access tokens, phone codes and session_keys keep WeChat's rules."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
import requests

from tests.conftest import APP_SECRET, APPID
from tests.sandbox.test_fake_wechat import APPS, OTHER_APPID, Hand
from wxauth.sandbox.fake_api import DAY, FORCED_A_DAY, FORCED_APART, MOST_CODES, RENEWED_BEFORE, TOKEN_LIFE
from wxauth.sandbox.fake_wechat import FakeWeChat

URL = "https://api.weixin.qq.com"
PHONE, CHECK, RESET = "/wxa/business/getuserphonenumber", "/wxa/checksession", "/wxa/resetusersessionkey"
GOOD: dict[str, object] = {"grant_type": "client_credential", "appid": APPID, "secret": APP_SECRET}


class Developer:
    """Somebody who asks this WeChat as its documentation says, with nothing of ours in between."""

    def __init__(self) -> None:
        self.hand = Hand()
        self.fake = FakeWeChat(APPS, self.hand)

    def ask(self, method: str, path: str, body: object = None, **query: str) -> dict[str, Any]:
        data = json.dumps(body) if body is not None else None
        request = requests.Request(method, URL + path, params=query, data=data).prepare()
        answer: dict[str, Any] = self.fake.send(request, timeout=(1, 1)).json()
        return answer

    def granted(self, **more: object) -> dict[str, Any]:
        return self.ask("POST", "/cgi-bin/stable_token", GOOD | more)

    def token(self, **more: object) -> str:
        text: str = self.granted(**more)["access_token"]
        return text

    def log_in(self, user: str = "alice") -> tuple[str, str]:
        """The user's openid and session_key."""
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


def test_the_same_token_is_given_while_it_lives(dev: Developer) -> None:
    """With what is left of its two hours."""
    first = dev.granted()
    dev.hand.time += 1000
    assert (first["expires_in"], dev.granted()) == (TOKEN_LIFE, first | {"expires_in": TOKEN_LIFE - 1000})


def test_the_last_five_minutes_bring_another_and_both_work(dev: Developer) -> None:
    """Until the former one's end."""
    first = dev.token()
    dev.hand.time += TOKEN_LIFE - RENEWED_BEFORE
    second = dev.token()
    assert second != first
    code = dev.fake.tap_phone_button
    assert [dev.number(code(), token)["errcode"] for token in (first, second)] == [0, 0]
    dev.hand.time += RENEWED_BEFORE
    assert [dev.number(code(), token)["errcode"] for token in (first, second)] == [42001, 0]


def test_a_forced_token_ends_the_one_before(dev: Developer) -> None:
    """40001 from then on."""
    first, second = dev.token(), dev.token(force_refresh=True)
    code = dev.fake.tap_phone_button()
    assert (dev.number(code, first)["errcode"], dev.number(code, second)["errcode"]) == (40001, 0)


def test_forced_too_soon_gives_the_one_that_there_is(dev: Developer) -> None:
    """Nothing is refreshed within half a minute."""
    first = dev.token(force_refresh=True)
    dev.hand.time += FORCED_APART - 1
    assert dev.token(force_refresh=True) == first
    dev.hand.time += 1
    assert dev.token(force_refresh=True) != first


def test_forced_too_often_is_refused(dev: Developer) -> None:
    """Until the day is over; without force the token is given all the same."""
    for _ in range(FORCED_A_DAY):
        dev.token(force_refresh=True)
        dev.hand.time += FORCED_APART
    assert dev.granted(force_refresh=True)["errcode"] == 45009
    assert "access_token" in dev.granted()
    dev.hand.time += DAY
    assert "access_token" in dev.granted(force_refresh=True)


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
def test_no_token_for_a_wrong_request(dev: Developer, body: dict[str, object], errcode: int) -> None:
    """Each mistake has its errcode."""
    assert dev.granted(**body)["errcode"] == errcode


@pytest.mark.parametrize(
    ("method", "path", "errcode"),
    [("GET", "/cgi-bin/stable_token", 43002), ("GET", PHONE, 43002), ("POST", CHECK, 43001), ("POST", RESET, 43001)],
)
def test_each_interface_has_one_method(dev: Developer, method: str, path: str, errcode: int) -> None:
    """The other one is refused."""
    assert dev.ask(method, path, {} if method == "POST" else None)["errcode"] == errcode


@pytest.mark.parametrize(("token", "errcode"), [("", 41001), ("nobodys", 40001)])
def test_without_a_token_nothing_is_answered(dev: Developer, token: str, errcode: int) -> None:
    """Missing or unknown."""
    assert dev.ask("GET", CHECK, access_token=token)["errcode"] == errcode


def test_a_disowned_token_is_refused_and_given(dev: Developer) -> None:
    """What calls for force."""
    first = dev.token()
    dev.fake.api.disown_access_token(APPID)
    assert (dev.number(dev.fake.tap_phone_button(), first)["errcode"], dev.token()) == (40001, first)


def test_a_phone_code_gives_a_test_number(dev: Developer) -> None:
    """One of those of WeChat's own test accounts, the user's own each time, sealed for the app."""
    found = [dev.number(dev.fake.tap_phone_button("alice"))["phone_info"] for _ in range(2)]
    assert found[0]["phoneNumber"] == found[1]["phoneNumber"] in {f"1206660000{last}" for last in range(1, 5)}
    assert found[0]["watermark"]["appid"] == APPID


def test_a_phone_code_is_single_use_and_lives_five_minutes(dev: Developer) -> None:
    """Then it is unknown."""
    used, old = dev.fake.tap_phone_button(), dev.fake.tap_phone_button()
    assert [dev.number(used)["errcode"] for _ in range(2)] == [0, 40029]
    dev.hand.time += 300
    assert dev.number(old)["errcode"] == 40029


def test_a_phone_code_belongs_to_who_tapped(dev: Developer) -> None:
    """An openid sent along has to be that user's; and the code is still good for that one."""
    alice, bob = (dev.log_in(user)[0] for user in ("alice", "bob"))
    code = dev.fake.tap_phone_button("alice")
    assert [dev.number(code, openid=openid)["errcode"] for openid in (bob, alice)] == [40029, 0]


def test_a_phone_code_belongs_to_an_app(dev: Developer) -> None:
    """Another app's token does not open it."""
    assert dev.number(dev.fake.tap_phone_button("alice", OTHER_APPID))["errcode"] == 40013


def test_a_code_of_a_login_is_no_phone_code(dev: Developer) -> None:
    """The most common mistake."""
    assert dev.number(dev.fake.wx_login("alice"))["errcode"] == 40029


@pytest.mark.parametrize(("outcome", "errcode"), [("40029", 40029), ("45011", 45011), ("-1", -1)])
def test_a_phone_code_ends_as_it_was_told_to(dev: Developer, outcome: str, errcode: int) -> None:
    """Scripted, as a login is."""
    assert dev.number(dev.fake.tap_phone_button("alice", outcome=outcome))["errcode"] == errcode


def test_the_oldest_phone_code_gives_way(dev: Developer) -> None:
    """So that nobody fills the memory."""
    oldest, second, *_ = [dev.fake.tap_phone_button() for _ in range(MOST_CODES + 1)]
    assert [dev.number(code)["errcode"] for code in (oldest, second)] == [40029, 0]


def test_a_session_key_is_checked_by_its_signature(dev: Developer) -> None:
    """Another key's is refused, and so is one for whom there is no key."""
    openid, session_key = dev.log_in()
    assert dev.signed(CHECK, openid, session_key)["errcode"] == 0
    assert dev.signed(CHECK, openid, dev.log_in("bob")[1])["errcode"] == 87009
    assert dev.signed(CHECK, "oNOBODY", session_key)["errcode"] == 87007


@pytest.mark.parametrize(
    ("more", "errcode"), [({"sig_method": "md5"}, 87008), ({"openid": ""}, 40097), ({"signature": ""}, 40097)]
)
def test_a_signed_request_is_whole(dev: Developer, more: dict[str, str], errcode: int) -> None:
    """Each argument is needed."""
    openid, session_key = dev.log_in()
    query = {"openid": openid} | more
    assert dev.signed(CHECK, session_key=session_key, **query)["errcode"] == errcode


def test_a_reset_replaces_the_key_at_once_and_not_its_end(dev: Developer) -> None:
    """The old one is dead, the new one inherits what was left to live."""
    openid, old = dev.log_in()
    dev.hand.time += 200
    new = dev.signed(RESET, openid, old)["session_key"]
    assert [dev.signed(CHECK, openid, key)["errcode"] for key in (old, new)] == [87009, 0]
    assert dev.log_in()[1] == new
    dev.hand.time += 100
    assert dev.log_in()[1] != new
