"""The sandbox's WeChat keeps WeChat's rules, as the real client over the real transport finds them."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.conftest import APP_SECRET, APPID
from wxauth.errors import (
    CodeInvalid,
    CodeUsed,
    UserBlocked,
    WeChatBusy,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatUnreachable,
)
from wxauth.models import Identity, Secret
from wxauth.sandbox.fake_wechat import KEY_LIFE, MOCK_CODE, MOST_CODES, OUTCOMES, FakeWeChat
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Transport

Exchange = Callable[[str], Identity]

OTHER_APPID = "wxfedcba9876543210"
APPS = {APPID: Secret(APP_SECRET), OTHER_APPID: Secret("another-app-secret")}


class Hand:
    """A clock's hand, moved by the test."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def fake(hand: Hand) -> FakeWeChat:
    return FakeWeChat(APPS, hand)


@pytest.fixture
def exchange(fake: FakeWeChat) -> Exchange:
    client = client_of(fake)
    return lambda code: client.exchange(APPID, code)


def client_of(fake: FakeWeChat, secret: str = APP_SECRET, timeout: float = 4) -> WeChatClient:
    apps = APPS | {APPID: Secret(secret), "wxunknown0000000": Secret(secret)}
    return WeChatClient(apps, Transport("http://127.0.0.1:1", fake), timeout, max_concurrent=1)


def test_code_is_single_use(fake: FakeWeChat, exchange: Exchange) -> None:
    """A code that was exchanged is used."""
    code = fake.wx_login("alice")
    exchange(code)
    with pytest.raises(CodeUsed):
        exchange(code)


def test_codes_differ(fake: FakeWeChat) -> None:
    """Each wx.login gives a code of its own."""
    assert len({fake.wx_login("alice") for _ in range(100)}) == 100


def test_code_lives_five_minutes(fake: FakeWeChat, hand: Hand, exchange: Exchange) -> None:
    """Up to the end of its five minutes a code is good."""
    code = fake.wx_login("alice")
    hand.time += 299.9
    assert exchange(code).user.appid == APPID


def test_code_dies_after_five_minutes(fake: FakeWeChat, hand: Hand, exchange: Exchange) -> None:
    """After five minutes a code is unknown."""
    code = fake.wx_login("alice")
    hand.time += 300
    with pytest.raises(CodeInvalid):
        exchange(code)


def test_unknown_code_is_invalid(exchange: Exchange) -> None:
    """A code that no phone was given is unknown."""
    with pytest.raises(CodeInvalid):
        exchange("0" * 32)


SCRIPTED: dict[str, type[WeChatError]] = {
    "40029": CodeInvalid,
    "40163": CodeUsed,
    "40226": UserBlocked,
    "45011": WeChatRateLimited,
    "-1": WeChatBusy,
    "stall": WeChatUnreachable,
    "garbage": WeChatUnreachable,
}


def test_every_outcome_is_in_the_table() -> None:
    """The table below leaves no outcome out."""
    assert set(SCRIPTED) == set(OUTCOMES)


@pytest.mark.parametrize(("outcome", "error"), SCRIPTED.items(), ids=SCRIPTED)
def test_scripted_outcome(fake: FakeWeChat, outcome: str, error: type[WeChatError]) -> None:
    """A scripted code ends as it was told to."""
    code = fake.wx_login("alice", outcome)
    with pytest.raises(WeChatError, check=lambda raised: type(raised) is error):
        client_of(fake, timeout=0.5).exchange(APPID, code)


@pytest.mark.parametrize("outcome", ["40226", "stall", "garbage"])
def test_failed_exchange_uses_the_code_up(fake: FakeWeChat, outcome: str) -> None:
    """After an answer that never came, the code is gone all the same."""
    code, client = fake.wx_login("alice", outcome), client_of(fake, timeout=0.2)
    with pytest.raises(WeChatError):
        client.exchange(APPID, code)
    with pytest.raises(CodeUsed):
        client.exchange(APPID, code)


