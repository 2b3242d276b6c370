"""WeChat's pushes: whose they are, and what they say, in both modes and both forms."""

from __future__ import annotations

import base64
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests import vectors
from wxauth.models import Secret
from wxauth.sandbox import sealing as sealer
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.wechat.push import FRESH_FOR, HINTS, InvalidMessage, Message, PushDecoder

APPID = "wx0123456789abcdef"
TOKEN = "pushToken0123456789"
AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
NOW = 1_700_000_000
EVENT = "user_authorization_cancellation"
FAKE = FakeWeChat({}, lambda: NOW)
PLAIN, SAFE = PushDecoder(Secret(TOKEN), None), PushDecoder(Secret(TOKEN), Secret(AES_KEY))

MODES = pytest.mark.parametrize(
    ("postbox", "aes_key"), [pytest.param(PLAIN, "", id="plain"), pytest.param(SAFE, AES_KEY, id="safe")]
)
FORMS = pytest.mark.parametrize("form", ["json", "xml"])


def reason(postbox: PushDecoder, query: dict[str, str], body: bytes, now: float = NOW) -> str:
    """For which of its reasons the message is refused."""
    with pytest.raises(InvalidMessage) as caught:
        postbox.decode(query, body, now)
    assert caught.value.reason in HINTS
    return caught.value.reason


def signed(**more: str) -> dict[str, str]:
    """The query of plain mode."""
    query = {"timestamp": str(NOW), "nonce": "7", **more}
    return {**query, "signature": sealer.sign_push(TOKEN, query["timestamp"], query["nonce"])}


def safe(sealed: str) -> tuple[dict[str, str], bytes]:
    """The request of safe mode that has `sealed` in it."""
    query = {"timestamp": str(NOW), "nonce": "7"}
    query["msg_signature"] = sealer.sign_push(TOKEN, *query.values(), sealed)
    return query, sealer.compact({"Encrypt": sealed}).encode()


# --- The official examples


def test_the_official_check_of_the_address_is_echoed() -> None:
    """With what WeChat sent for it."""
    postbox = PushDecoder(vectors.PUSH_TOKEN, None)
    assert postbox.echo(vectors.ECHO_QUERY, 1714036504) == "4375120948345356249"


def test_the_check_of_the_address_is_the_same_in_safe_mode() -> None:
    """There is nothing in it to seal."""
    postbox = PushDecoder(vectors.PUSH_TOKEN, vectors.PUSH_AES_KEY)
    assert postbox.echo(vectors.ECHO_QUERY, 1714036504) == "4375120948345356249"


def test_the_official_message_in_plain_mode_is_read() -> None:
    """It is of no user."""
    found = PushDecoder(vectors.PUSH_TOKEN, None).decode(vectors.PLAIN_QUERY, vectors.PLAIN_BODY, 1714037059)
    assert found == Message("debug_demo", None, None)


def test_the_official_message_in_safe_mode_is_read() -> None:
    """And its app is the one that was sealed with it."""
    body = sealer.compact({"ToUserName": "gh_97417a04a28d", "Encrypt": vectors.SAFE_ENCRYPT}).encode()
    postbox = PushDecoder(vectors.PUSH_TOKEN, vectors.PUSH_AES_KEY)
    assert postbox.decode(vectors.SAFE_QUERY, body, 1714112445) == Message("debug_demo", vectors.PUSH_APPID, None)


# --- What is read


@MODES
@FORMS
def test_a_message_is_read(postbox: PushDecoder, aes_key: str, form: str) -> None:
    """Whichever mode and form was chosen in the console."""
    found = postbox.decode(*FAKE.push(APPID, "alice", EVENT, TOKEN, aes_key, form), NOW)
    assert (found.event, found.appid) == (EVENT, APPID)
    assert found.openid is not None
    assert found.openid.startswith("oSANDBOX")


@FORMS
def test_a_message_of_both_modes_is_read_as_the_safe_one(form: str) -> None:
    """Where the console says compatible, what is not sealed is not looked at."""
    query, body = FAKE.push(APPID, "alice", EVENT, TOKEN, AES_KEY, form)
    lie = b'{"Event":"lie",' if form == "json" else b"<xml><Event>lie</Event>"
    both = body.replace(b"{", lie, 1).replace(b"<xml>", lie, 1)
    assert both != body
    assert SAFE.decode(query, both, NOW).event == EVENT


