"""WeChat's answers and what they mean: each errcode its own error, everything odd unreachable, nothing sent twice."""

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
from wxauth.wechat.client import WeChatClient, signature
from wxauth.wechat.errcodes import HINTS
from wxauth.wechat.transport import Transport

CODE = "code-that-nobody-may-see"
OPENID = "oALICE-0123456789_abcdefghij"
UNIONID = "uALICE-0123456789_abcdefghij"
RID = "6543a1b2-7c8d9e0f-11223344"
SUCCESS = {"openid": OPENID, "session_key": SESSION_KEY}
IDENTITY = Identity(User(APPID, OPENID), Secret(SESSION_KEY))

MISCONFIGURED = [40013, 40125, 40164, 40243, 41002, 41004, 45009, 50002, 50007]

ERRORS: list[tuple[int, type[WeChatError]]] = [
    (-1, WeChatBusy),
    (40029, CodeInvalid),
    (40163, CodeUsed),
    (40226, UserBlocked),
    (45011, WeChatRateLimited),
    *((errcode, WeChatMisconfigured) for errcode in MISCONFIGURED),
    (41008, WeChatError),
    (99999, WeChatError),
]


class ScriptedWeChat(HTTPAdapter):
    """Gives its answers one after the other, the last one for ever, and keeps the requests."""

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
def test_errcode_is_its_own_error(errcode: int, error: type[WeChatError], form: type[int] | type[str]) -> None:
    """Each errcode, number or text, is raised as the one error that stands for it."""
    with pytest.raises(WeChatError, check=lambda raised: type(raised) is error and raised.errcode == errcode):
        client(refusal(form(errcode))).exchange(APPID, CODE)


def test_errcode_outweighs_an_identity() -> None:
    """An answer with an errcode is a refusal, whatever else is in it."""
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
def test_success(answer: dict[str, object]) -> None:
    """An errcode absent or 0, an openid and a session_key are a success, and more is not asked for."""
    assert client(answer).exchange(APPID, CODE) == IDENTITY


def test_unionid_is_told() -> None:
    """The unionid is part of the identity where WeChat gives one."""
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
def test_answer_that_is_no_json_object(body: bytes, reason: str) -> None:
    """An answer that WeChat can't have given counts as none."""
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
def test_field_of_another_form(name: str, value: object) -> None:
    """A field that is not of WeChat's form makes no identity, and the reason names it."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == f"bad_{name}"):
        client(SUCCESS | {name: value}).exchange(APPID, CODE)


@pytest.mark.parametrize("name", ["openid", "session_key"])
def test_field_left_out(name: str) -> None:
    """Without an openid or a session_key there is no identity."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.reason == f"bad_{name}"):
        client({key: value for key, value in SUCCESS.items() if key != name}).exchange(APPID, CODE)


def test_busy_is_asked_again() -> None:
    """-1 has not consumed the code, so the next answer counts."""
    assert client(refusal(-1), refusal(-1), SUCCESS).exchange(APPID, CODE) == IDENTITY


def test_busy_is_asked_twice_more_at_most() -> None:
    """After the third -1 WeChat is busy, and is left alone."""
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
def test_nothing_else_is_sent_twice(answer: object) -> None:
    """A code may be gone after any other answer, or after none, so it is not sent again."""
    wechat = ScriptedWeChat(answer, SUCCESS)
    with pytest.raises(WeChatError):
        client_of(wechat).exchange(APPID, CODE)
    assert len(wechat.requests) == 1