def test_busy_does_not_use_the_code_up(fake: FakeWeChat, exchange: Exchange) -> None:
    """-1 leaves the code as it was."""
    code = fake.wx_login("alice", "-1")
    for _ in range(2):
        with pytest.raises(WeChatBusy):
            exchange(code)


@pytest.mark.parametrize(
    ("appid", "secret", "errcode"),
    [
        pytest.param("wxunknown0000000", APP_SECRET, 40013, id="unknown-appid"),
        pytest.param(APPID, "wrong", 40125, id="wrong-secret"),
        pytest.param(APPID, "another-app-secret", 40125, id="secret-of-another-app"),
        pytest.param(APPID, "", 41004, id="no-secret"),
    ],
)
def test_app_must_be_known(fake: FakeWeChat, appid: str, secret: str, errcode: int) -> None:
    """An AppID or AppSecret that is not WeChat's record of it is the operator's matter."""
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.errcode == errcode):
        client_of(fake, secret).exchange(appid, fake.wx_login("alice"))


def test_wrong_secret_leaves_the_code_alone(fake: FakeWeChat, exchange: Exchange) -> None:
    """A code can still be exchanged after a request that WeChat refused for its AppSecret."""
    code = fake.wx_login("alice")
    with pytest.raises(WeChatMisconfigured):
        client_of(fake, "wrong").exchange(APPID, code)
    assert exchange(code).user.appid == APPID


def test_refusal_has_a_rid(fake: FakeWeChat, exchange: Exchange) -> None:
    """Each refusal has a request id of its own, as WeChat's have."""
    rids = set()
    for _ in range(2):
        with pytest.raises(CodeInvalid) as caught:
            exchange("0" * 32)
        rids.add(caught.value.rid)
    assert len(rids - {None}) == 2


@pytest.mark.parametrize("path", ["/sns/jscode2session/", "/cgi-bin/token", "/"])
def test_no_other_interface(fake: FakeWeChat, path: str) -> None:
    """Any other address is WeChat's 40066."""
    answer = json.loads(Transport("http://127.0.0.1:1", fake).get(path, {}, time.monotonic() + 1))
    assert answer["errcode"] == 40066


def test_mock_code_is_one_visitor(exchange: Exchange) -> None:
    """What DevTools sends without an AppID logs the same visitor in, any number of times."""
    assert len({exchange(MOCK_CODE).user for _ in range(3)}) == 1


def test_mock_code_is_what_devtools_sends() -> None:
    """The mock code is DevTools' own text."""
    assert MOCK_CODE == "the code is a mock one"


def test_openid_is_seen_to_be_a_sandbox_one(fake: FakeWeChat, exchange: Exchange) -> None:
    """Nobody can take an openid of the sandbox for a real one."""
    assert exchange(fake.wx_login("alice")).user.openid.startswith("oSANDBOX")


def test_openid_is_stable(fake: FakeWeChat, exchange: Exchange) -> None:
    """A user has one openid and one unionid in an app, also in another process."""
    first = exchange(fake.wx_login("alice"))
    elsewhere = FakeWeChat(APPS)
    second = client_of(elsewhere).exchange(APPID, elsewhere.wx_login("alice"))
    assert (first.user, first.unionid) == (second.user, second.unionid)


def test_openid_is_the_users_own(fake: FakeWeChat, exchange: Exchange) -> None:
    """Two users have two openids and two unionids."""
    alice, bob = exchange(fake.wx_login("alice")), exchange(fake.wx_login("bob"))
    assert alice.user.openid != bob.user.openid
    assert alice.unionid != bob.unionid


def test_openid_belongs_to_an_app(fake: FakeWeChat) -> None:
    """A user's openid differs from app to app; the unionid does not."""
    client = client_of(fake)
    here, there = (client.exchange(appid, fake.wx_login("alice")) for appid in (APPID, OTHER_APPID))
    assert here.user.openid != there.user.openid
    assert here.unionid == there.unionid


