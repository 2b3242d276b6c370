"""WeChat's answers and what they mean: each errcode its own error, everything odd unreachable, nothing sent twice."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tests.conftest import APP_SECRET, APPID, SESSION_KEY
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
from wxauth.identity import Identity, Secret, User
from wxauth.transport import Transport
from wxauth.wechat import WeChatClient

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
    return WeChatClient({APPID: Secret(APP_SECRET)}, Transport("http://127.0.0.1:1", wechat), timeout=4, at_once=1)


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
    ("body", "cause"),
    [
        pytest.param(b"", "not_json", id="empty"),
        pytest.param(b"<html>502 Bad Gateway</html>", "not_json", id="html"),
        pytest.param(b"null", "not_json", id="null"),
        pytest.param(b"[]", "not_json", id="list"),
        pytest.param(b'""', "not_json", id="text"),
        pytest.param(b"0", "not_json", id="number"),
        pytest.param(b"NaN", "not_json", id="NaN"),
        pytest.param(b'{"errcode": NaN}', "not_json", id="errcode-NaN"),
        pytest.param(b'{"errcode": 1e999}', "bad_errcode", id="errcode-infinite"),
        pytest.param(b'{"errcode": ' + b"9" * 5000 + b"}", "not_json", id="errcode-of-5000-digits"),
        pytest.param(b"[" * 10000 + b"]" * 10000, "not_json", id="nested-lists"),
        pytest.param(b'{"a":' * 10000 + b"0" + b"}" * 10000, "not_json", id="nested-objects"),
        pytest.param(b'{"openid": "o1", "openid": "o2", "session_key": "k"}', "not_json", id="duplicate-keys"),
        pytest.param(b'{"openid": "\xff", "session_key": "k"}', "not_json", id="not-utf8"),
        pytest.param(b'{"openid": "o", "session_key": "k"', "not_json", id="cut-short"),
        pytest.param(b'{"openid": "o", "session_key": "k"} {}', "not_json", id="two-objects"),
    ],
)
def test_answer_that_is_no_json_object(body: bytes, cause: str) -> None:
    """An answer that WeChat can't have given counts as none."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.cause == cause):
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
    """A field that is not of WeChat's form makes no identity, and the cause names it."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.cause == f"bad_{name}"):
        client(SUCCESS | {name: value}).exchange(APPID, CODE)


@pytest.mark.parametrize("name", ["openid", "session_key"])
def test_field_left_out(name: str) -> None:
    """Without an openid or a session_key there is no identity."""
    with pytest.raises(WeChatUnreachable, check=lambda error: error.cause == f"bad_{name}"):
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
    assert "IP list" in line["cure"]


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