class SlowWeChat(ScriptedWeChat):
    """Answers once it is told to."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.asked, self.told = threading.Event(), threading.Event()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.asked.set()
        self.told.wait(10)
        return super().send(request, *args, **kwargs)


def test_too_many_at_once_are_busy() -> None:
    """Where as many wait as may, the next is told so at once, and its code is not sent."""
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
def test_place_is_given_back(answer: object) -> None:
    """Whatever an exchange ended in, the next has its place."""
    wechat = client(answer, SUCCESS)
    with contextlib.suppress(WeChatError):
        wechat.exchange(APPID, CODE)
    assert wechat.exchange(APPID, CODE) == IDENTITY


@pytest.mark.parametrize(
    "code", [CODE, "x&secret=y", "x%00", "x%26secret=y", "x#y", "x+y z", "x;appid=y", "the code is a mock one", "码"]
)
def test_code_is_one_parameter(code: str) -> None:
    """The query holds the four parameters of the documentation, the code as it is, and nothing besides."""
    wechat = ScriptedWeChat(SUCCESS)
    client_of(wechat).exchange(APPID, code)
    assert wechat.queries() == [
        [("appid", APPID), ("secret", APP_SECRET), ("js_code", code), ("grant_type", "authorization_code")]
    ]


def test_request_goes_to_code2session() -> None:
    """A code is exchanged by one GET of /sns/jscode2session."""
    wechat = ScriptedWeChat(SUCCESS)
    client_of(wechat).exchange(APPID, CODE)
    assert [(sent.method, urlsplit(sent.url or "").path) for sent in wechat.requests] == [
        ("GET", "/sns/jscode2session")
    ]


@pytest.mark.parametrize("errcode", MISCONFIGURED)
def test_misconfiguration_is_remembered(errcode: int) -> None:
    """What only the operator can mend is kept for `/readyz` to say."""
    wechat = client(refusal(errcode))
    with pytest.raises(WeChatMisconfigured):
        wechat.exchange(APPID, CODE)
    assert wechat.misconfigured == {APPID: errcode}


def test_misconfiguration_is_forgotten_once_mended() -> None:
    """A login that succeeds shows that the operator has mended it."""
    wechat = client(refusal(40125), SUCCESS)
    with pytest.raises(WeChatMisconfigured):
        wechat.exchange(APPID, CODE)
    wechat.exchange(APPID, CODE)
    assert wechat.misconfigured == {}


def test_misconfiguration_is_forgotten_once_the_code_is_to_blame() -> None:
    """The newest answer counts: one about the code shows that WeChat takes the AppID and the AppSecret again."""
    wechat = client(refusal(40125), refusal(40029))
    for error in (WeChatMisconfigured, CodeInvalid):
        with pytest.raises(error):
            wechat.exchange(APPID, CODE)
    assert wechat.misconfigured == {}


def test_misconfiguration_is_logged_with_its_cure(caplog: pytest.LogCaptureFixture) -> None:
    """The operator's line says which errcode, what to do, which address to add and WeChat's request id."""
    message = f"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: {RID}"
    with pytest.raises(WeChatMisconfigured):
        client(refusal(40164, message)).exchange(APPID, CODE)
    (line,) = [vars(record) for record in caplog.records if record.message == "wechat_misconfigured"]
    assert (line["levelname"], line["errcode"], line["rid"], line["ip"]) == ("ERROR", 40164, RID, "203.0.113.7")
    assert "IP list" in line["hint"]


@pytest.mark.parametrize(
    ("errmsg", "rid"),
    [
        pytest.param(f"invalid code, rid: {RID}", RID, id="rid"),
        pytest.param("code been used, hints: [ req_id: aBc-_9 ]", "aBc-_9", id="req_id"),
        pytest.param("no id at all", None, id="none"),
        pytest.param("rid: " + "x" * 10240, "x" * 64, id="too-long"),
    ],
)
def test_errcode_is_logged_with_its_rid(errmsg: str, rid: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Every refusal is logged with its number and WeChat's request id, which is all that support asks for."""
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
def test_log_tells_no_secret(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    """No line, not even one about WeChat's own words, holds the AppSecret, the code, an openid or a session_key."""
    with caplog.at_level(logging.DEBUG):
        try:
            client(answer).exchange(APPID, CODE)
        except WeChatError as error:
            logging.getLogger().info("raised", extra={"error": repr(error)}, exc_info=error)
    told = "\n".join(f"{vars(record)} {record.exc_text}" for record in caplog.records)
    assert [word for word in (APP_SECRET, CODE, OPENID, SESSION_KEY) if word in told] == []


# --- What needs an access token

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

#: Each interface: how it is called, what it answers when all is well, and its method and path.
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


def asked(wechat: ScriptedWeChat, ask: Ask) -> object:
    client = client_of(wechat)
    with client.slot() as deadline:
        return ask(client, deadline)


@each_interface
def test_an_interface_is_asked_at_its_place(ask: Ask, answer: object, place: tuple[str, str]) -> None:
    """Once, by the method that WeChat wants."""
    wechat = ScriptedWeChat(answer)
    asked(wechat, ask)
    assert [(sent.method, urlsplit(sent.url or "").path) for sent in wechat.requests] == [place]


@pytest.mark.parametrize("force", [False, True])
def test_an_access_token_is_asked_for(force: bool) -> None:
    """The AppSecret travels in the body, and it is said whether the former token is to end."""
    wechat = ScriptedWeChat(GIVEN)
    found = asked(wechat, lambda client, deadline: client.access_token(APPID, deadline, force=force))
    body = {"grant_type": "client_credential", "appid": APPID, "secret": APP_SECRET, "force_refresh": force}
    assert (json.loads(wechat.requests[0].body or ""), wechat.queries()) == (body, [[]])
    assert found == AccessToken(TOKEN, 7200)


def test_a_phone_number_is_asked_for_with_the_openid() -> None:
    """So that WeChat refuses a code that another user's phone gave."""
    wechat = ScriptedWeChat(OK | {"phone_info": PHONE_INFO})
    assert asked(wechat, INTERFACES["phone_number"][0]) == PhoneNumber(PHONE, PHONE, "86")
    assert json.loads(wechat.requests[0].body or "") == {"code": PHONE_CODE, "openid": OPENID}
    assert wechat.queries() == [[("access_token", TOKEN.reveal())]]


@pytest.mark.parametrize("name", ["check_session_key", "reset_session_key"])
def test_a_session_key_is_proved_and_not_sent(name: str) -> None:
    """What travels is a signature under it."""
    ask, answer, _ = INTERFACES[name]
    wechat = ScriptedWeChat(answer)
    asked(wechat, ask)
    expected = "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"
    sent = [("access_token", TOKEN.reveal()), ("openid", OPENID), ("signature", expected)]
    assert wechat.queries() == [[*sent, ("sig_method", "hmac_sha256")]]


@pytest.mark.parametrize(
    ("session_key", "expected"),
    [
        ("o0q0otL8aEzpcZL/FT9WsQ==", "46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128"),
        ("tiihtNczf5v6AKRyjwEUhQ==", "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"),
    ],
)
def test_the_signature_is_that_of_the_vectors(session_key: str, expected: str) -> None:
    """The text of the session_key is the key, as in WeChat's examples, and there is no message."""
    assert signature(Secret(session_key)) == expected


@pytest.mark.parametrize(
    ("session_key", "message", "expected"),
    [
        (
            "o0q0otL8aEzpcZL/FT9WsQ==",
            '{"foo":"bar"}',
            "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b",
        ),
        (
            "gDyVgzwa0mFz9uUP7M6GQQ==",
            "1559129713_67297598215591297148AP6DT9ybtniUJfbwx20afc706a711eefc",
            "b002b824688dd8593a6079e11d8c5e8734fbcb39a6d5906eb347bfbcad79c617",
        ),
        (
            "9hAb/NEYUlkaMBEsmFgzig==",
            '{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}',
            "089d9e8dc5d308977360c4b79ec600a93d736802802a807d634192328032f6c7",
        ),
    ],
)
def test_the_signature_is_made_as_in_wechats_examples(session_key: str, message: str, expected: str) -> None:
    """Those have a message; but for that it is the same computation."""
    assert signature(Secret(session_key), message) == expected


@pytest.mark.parametrize("errcode", [87007, 87009])
@pytest.mark.parametrize("name", ["check_session_key", "reset_session_key"])
def test_a_session_key_that_wechat_does_not_take_is_stale(name: str, errcode: int) -> None:
    """Gone, or another."""
    with pytest.raises(SessionKeyStale, check=lambda error: error.errcode == errcode):
        asked(ScriptedWeChat(refusal(errcode)), INTERFACES[name][0])


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
@each_interface
def test_a_refused_access_token_is_an_error_of_its_own(
    ask: Ask, answer: object, place: tuple[str, str], errcode: int
) -> None:
    """Whoever has lent it will want to lend another."""
    with pytest.raises(AccessTokenRefused, check=lambda error: error.errcode == errcode):
        asked(ScriptedWeChat(refusal(errcode)), ask)


@pytest.mark.parametrize("errcode", sorted(HINTS))
def test_what_only_the_operator_can_mend_is_so_everywhere(errcode: int) -> None:
    """Also where an access token is asked for."""
    with pytest.raises(WeChatMisconfigured, check=lambda error: error.errcode == errcode):
        asked(ScriptedWeChat(refusal(errcode)), INTERFACES["access_token"][0])


def test_a_phone_code_that_wechat_does_not_know_is_no_code_of_a_login() -> None:
    """Its user is to be told to tap again, not to log in."""
    with pytest.raises(PhoneCodeInvalid, check=lambda error: (error.errcode, error.rid) == (40029, RID)):
        asked(ScriptedWeChat(refusal(40029)), INTERFACES["phone_number"][0])


@pytest.mark.parametrize(
    "answer", [refusal(-1), refusal(40029), b"<html></html>", {}, requests.ReadTimeout(), requests.ConnectionError()]
)
@pytest.mark.parametrize("name", ["forced", "phone_number", "reset_session_key"])
def test_what_may_have_been_done_is_not_sent_twice(name: str, answer: object) -> None:
    """A phone code may be spent, a token or key replaced; that -1 spares it is said of a login's code alone."""
    ask, good, _ = INTERFACES[name]
    wechat = ScriptedWeChat(answer, good)
    with pytest.raises(WeChatError):
        asked(wechat, ask)
    assert len(wechat.requests) == 1


@pytest.mark.parametrize("name", ["access_token", "check_session_key"])
def test_what_changes_nothing_is_asked_again_after_busy(name: str) -> None:
    """As often as a login."""
    ask, answer, _ = INTERFACES[name]
    wechat = ScriptedWeChat(refusal(-1), refusal(-1), answer)
    asked(wechat, ask)
    assert len(wechat.requests) == 3


def test_only_what_carries_the_app_secret_shows_that_it_is_mended() -> None:
    """An access token outlives the AppSecret that it was got with."""
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
def test_no_interface_logs_a_secret(
    ask: Ask, answer: dict[str, object], place: object, errcode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor raises one: no access token, phone code, number, openid, session_key or AppSecret."""
    secrets = (APP_SECRET, TOKEN.reveal(), PHONE_CODE, PHONE, OPENID, SESSION_KEY)
    echo = refusal(errcode, " ".join(secrets)) if errcode else answer
    with caplog.at_level(logging.DEBUG):
        try:
            asked(ScriptedWeChat(echo), ask)
        except WeChatError as error:
            logging.getLogger().info("raised", extra={"error": repr(error)}, exc_info=error)
    told = "\n".join(f"{vars(record)} {record.exc_text}" for record in caplog.records)
    assert [word for word in secrets if word in told] == []