@settings(deadline=None)
@given(
    text=st.text(st.characters(exclude_characters="\r]", exclude_categories=["Cs", "Cc"]), min_size=1),
    key=st.binary(min_size=32, max_size=32),
)
def test_what_is_sealed_opens(text: str, key: bytes) -> None:
    """Whatever it says, under any key."""
    aes_key = base64.b64encode(key).decode().rstrip("=")
    sealed = sealer.seal_push(aes_key, APPID, sealer.written({"Event": text}, "json"))
    found = PushDecoder(Secret(TOKEN), Secret(aes_key)).decode(*safe(sealed), NOW)
    assert found == Message(text, APPID, None)


@pytest.mark.parametrize(
    ("body", "event"),
    [
        pytest.param(b"{}", None, id="nothing"),
        pytest.param(b'{"Event":1}', None, id="a number"),
        pytest.param(b'{"Event":["a"]}', None, id="a list"),
        pytest.param(b'{"Event":"a","Other":{"Event":"b"}}', "a", id="another's in it"),
        pytest.param(b"<xml/>", None, id="nothing, in XML"),
        pytest.param(b" \n<?xml version='1.0'?><xml><Event>a</Event></xml>"[2:], "a", id="with a head"),
        pytest.param(b"\n<xml><Event>a</Event></xml>\n", "a", id="with blank lines"),
        pytest.param(b"<xml><Event><![CDATA[a<b]]></Event></xml>", "a<b", id="CDATA"),
        pytest.param(b"<xml><Event>a&amp;b&#x4e2d;</Event></xml>", "a&b中", id="escapes"),
        pytest.param(b"<xml><Event>a<b>c</b>d</Event></xml>", "ad", id="an element in it"),
        pytest.param(b"<xml><List><Event>b</Event></List><Event>a</Event></xml>", "a", id="another's deeper"),
        pytest.param(b"<xml><Event>a</Event><Event>b</Event></xml>", None, id="twice"),
        pytest.param(b"<xml><I>1</I><I>2</I><Event>a</Event></xml>", "a", id="a list beside it"),
        pytest.param(b"<Event>a</Event>", None, id="the root"),
    ],
)
def test_an_event_is_read_from_its_place(body: bytes, event: str | None) -> None:
    """Directly under the root, once, and a text; else the message names none."""
    assert PLAIN.decode(signed(), body, NOW).event == event


# --- What is refused


@MODES
@pytest.mark.parametrize("part", ["timestamp", "nonce", "signature", "msg_signature"])
@pytest.mark.parametrize("spoil", ["", "0", "签", "\ud800"])
def test_what_is_not_signed_is_refused(postbox: PushDecoder, aes_key: str, part: str, spoil: str) -> None:
    """Every part of the signature that belongs to the mode."""
    query, body = FAKE.push(APPID, "alice", EVENT, TOKEN, aes_key)
    if part == ("signature" if aes_key else "msg_signature"):
        # It is not of this mode.
        assert postbox.decode({**query, part: spoil}, body, NOW).event == EVENT
    else:
        assert reason(postbox, {**query, part: spoil}, body) == "signature"


@MODES
def test_nothing_at_all_is_refused(postbox: PushDecoder, aes_key: str) -> None:
    """An empty query signs nothing."""
    assert reason(postbox, {}, b'{"Encrypt":""}') == "signature"


@MODES
def test_another_token_is_refused(postbox: PushDecoder, aes_key: str) -> None:
    """Whoever does not know ours is not WeChat."""
    assert reason(postbox, *FAKE.push(APPID, "alice", EVENT, "other", aes_key)) == "signature"


