"""The fake WeChat follows WeChat's rules. The tests use the real client and the real transport."""

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
from wxauth.sandbox.fake_wechat import MAX_CODES, MOCK_CODE, OUTCOMES, SESSION_KEY_TTL, FakeWeChat
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Request, Transport

Exchange = Callable[[str], Identity]

OTHER_APPID = "wxfedcba9876543210"
APPS = {APPID: Secret(APP_SECRET), OTHER_APPID: Secret("another-app-secret")}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock) -> FakeWeChat:
    return FakeWeChat(APPS, clock)


@pytest.fixture
def exchange(fake: FakeWeChat) -> Exchange:
    client = client_of(fake)
    return lambda code: client.exchange(APPID, code)


def client_of(fake: FakeWeChat, secret: str = APP_SECRET, timeout: float = 4) -> WeChatClient:
    apps = APPS | {APPID: Secret(secret), "wxunknown0000000": Secret(secret)}
    return WeChatClient(apps, Transport("http://127.0.0.1:1", fake), timeout, max_concurrent=1)


def test_exchange_of_a_used_code_raises_code_used(fake: FakeWeChat, exchange: Exchange) -> None:
    code = fake.wx_login("alice")
    exchange(code)
    with pytest.raises(CodeUsed):
        exchange(code)


def test_wx_login_returns_a_new_code_each_time(fake: FakeWeChat) -> None:
    assert len({fake.wx_login("alice") for _ in range(100)}) == 100


def test_exchange_within_five_minutes_succeeds(fake: FakeWeChat, clock: Clock, exchange: Exchange) -> None:
    code = fake.wx_login("alice")
    clock.time += 299.9
    assert exchange(code).user.appid == APPID


def test_exchange_after_five_minutes_raises_code_invalid(fake: FakeWeChat, clock: Clock, exchange: Exchange) -> None:
    code = fake.wx_login("alice")
    clock.time += 300
    with pytest.raises(CodeInvalid):
        exchange(code)


def test_exchange_of_an_unknown_code_raises_code_invalid(exchange: Exchange) -> None:
    with pytest.raises(CodeInvalid):
        exchange("0" * 32)


SCRIPTED: dict[str, type[WeChatError]] = {
    "40029": CodeInvalid,
    "40163": CodeUsed,
    "40164": WeChatMisconfigured,
    "40226": UserBlocked,
    "45011": WeChatRateLimited,
    "-1": WeChatBusy,
    "stall": WeChatUnreachable,
    "garbage": WeChatUnreachable,
}


def test_the_table_of_errors_has_every_outcome() -> None:
    assert set(SCRIPTED) == set(OUTCOMES)


@pytest.mark.parametrize(("outcome", "error"), SCRIPTED.items(), ids=SCRIPTED)
def test_exchange_of_a_scripted_code_raises_its_error(
    fake: FakeWeChat, outcome: str, error: type[WeChatError]
) -> None:
    code = fake.wx_login("alice", outcome)
    with pytest.raises(WeChatError, check=lambda raised: type(raised) is error):
        client_of(fake, timeout=0.5).exchange(APPID, code)


@pytest.mark.parametrize("outcome", ["40226", "stall", "garbage"])
def test_a_failed_exchange_uses_the_code_up(fake: FakeWeChat, outcome: str) -> None:
    """Also if the answer never arrives."""
    code, client = fake.wx_login("alice", outcome), client_of(fake, timeout=0.2)
    with pytest.raises(WeChatError):
        client.exchange(APPID, code)
    with pytest.raises(CodeUsed):
        client.exchange(APPID, code)


def test_a_busy_wechat_does_not_use_the_code_up(fake: FakeWeChat, exchange: Exchange) -> None:
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
def test_exchange_with_a_wrong_appid_or_secret_raises_wechat_misconfigured(
    fake: FakeWeChat, appid: str, secret: str, errcode: int
) -> None:
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.errcode == errcode):
        client_of(fake, secret).exchange(appid, fake.wx_login("alice"))


def test_exchange_with_a_wrong_secret_does_not_use_the_code_up(fake: FakeWeChat, exchange: Exchange) -> None:
    code = fake.wx_login("alice")
    with pytest.raises(WeChatMisconfigured):
        client_of(fake, "wrong").exchange(APPID, code)
    assert exchange(code).user.appid == APPID


def test_each_error_has_its_own_rid(fake: FakeWeChat, exchange: Exchange) -> None:
    rids = set()
    for _ in range(2):
        with pytest.raises(CodeInvalid) as caught:
            exchange("0" * 32)
        rids.add(caught.value.rid)
    assert len(rids - {None}) == 2


@pytest.mark.parametrize("path", ["/sns/jscode2session/", "/cgi-bin/token", "/"])
def test_an_unknown_path_returns_40066(fake: FakeWeChat, path: str) -> None:
    answer = json.loads(Transport("http://127.0.0.1:1", fake).ask(Request(path, {}), time.monotonic() + 1))
    assert answer["errcode"] == 40066


