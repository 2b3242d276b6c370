"""WeChatClient: which exception each answer raises, what is sent, and what is sent only once."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tests.conftest import APP_SECRET, APPID, SESSION_KEY
from wxauth.errors import (
    AccessTokenRefused,
    CodeInvalid,
    CodeUsed,
    PhoneCodeInvalid,
    SessionKeyStale,
    UserBlocked,
    WeChatBusy,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatUnreachable,
)
from wxauth.models import Identity, PhoneNumber, Secret, User
from wxauth.wechat.answers import AccessToken
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.errcodes import HINTS
from wxauth.wechat.transport import Transport

CODE = "code-that-nobody-may-see"
OPENID = "oALICE-0123456789_abcdefghij"
UNIONID = "uALICE-0123456789_abcdefghij"
RID = "6543a1b2-7c8d9e0f-11223344"
SUCCESS = {"openid": OPENID, "session_key": SESSION_KEY}
IDENTITY = Identity(User(APPID, OPENID), Secret(SESSION_KEY))

MISCONFIGURED = [40013, 40125, 40164, 40243, 41002, 41004, 41008, 45009, 47001, 48001, 50002, 50007]

ERRORS: list[tuple[int, type[WeChatError]]] = [
    (-1, WeChatBusy),
    (40029, CodeInvalid),
    (40163, CodeUsed),
    (40226, UserBlocked),
    (45011, WeChatRateLimited),
    *((errcode, WeChatMisconfigured) for errcode in MISCONFIGURED),
    (99999, WeChatError),
]


class ScriptedWeChat(HTTPAdapter):
    """Returns its answers in turn, the last one again and again, and keeps the requests."""

    def __init__(self, *answers: object) -> None:
        super().__init__()
        self._answers = [answer if isinstance(answer, bytes | Exception) else _json(answer) for answer in answers]
        self.requests: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return self.build_response(
            request, urllib3.HTTPResponse(io.BytesIO(answer), preload_content=False, status=200)
        )

    def queries(self) -> list[list[tuple[str, str]]]:
        return [parse_qsl(str(urlsplit(request.url or "").query)) for request in self.requests]


def _json(answer: object) -> bytes:
    return json.dumps(answer).encode()


def client(*answers: object) -> WeChatClient:
    return client_of(ScriptedWeChat(*answers))


def client_of(wechat: ScriptedWeChat) -> WeChatClient:
    return WeChatClient(
        {APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), timeout=4, max_concurrent=1
    )


def refusal(errcode: object, errmsg: str = f"some reason, rid: {RID}") -> dict[str, object]:
    return {"errcode": errcode, "errmsg": errmsg}


@pytest.mark.parametrize("form", [int, str], ids=["number", "text"])
@pytest.mark.parametrize(("errcode", "error"), ERRORS, ids=[str(errcode) for errcode, _ in ERRORS])
def test_exchange_raises_the_exception_of_the_errcode(
    errcode: int, error: type[WeChatError], form: type[int] | type[str]
) -> None:
    """The errcode may be a number or a text."""
    with pytest.raises(WeChatError, check=lambda raised: type(raised) is error and raised.errcode == errcode):
        client(refusal(form(errcode))).exchange(APPID, CODE)


def test_exchange_raises_for_an_errcode_beside_an_identity() -> None:
    with pytest.raises(CodeUsed):
        client(SUCCESS | refusal(40163)).exchange(APPID, CODE)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(SUCCESS, id="no-errcode"),
        pytest.param(SUCCESS | {"errcode": 0, "errmsg": "ok"}, id="errcode-0"),
        pytest.param(SUCCESS | {"errcode": "0"}, id="errcode-0-as-text"),
        pytest.param(SUCCESS | {"expires_in": 7200, "new": {"field": [None]}}, id="unknown-fields"),
        pytest.param(SUCCESS | {"unionid": None}, id="unionid-null"),
        pytest.param(SUCCESS | {"unionid": ""}, id="unionid-empty"),
    ],
)
def test_exchange_returns_the_identity(answer: dict[str, object]) -> None:
    """It needs an openid, a session_key, and no errcode or errcode 0. Other fields are ignored."""
    assert client(answer).exchange(APPID, CODE) == IDENTITY


def test_exchange_returns_the_unionid() -> None:
    assert client(SUCCESS | {"unionid": UNIONID}).exchange(APPID, CODE).unionid == UNIONID


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "not_json", id="empty"),
        pytest.param(b"<html>502 Bad Gateway</html>", "not_json", id="html"),
        pytest.param(b"null", "not_json", id="null"),
        pytest.param(b"[]", "not_json", id="list"),
        pytest.param(b'""', "not_json", id="text"),
        pytest.param(b"0", "not_json", id="number"),
        pytest.param(b"NaN", "not_json", id="NaN"),
        pytest.param(b'{"errcode": NaN}', "not_json", id="errcode-NaN"),
        pytest.param(b'{"errcode": 1e999}', "not_json", id="errcode-infinite"),
        pytest.param(b'{"errcode": ' + b"9" * 5000 + b"}", "not_json", id="errcode-of-5000-digits"),
        pytest.param(b"[" * 10000 + b"]" * 10000, "not_json", id="nested-lists"),
        pytest.param(b'{"a":' * 10000 + b"0" + b"}" * 10000, "not_json", id="nested-objects"),
        pytest.param(b'{"openid": "o1", "openid": "o2", "session_key": "k"}', "not_json", id="duplicate-keys"),
        pytest.param(b'{"openid": "\xff", "session_key": "k"}', "not_json", id="not-utf8"),
        pytest.param(b'{"openid": "o", "session_key": "k"', "not_json", id="cut-short"),
        pytest.param(b'{"openid": "o", "session_key": "k"} {}', "not_json", id="two-objects"),
    ],
)
def test_exchange_raises_unreachable_for_an_answer_that_is_no_json_object(body: bytes, reason: str) -> None:
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == reason):
        client(body).exchange(APPID, CODE)


ODD_FIELDS: dict[str, list[object]] = {
    "errcode": [None, True, 40029.0, "", "zero", "٤٠٠٢٩", "0\n", []],
    "openid": [None, "", "o" * 10240, "o\0", "o\n", 17, ["o"]],
    "session_key": [None, "", "k" * 10240, "k\n", 17, ["k"]],
    "unionid": ["u" * 10240, "u\0", 17, ["u"], 0, [], False],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}={value!a:.12}")
        for name, values in ODD_FIELDS.items()
        for value in values
    ],
)
def test_exchange_raises_unreachable_for_a_malformed_field(name: str, value: object) -> None:
    """The reason names the field."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == f"bad_{name}"):
        client(SUCCESS | {name: value}).exchange(APPID, CODE)