def test_session_key_outlives_a_login(fake: FakeWeChat, hand: Hand, exchange: Exchange) -> None:
    """Within its life a user's session_key stays the same from login to login."""
    first = exchange(fake.wx_login("alice"))
    hand.time += KEY_LIFE - 1
    assert exchange(fake.wx_login("alice")).session_key == first.session_key


def test_session_key_is_replaced_by_a_login(fake: FakeWeChat, hand: Hand, exchange: Exchange) -> None:
    """A login after the session_key's life brings a new one."""
    first = exchange(fake.wx_login("alice"))
    hand.time += KEY_LIFE
    assert exchange(fake.wx_login("alice")).session_key != first.session_key


def test_session_key_is_replaced_on_demand(fake: FakeWeChat, exchange: Exchange) -> None:
    """A login may be told to bring a new one, and the next keeps that."""
    first, second, third = (exchange(fake.wx_login("alice", new_key=new)) for new in (False, True, False))
    assert first.session_key != second.session_key
    assert second.session_key == third.session_key


def test_profile_is_sealed_under_the_key_that_was_given_out(fake: FakeWeChat, hand: Hand, exchange: Exchange) -> None:
    """The key of the last login, though its life be over; sealed and signed are the same profile."""
    session_key = exchange(fake.wx_login("alice", new_key=True)).session_key.reveal()
    hand.time += KEY_LIFE
    given = fake.wx_get_user_profile(APPID, "alice")
    iv, ciphertext = (base64.b64decode(given[name]) for name in ("iv", "encryptedData"))
    opening = Cipher(algorithms.AES(base64.b64decode(session_key)), modes.CBC(iv)).decryptor()
    padded = opening.update(ciphertext) + opening.finalize()
    opened = json.loads(padded[: -padded[-1]])
    assert opened.pop("watermark") == {"timestamp": int(hand.time), "appid": APPID}
    assert opened == json.loads(given["rawData"])
    assert given["signature"] == hashlib.sha1((given["rawData"] + session_key).encode()).hexdigest()  # noqa: S324


def test_profile_without_a_login_has_the_key_of_the_next(fake: FakeWeChat, exchange: Exchange) -> None:
    """There is one key for each user, whoever asks first."""
    given = fake.wx_get_user_profile(APPID, "alice")
    session_key = exchange(fake.wx_login("alice")).session_key.reveal()
    assert given["signature"] == hashlib.sha1((given["rawData"] + session_key).encode()).hexdigest()  # noqa: S324


def test_no_two_seals_are_alike(fake: FakeWeChat) -> None:
    """Each has an iv of its own."""
    assert len({fake.wx_get_user_profile(APPID, "alice")["encryptedData"] for _ in range(10)}) == 10


def test_push_names_the_user_as_a_login_does(fake: FakeWeChat, exchange: Exchange) -> None:
    """In OpenID; and FromUserName is somebody else."""
    _, body = fake.push(APPID, "alice", "user_authorization_cancellation", "token")
    message = json.loads(body)
    assert message["OpenID"] == exchange(fake.wx_login("alice")).user.openid != message["FromUserName"]


def test_session_key_is_the_users_own(fake: FakeWeChat, exchange: Exchange) -> None:
    """No two users share a session_key."""
    alice, bob = exchange(fake.wx_login("alice")), exchange(fake.wx_login("bob"))
    assert alice.session_key != bob.session_key


def test_oldest_code_gives_way(fake: FakeWeChat, exchange: Exchange) -> None:
    """At most MOST_CODES codes are held: one more, and the oldest is unknown."""
    oldest, second, *_ = [fake.wx_login("alice") for _ in range(MOST_CODES + 1)]
    with pytest.raises(CodeInvalid):
        exchange(oldest)
    assert exchange(second).user.appid == APPID