def test_the_mock_code_always_logs_the_same_visitor_in(exchange: Exchange) -> None:
    assert len({exchange(MOCK_CODE).user for _ in range(3)}) == 1


def test_the_mock_code_is_the_text_of_devtools() -> None:
    assert MOCK_CODE == "the code is a mock one"


def test_an_openid_starts_with_osandbox(fake: FakeWeChat, exchange: Exchange) -> None:
    assert exchange(fake.wx_login("alice")).user.openid.startswith("oSANDBOX")


def test_a_user_has_the_same_openid_and_unionid_in_every_process(fake: FakeWeChat, exchange: Exchange) -> None:
    first = exchange(fake.wx_login("alice"))
    elsewhere = FakeWeChat(APPS)
    second = client_of(elsewhere).exchange(APPID, elsewhere.wx_login("alice"))
    assert (first.user, first.unionid) == (second.user, second.unionid)


def test_two_users_have_two_openids_and_two_unionids(fake: FakeWeChat, exchange: Exchange) -> None:
    alice, bob = exchange(fake.wx_login("alice")), exchange(fake.wx_login("bob"))
    assert alice.user.openid != bob.user.openid
    assert alice.unionid != bob.unionid


def test_a_user_has_one_openid_for_each_app_and_one_unionid(fake: FakeWeChat) -> None:
    client = client_of(fake)
    here, there = (client.exchange(appid, fake.wx_login("alice")) for appid in (APPID, OTHER_APPID))
    assert here.user.openid != there.user.openid
    assert here.unionid == there.unionid


def test_a_login_keeps_a_valid_session_key(fake: FakeWeChat, clock: Clock, exchange: Exchange) -> None:
    first = exchange(fake.wx_login("alice"))
    clock.time += SESSION_KEY_TTL - 1
    assert exchange(fake.wx_login("alice")).session_key == first.session_key


def test_a_login_replaces_an_expired_session_key(fake: FakeWeChat, clock: Clock, exchange: Exchange) -> None:
    first = exchange(fake.wx_login("alice"))
    clock.time += SESSION_KEY_TTL
    assert exchange(fake.wx_login("alice")).session_key != first.session_key


def test_a_login_with_new_key_replaces_the_session_key(fake: FakeWeChat, exchange: Exchange) -> None:
    """The next login keeps it."""
    first, second, third = (exchange(fake.wx_login("alice", new_key=new)) for new in (False, True, False))
    assert first.session_key != second.session_key
    assert second.session_key == third.session_key


def test_a_profile_is_encrypted_and_signed_with_the_last_session_key(
    fake: FakeWeChat, clock: Clock, exchange: Exchange
) -> None:
    """Also if that key has expired."""
    session_key = exchange(fake.wx_login("alice", new_key=True)).session_key.reveal()
    clock.time += SESSION_KEY_TTL
    given = fake.wx_get_user_profile(APPID, "alice")
    iv, ciphertext = (base64.b64decode(given[name]) for name in ("iv", "encryptedData"))
    opening = Cipher(algorithms.AES(base64.b64decode(session_key)), modes.CBC(iv)).decryptor()
    padded = opening.update(ciphertext) + opening.finalize()
    opened = json.loads(padded[: -padded[-1]])
    assert opened.pop("watermark") == {"timestamp": int(clock.time), "appid": APPID}
    assert opened == json.loads(given["rawData"])
    assert given["signature"] == hashlib.sha1((given["rawData"] + session_key).encode()).hexdigest()  # noqa: S324


def test_a_profile_before_the_first_login_uses_the_key_of_that_login(fake: FakeWeChat, exchange: Exchange) -> None:
    given = fake.wx_get_user_profile(APPID, "alice")
    session_key = exchange(fake.wx_login("alice")).session_key.reveal()
    assert given["signature"] == hashlib.sha1((given["rawData"] + session_key).encode()).hexdigest()  # noqa: S324


def test_each_encryption_uses_a_new_iv(fake: FakeWeChat) -> None:
    assert len({fake.wx_get_user_profile(APPID, "alice")["encryptedData"] for _ in range(10)}) == 10


def test_a_push_has_the_openid_of_the_user_in_openid_not_in_fromusername(
    fake: FakeWeChat, exchange: Exchange
) -> None:
    _, body = fake.push(APPID, "alice", "user_authorization_cancellation", "token")
    message = json.loads(body)
    assert message["OpenID"] == exchange(fake.wx_login("alice")).user.openid != message["FromUserName"]


def test_two_users_have_two_session_keys(fake: FakeWeChat, exchange: Exchange) -> None:
    alice, bob = exchange(fake.wx_login("alice")), exchange(fake.wx_login("bob"))
    assert alice.session_key != bob.session_key


def test_a_code_above_the_maximum_drops_the_oldest(fake: FakeWeChat, exchange: Exchange) -> None:
    oldest, second, *_ = [fake.wx_login("alice") for _ in range(MAX_CODES + 1)]
    with pytest.raises(CodeInvalid):
        exchange(oldest)
    assert exchange(second).user.appid == APPID