@pytest.mark.parametrize("name", ["openid", "session_key"])
def test_exchange_raises_unreachable_for_a_missing_field(name: str) -> None:
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == f"bad_{name}"):
        client({key: value for key, value in SUCCESS.items() if key != name}).exchange(APPID, CODE)


def test_exchange_retries_after_busy() -> None:
    """-1 has not used the code."""
    assert client(refusal(-1), refusal(-1), SUCCESS).exchange(APPID, CODE) == IDENTITY


def test_exchange_raises_busy_after_three_tries() -> None:
    wechat = ScriptedWeChat(refusal(-1))
    with pytest.raises(WeChatBusy):
        client_of(wechat).exchange(APPID, CODE)
    assert len(wechat.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        *(pytest.param(refusal(errcode), id=str(errcode)) for errcode, _ in ERRORS if errcode != -1),
        pytest.param(b"<html></html>", id="garbage"),
        pytest.param({}, id="no-identity"),
        pytest.param(requests.ReadTimeout(), id="read-timeout"),
        pytest.param(requests.ConnectionError(), id="connection"),
    ],
)
def test_exchange_does_not_retry_after_another_error(answer: object) -> None:
    """The code may be used."""
    wechat = ScriptedWeChat(answer, SUCCESS)
    with pytest.raises(WeChatError):
        client_of(wechat).exchange(APPID, CODE)
    assert len(wechat.requests) == 1