@MODES
@pytest.mark.parametrize(("ahead", "is_fresh"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_an_old_message_is_refused(postbox: PushDecoder, aes_key: str, ahead: int, is_fresh: bool) -> None:
    """A request that somebody has recorded is worth nothing after five minutes."""
    query, body = FAKE.push(APPID, "alice", EVENT, TOKEN, aes_key)
    assert FRESH_FOR == 300
    if is_fresh:
        assert postbox.decode(query, body, NOW + ahead).event == EVENT
    else:
        assert reason(postbox, query, body, NOW + ahead) == "time"


@pytest.mark.parametrize("timestamp", ["", "0", "x", f"0{NOW}", f"{NOW} ", f"{NOW}.0", "١٧٠٠٠٠٠٠٠٠", "9" * 5000])
def test_a_time_is_ten_digits(timestamp: str) -> None:
    """In one spelling, though the signature hold."""
    assert reason(PLAIN, signed(timestamp=timestamp), b"{}") == "time"


def test_an_old_check_of_the_address_is_refused() -> None:
    """Likewise."""
    with pytest.raises(InvalidMessage, match="time"):
        PushDecoder(vectors.PUSH_TOKEN, None).echo(vectors.ECHO_QUERY, NOW)


@FORMS
def test_a_message_that_is_not_sealed_is_refused_in_safe_mode(form: str) -> None:
    """Or the key would protect nothing."""
    assert reason(SAFE, *FAKE.push(APPID, "alice", EVENT, TOKEN, form=form)) == "not_sealed"


@FORMS
def test_a_sealed_message_needs_a_key(form: str) -> None:
    """The operator is told which variable is missing."""
    assert reason(PLAIN, *FAKE.push(APPID, "alice", EVENT, TOKEN, AES_KEY, form)) == "sealed"


def test_another_key_opens_nothing() -> None:
    """The message is WeChat's, but one of the two has mistyped the key."""
    other = base64.b64encode(bytes(32)).decode().rstrip("=")
    assert reason(SAFE, *FAKE.push(APPID, "alice", EVENT, TOKEN, other)) == "aes_key"


def test_a_message_about_two_apps_is_refused() -> None:
    """What it says must be what it was sealed for."""
    sealed = sealer.seal_push(AES_KEY, APPID, sealer.written({"Event": EVENT, "AppID": "wxfedcba9876543210"}, "json"))
    assert reason(SAFE, *safe(sealed)) == "app"


@pytest.mark.parametrize(
    ("sealed", "expected"),
    [
        pytest.param("A", "form", id="no base64"),
        pytest.param("", "form", id="nothing"),
        pytest.param("AAAA", "form", id="less than a block"),
        pytest.param("签", "form", id="Chinese"),
        pytest.param("A" * 22 + "==", "aes_key", id="a block of anything"),
        pytest.param(sealer.seal_push(AES_KEY, APPID, b"hello"), "form", id="no JSON"),
        pytest.param(sealer.seal_push(AES_KEY, APPID, b""), "form", id="empty"),
    ],
)
def test_what_is_signed_may_still_be_nothing(sealed: str, expected: str) -> None:
    """Whoever knows the token alone gets no further."""
    query = {"timestamp": str(NOW), "nonce": "7"}
    query["msg_signature"] = sealer.sign_push(TOKEN, *query.values(), sealed)
    assert reason(SAFE, query, sealer.written({"Encrypt": sealed}, "json")) == expected


def test_half_a_letter_is_refused() -> None:
    """JSON can say it, and nothing can sign it."""
    assert reason(SAFE, signed(msg_signature="0" * 40), b'{"Encrypt": "\\ud800"}') == "signature"


BOMB = b"""<?xml version="1.0"?><!DOCTYPE xml [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><xml><Event>&b;</Event></xml>"""
ODD: dict[str, bytes] = {
    "nothing": b"",
    "words": b"hello",
    "half": b'{"Event":',
    "a list": b"[]",
    "a name twice": b'{"Event":"a","Event":"b"}',
    "not UTF-8": b'{"Event":"\xff"}',
    "deep": b'{"a":' * 3000,
    "half of XML": b"<xml><Event>a</Event>",
    "XML not UTF-8": b"<xml><Event>\xff</Event></xml>",
    "an entity that is none": b"<xml><Event>&a;</Event></xml>",
    "entities": BOMB,
    "a file": BOMB.replace(b'"ha"', b'SYSTEM "file:///etc/passwd"'),
    "entities in UTF-16": BOMB.decode().encode("utf-16-le"),
    "a declaration of nothing": b"<!DOCTYPE xml><xml><Event>a</Event></xml>",
    "a declaration elsewhere": b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml><Event>a</Event></xml>',
    "two roots": b"<xml/><xml/>",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_an_odd_body_is_refused(body: bytes) -> None:
    """In whatever way; and what declares entities is not read as far as where they would grow."""
    assert reason(PLAIN, signed(), body) == "form"
    assert reason(SAFE, *safe(sealer.seal_push(AES_KEY, APPID, body))) == "form"


@settings(deadline=None, max_examples=200)
@given(body=st.binary(max_size=200) | st.text(alphabet="<>xml/![]&;\"'DOCTYPE {}:,", max_size=60).map(str.encode))
def test_any_body_is_a_message_or_refused(body: bytes) -> None:
    """And nothing else happens."""
    for postbox in (PLAIN, SAFE):
        try:
            found: Any = postbox.decode(signed(), body, NOW)
        except InvalidMessage:
            continue
        assert isinstance(found, Message)


def test_a_message_prints_no_openid() -> None:
    """It may stand in a traceback."""
    assert "oALICE" not in repr(Message(EVENT, APPID, "oALICE"))