class SlowWeChat(ScriptedWeChat):
    """Waits before it answers, until the test says so."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.asked, self.told = threading.Event(), threading.Event()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.asked.set()
        self.told.wait(10)
        return super().send(request, *args, **kwargs)


def test_exchange_beyond_the_limit_raises_busy_at_once() -> None:
    """Its code is not sent."""
    wechat = SlowWeChat(SUCCESS)
    shared = client_of(wechat)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(shared.exchange, APPID, CODE)
        wechat.asked.wait(10)
        with pytest.raises(WeChatBusy):
            shared.exchange(APPID, CODE)
        wechat.told.set()
        assert (first.result(), len(wechat.requests)) == (IDENTITY, 1)


@pytest.mark.parametrize("answer", [SUCCESS, refusal(40029), b"", requests.ConnectionError()])
def test_exchange_releases_its_slot(answer: object) -> None:
    """Every outcome releases it."""
    wechat = client(answer, SUCCESS)
    with contextlib.suppress(WeChatError):
        wechat.exchange(APPID, CODE)
    assert wechat.exchange(APPID, CODE) == IDENTITY


@pytest.mark.parametrize(
    "code", [CODE, "x&secret=y", "x%00", "x%26secret=y", "x#y", "x+y z", "x;appid=y", "the code is a mock one", "码"]
)
def test_exchange_sends_the_code_as_one_parameter(code: str) -> None:
    """The query holds the four documented parameters and no other."""
    wechat = ScriptedWeChat(SUCCESS)
    client_of(wechat).exchange(APPID, code)
    assert wechat.queries() == [
        [("appid", APPID), ("secret", APP_SECRET), ("js_code", code), ("grant_type", "authorization_code")]
    ]


def test_exchange_sends_one_get_to_jscode2session() -> None:
    wechat = ScriptedWeChat(SUCCESS)
    client_of(wechat).exchange(APPID, CODE)
    assert [(sent.method, urlsplit(sent.url or "").path) for sent in wechat.requests] == [
        ("GET", "/sns/jscode2session")
    ]


@pytest.mark.parametrize("errcode", MISCONFIGURED)
def test_exchange_keeps_the_errcode_of_a_misconfiguration(errcode: int) -> None:
    """`/readyz` reports it."""
    wechat = client(refusal(errcode))
    with pytest.raises(WeChatMisconfigured):
        wechat.exchange(APPID, CODE)
    assert wechat.misconfigured == {APPID: errcode}


def test_exchange_clears_the_misconfiguration_after_a_login() -> None:
    wechat = client(refusal(40125), SUCCESS)
    with pytest.raises(WeChatMisconfigured):
        wechat.exchange(APPID, CODE)
    wechat.exchange(APPID, CODE)
    assert wechat.misconfigured == {}


def test_exchange_logs_a_misconfiguration_with_its_hint(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the errcode, the hint, the server's address and WeChat's request id."""
    message = f"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: {RID}"
    with pytest.raises(WeChatMisconfigured):
        client(refusal(40164, message)).exchange(APPID, CODE)
    (line,) = [vars(record) for record in caplog.records if record.message == "wechat_misconfigured"]
    assert (line["levelname"], line["errcode"], line["rid"], line["ip"]) == ("ERROR", 40164, RID, "203.0.113.7")
    assert "IP list" in line["hint"]


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("203.0.113.7 ipv6 ::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:203.0.113.7 ipv6 ::FFFF:203.0.113.7", "203.0.113.7"),
        ("2001:db8::7 ipv6 2001:db8::7", "2001:db8::7"),
        ("2001:0DB8:0:0:0:0:0:7", "2001:db8::7"),
        (" ipv6 2001:db8::7", "2001:db8::7"),
        ("999.0.113.7 ipv6 fe80::1%eth0", None),
        ("somewhere", None),
        ("", None),
    ],
)
def test_a_refused_address_is_named_as_the_ip_list_takes_it(named: str, address: str | None) -> None:
    """The console takes IPv4 and IPv6, and not IPv4 in the form of IPv6."""
    message = f"invalid ip {named}, not in whitelist rid: {RID}"
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.address == address):
        client(refusal(40164, message)).exchange(APPID, CODE)


@pytest.mark.parametrize(
    ("errmsg", "rid"),
    [
        pytest.param(f"invalid code, rid: {RID}", RID, id="rid"),
        pytest.param("code been used, hints: [ req_id: aBc-_9 ]", "aBc-_9", id="req_id"),
        pytest.param("no id at all", None, id="none"),
        pytest.param("rid: " + "x" * 10240, "x" * 64, id="too-long"),
    ],
)
def test_exchange_logs_the_errcode_with_its_rid(
    errmsg: str, rid: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """WeChat's support asks for the request id."""
    with pytest.raises(WeChatError, check=lambda error: error.rid == rid):
        client(refusal(40029, errmsg)).exchange(APPID, CODE)
    assert [(vars(line)["errcode"], vars(line)["rid"]) for line in caplog.records] == [(40029, rid)]


@pytest.mark.parametrize(
    "answer",
    [
        *(pytest.param(refusal(errcode), id=str(errcode)) for errcode, _ in ERRORS),
        pytest.param(refusal(40125, f"{APP_SECRET} {CODE} {OPENID} {SESSION_KEY}"), id="echo"),
        pytest.param(SUCCESS, id="success"),
    ],
)
def test_exchange_logs_no_secret(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    """No line holds the AppSecret, the code, an openid or a session_key, also if WeChat's message does."""
    with caplog.at_level(logging.DEBUG):
        try:
            client(answer).exchange(APPID, CODE)
        except WeChatError as error:
            logging.getLogger().info("raised", extra={"error": repr(error)}, exc_info=error)
    told = "\n".join(f"{vars(record)} {record.exc_text}" for record in caplog.records)
    assert [word for word in (APP_SECRET, CODE, OPENID, SESSION_KEY) if word in told] == []


# --- Interfaces that need an access token

ALICE = User(APPID, OPENID)
TOKEN = Secret("access-token-that-nobody-may-see")
PHONE_CODE = "phone-code-that-nobody-may-see"
PHONE = "12066600001"
PHONE_INFO = {
    "phoneNumber": PHONE,
    "purePhoneNumber": PHONE,
    "countryCode": "86",
    "watermark": {"timestamp": 1637744274, "appid": APPID},
}
GIVEN = {"access_token": TOKEN.reveal(), "expires_in": 7200}
OK: dict[str, object] = {"errcode": 0, "errmsg": "ok"}

Ask = Callable[[WeChatClient, float], object]

#: For each interface: how to call it, its answer on success, and its HTTP method and path.
INTERFACES: dict[str, tuple[Ask, dict[str, object], tuple[str, str]]] = {
    "access_token": (
        lambda client, deadline: client.access_token(APPID, deadline),
        dict(GIVEN),
        ("POST", "/cgi-bin/stable_token"),
    ),
    "forced": (
        lambda client, deadline: client.access_token(APPID, deadline, force=True),
        dict(GIVEN),
        ("POST", "/cgi-bin/stable_token"),
    ),
    "phone_number": (
        lambda client, deadline: client.phone_number(ALICE, PHONE_CODE, TOKEN, deadline),
        OK | {"phone_info": PHONE_INFO},
        ("POST", "/wxa/business/getuserphonenumber"),
    ),
    "check_session_key": (
        lambda client, deadline: client.check_session_key(ALICE, Secret(SESSION_KEY), TOKEN, deadline),
        OK,
        ("GET", "/wxa/checksession"),
    ),
    "reset_session_key": (
        lambda client, deadline: client.reset_session_key(ALICE, Secret(SESSION_KEY), TOKEN, deadline),
        OK | {"openid": OPENID, "session_key": "AAAAAAAAAAAAAAAAAAAAAA=="},
        ("GET", "/wxa/resetusersessionkey"),
    ),
}
each_interface = pytest.mark.parametrize(("ask", "answer", "place"), INTERFACES.values(), ids=INTERFACES)


def call(wechat: ScriptedWeChat, ask: Ask) -> object:
    client = client_of(wechat)
    with client.slot() as deadline:
        return ask(client, deadline)


@each_interface
def test_method_sends_one_request_to_its_path(ask: Ask, answer: object, place: tuple[str, str]) -> None:
    wechat = ScriptedWeChat(answer)
    call(wechat, ask)
    assert [(sent.method, urlsplit(sent.url or "").path) for sent in wechat.requests] == [place]


@pytest.mark.parametrize("force", [False, True])
def test_access_token_posts_the_app_secret_in_the_body(force: bool) -> None:
    """`force` becomes `force_refresh`."""
    wechat = ScriptedWeChat(GIVEN)
    found = call(wechat, lambda client, deadline: client.access_token(APPID, deadline, force=force))
    body = {"grant_type": "client_credential", "appid": APPID, "secret": APP_SECRET, "force_refresh": force}
    assert (json.loads(wechat.requests[0].body or ""), wechat.queries()) == (body, [[]])
    assert found == AccessToken(TOKEN, 7200)


def test_phone_number_sends_the_openid() -> None:
    """With it WeChat refuses a code of another user's phone."""
    wechat = ScriptedWeChat(OK | {"phone_info": PHONE_INFO})
    assert call(wechat, INTERFACES["phone_number"][0]) == PhoneNumber(PHONE, PHONE, "86")
    assert json.loads(wechat.requests[0].body or "") == {"code": PHONE_CODE, "openid": OPENID}
    assert wechat.queries() == [[("access_token", TOKEN.reveal())]]


@pytest.mark.parametrize("name", ["check_session_key", "reset_session_key"])
def test_session_key_methods_send_a_signature_and_not_the_key(name: str) -> None:
    ask, answer, _ = INTERFACES[name]
    wechat = ScriptedWeChat(answer)
    call(wechat, ask)
    expected = "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"
    sent = [("access_token", TOKEN.reveal()), ("openid", OPENID), ("signature", expected)]
    assert wechat.queries() == [[*sent, ("sig_method", "hmac_sha256")]]


@pytest.mark.parametrize("errcode", [87007, 87009])
@pytest.mark.parametrize("name", ["check_session_key", "reset_session_key"])
def test_session_key_methods_raise_stale(name: str, errcode: int) -> None:
    """WeChat has no session_key for the user, or another one."""
    with pytest.raises(SessionKeyStale, check=lambda error: error.errcode == errcode):
        call(ScriptedWeChat(refusal(errcode)), INTERFACES[name][0])


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
@each_interface
def test_method_raises_access_token_refused(ask: Ask, answer: object, place: tuple[str, str], errcode: int) -> None:
    """The caller then gets another token."""
    with pytest.raises(AccessTokenRefused, check=lambda error: error.errcode == errcode):
        call(ScriptedWeChat(refusal(errcode)), ask)


@pytest.mark.parametrize("errcode", sorted(HINTS))
def test_access_token_raises_misconfigured_for_every_hint(errcode: int) -> None:
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.errcode == errcode):
        call(ScriptedWeChat(refusal(errcode)), INTERFACES["access_token"][0])


def test_phone_number_raises_phone_code_invalid() -> None:
    """The user must tap the button again, not log in."""
    with pytest.raises(PhoneCodeInvalid, check=lambda error: (error.errcode, error.rid) == (40029, RID)):
        call(ScriptedWeChat(refusal(40029)), INTERFACES["phone_number"][0])


@pytest.mark.parametrize(
    "answer", [refusal(-1), refusal(40029), b"<html></html>", {}, requests.ReadTimeout(), requests.ConnectionError()]
)
@pytest.mark.parametrize("name", ["forced", "phone_number", "reset_session_key"])
def test_method_with_an_effect_does_not_retry(name: str, answer: object) -> None:
    """The phone code may be used, the token or key replaced. WeChat says only of a login code that -1 keeps it."""
    ask, good, _ = INTERFACES[name]
    wechat = ScriptedWeChat(answer, good)
    with pytest.raises(WeChatError):
        call(wechat, ask)
    assert len(wechat.requests) == 1


@pytest.mark.parametrize("name", ["access_token", "check_session_key"])
def test_method_without_an_effect_retries_after_busy(name: str) -> None:
    ask, answer, _ = INTERFACES[name]
    wechat = ScriptedWeChat(refusal(-1), refusal(-1), answer)
    call(wechat, ask)
    assert len(wechat.requests) == 3


def test_misconfiguration_stays_until_a_request_with_the_app_secret_succeeds() -> None:
    """An access token stays valid after the AppSecret has changed."""
    wechat = client(refusal(40125), OK, GIVEN)
    with pytest.raises(WeChatMisconfigured):
        wechat.exchange(APPID, CODE)
    with wechat.slot() as deadline:
        INTERFACES["check_session_key"][0](wechat, deadline)
        assert wechat.misconfigured == {APPID: 40125}
        wechat.access_token(APPID, deadline)
    assert wechat.misconfigured == {}


@each_interface
@pytest.mark.parametrize("errcode", [-1, 40001, 40029, 87009, 89503, 99999, 0])
def test_method_logs_and_raises_no_secret(
    ask: Ask, answer: dict[str, object], place: object, errcode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """No access token, phone code, number, openid, session_key or AppSecret."""
    secrets = (APP_SECRET, TOKEN.reveal(), PHONE_CODE, PHONE, OPENID, SESSION_KEY)
    echo = refusal(errcode, " ".join(secrets)) if errcode else answer
    with caplog.at_level(logging.DEBUG):
        try:
            call(ScriptedWeChat(echo), ask)
        except WeChatError as error:
            logging.getLogger().info("raised", extra={"error": repr(error)}, exc_info=error)
    told = "\n".join(f"{vars(record)} {record.exc_text}" for record in caplog.records)
    assert [word for word in secrets if word in told] == []
