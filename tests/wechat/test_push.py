"""PushDecoder: signature, decryption and parsing, in both modes and both formats."""

from __future__ import annotations

import base64
import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.support import vectors
from wxauth.models import Secret
from wxauth.sandbox import crypto
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
    ("decoder", "aes_key"), [pytest.param(PLAIN, "", id="plain"), pytest.param(SAFE, AES_KEY, id="safe")]
)
FORMS = pytest.mark.parametrize("form", ["json", "xml"])


def reason(decoder: PushDecoder, query: dict[str, str], body: bytes, now: float = NOW) -> str:
    """Return the reason for which the message is refused."""
    with pytest.raises(InvalidMessage) as caught:
        decoder.decode(query, body, now)
    assert str(caught.value) in HINTS
    return str(caught.value)


def signed(**more: str) -> dict[str, str]:
    """Return the query of plain mode."""
    query = {"timestamp": str(NOW), "nonce": "7", **more}
    return {**query, "signature": crypto.sign_push(TOKEN, query["timestamp"], query["nonce"])}


def safe(sealed: str) -> tuple[dict[str, str], bytes]:
    """Return a request of safe mode with `sealed` in it."""
    query = {"timestamp": str(NOW), "nonce": "7"}
    query["msg_signature"] = crypto.sign_push(TOKEN, *query.values(), sealed)
    return query, crypto.compact({"Encrypt": sealed}).encode()


# --- The official examples


def test_echo_returns_the_official_echostr() -> None:
    decoder = PushDecoder(vectors.PUSH_TOKEN, None)
    assert decoder.echo(vectors.ECHO_QUERY, 1714036504) == "4375120948345356249"


def test_echo_in_safe_mode_returns_the_official_echostr() -> None:
    """Nothing in it is encrypted."""
    decoder = PushDecoder(vectors.PUSH_TOKEN, vectors.PUSH_AES_KEY)
    assert decoder.echo(vectors.ECHO_QUERY, 1714036504) == "4375120948345356249"


def test_decode_reads_the_official_plain_message() -> None:
    """It names no user."""
    found = PushDecoder(vectors.PUSH_TOKEN, None).decode(vectors.PLAIN_QUERY, vectors.PLAIN_BODY, 1714037059)
    assert found == Message("debug_demo", None, None)


def test_decode_reads_the_official_safe_message() -> None:
    """Its appid is the one that was encrypted with it."""
    body = crypto.compact({"ToUserName": "gh_97417a04a28d", "Encrypt": vectors.SAFE_ENCRYPT}).encode()
    decoder = PushDecoder(vectors.PUSH_TOKEN, vectors.PUSH_AES_KEY)
    assert decoder.decode(vectors.SAFE_QUERY, body, 1714112445) == Message("debug_demo", vectors.PUSH_APPID, None)


OFFICIAL_SAFE_BODY = crypto.compact({"Encrypt": vectors.SAFE_ENCRYPT}).encode()
OFFICIAL_PLAIN = (None, vectors.PLAIN_QUERY, vectors.PLAIN_BODY, 1714037059)
OFFICIAL_SAFE = (vectors.PUSH_AES_KEY, vectors.SAFE_QUERY, OFFICIAL_SAFE_BODY, 1714112445)


@pytest.mark.parametrize(
    ("aes_key", "query", "body", "now"),
    [pytest.param(*OFFICIAL_PLAIN, id="plain"), pytest.param(*OFFICIAL_SAFE, id="safe")],
)
@pytest.mark.parametrize("part", ["token", "timestamp", "nonce"])
def test_official_signature_covers_each_part(
    aes_key: Secret | None, query: dict[str, str], body: bytes, now: float, part: str
) -> None:
    """Another token, time or nonce has another signature."""
    parts = {"token": vectors.PUSH_TOKEN.reveal(), **query}
    parts[part] = parts[part][:-1] + "!"
    assert reason(PushDecoder(Secret(parts["token"]), aes_key), parts, body, now) == "signature"


def test_official_signature_covers_the_encrypted_text() -> None:
    aes_key, query, _, now = OFFICIAL_SAFE
    body = crypto.compact({"Encrypt": vectors.SAFE_ENCRYPT[:-1] + "!"}).encode()
    assert reason(PushDecoder(vectors.PUSH_TOKEN, aes_key), query, body, now) == "signature"


# --- Accepted messages


@MODES
@FORMS
def test_decode_returns_event_appid_and_openid(decoder: PushDecoder, aes_key: str, form: str) -> None:
    found = decoder.decode(*FAKE.push(APPID, "alice", EVENT, TOKEN, aes_key, form), NOW)
    assert (found.event, found.appid) == (EVENT, APPID)
    assert found.openid is not None
    assert found.openid.startswith("oSANDBOX")


@FORMS
def test_decode_in_safe_mode_ignores_the_plain_fields(form: str) -> None:
    """The console's compatible mode sends both."""
    query, body = FAKE.push(APPID, "alice", EVENT, TOKEN, AES_KEY, form)
    lie = b'{"Event":"lie",' if form == "json" else b"<xml><Event>lie</Event>"
    both = body.replace(b"{", lie, 1).replace(b"<xml>", lie, 1)
    assert both != body
    assert SAFE.decode(query, both, NOW).event == EVENT


@settings(deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    key=st.binary(min_size=32, max_size=32),
)
def test_decode_returns_what_was_encrypted(text: str, key: bytes) -> None:
    aes_key = base64.b64encode(key).decode().rstrip("=")
    sealed = crypto.encrypt_push(aes_key, APPID, crypto.serialize({"MsgType": "event", "Event": text}, "json"))
    found = PushDecoder(Secret(TOKEN), Secret(aes_key)).decode(*safe(sealed), NOW)
    assert found == Message(text, APPID, None)


@pytest.mark.parametrize(
    ("body", "event"),
    [
        pytest.param(b"{}", None, id="nothing"),
        pytest.param(b'{"MsgType":"event","Event":1}', None, id="a number"),
        pytest.param(b'{"MsgType":"event","Event":["a"]}', None, id="a list"),
        pytest.param(b'{"MsgType":"event","Event":"a","Other":{"Event":"b"}}', "a", id="a nested event"),
        pytest.param(b"<xml/>", None, id="nothing, in XML"),
        pytest.param(
            b" \n<?xml version='1.0'?><xml><MsgType>event</MsgType><Event>a</Event></xml>"[2:], "a", id="with a head"
        ),
        pytest.param(b"\n<xml><MsgType>event</MsgType><Event>a</Event></xml>\n", "a", id="with blank lines"),
        pytest.param(b"<xml><MsgType>event</MsgType><Event><![CDATA[a<b]]></Event></xml>", "a<b", id="CDATA"),
        pytest.param(b"<xml><MsgType>event</MsgType><Event>a&amp;b&#x4e2d;</Event></xml>", "a&b中", id="escapes"),
        pytest.param(b"<xml><MsgType>event</MsgType><Event>a<b>c</b>d</Event></xml>", "a", id="an element inside"),
        pytest.param(
            b"<xml><MsgType>event</MsgType><List><Event>b</Event></List><Event>a</Event></xml>",
            "a",
            id="a deeper event",
        ),
        pytest.param(b"<xml><MsgType>event</MsgType><Event>a</Event><Event>b</Event></xml>", None, id="twice"),
        pytest.param(
            b"<xml><MsgType>event</MsgType><I>1</I><I>2</I><Event>a</Event></xml>", "a", id="a list besides"
        ),
        pytest.param(b"<Event>a</Event>", None, id="the root"),
    ],
)
def test_decode_reads_the_event_only_as_one_text_below_the_root(body: bytes, event: str | None) -> None:
    assert PLAIN.decode(signed(), body, NOW).event == event


#: Texts of users that neither XML 1.0 nor strict JSON allows as they are.
TEXTS = {
    "STX": "a\x02b",
    "DLE and ESC": "\x10\x1b[31m",
    "NUL": "a\0b",
    "U+FFFE": "a\ufffeb",
    "DEL and C1": "\x7f\x85",
    "an emoji sequence": "👩\u200d💻",
    "]]>": "a]]>b",
    "]]> at the end": "a]]>",
    "]]> twice": "]]>]]>",
    "]]> and another end tag": "a]]></Event>",
    "CDATA": "<![CDATA[a]]>",
    "an element": "<OpenID>oALICE</OpenID>",
    "an element with CDATA": "<Event><![CDATA[a]]></Event>",
    "a comment": "<!-- a",
    "a DOCTYPE": "<!DOCTYPE xml>",
    "entities": "a & b &amp; &nbsp; &#2; &x;",
    "quotes": "\"'\\",
}


def raw_json(message: dict[str, str]) -> bytes:
    """Return JSON in which only quotes and backslashes are escaped, as WeChat sends it."""
    texts = {name: re.sub(r'(["\\\\])', r"\\\1", text) for name, text in message.items()}
    return ("{" + ",".join(f'"{name}":"{text}"' for name, text in texts.items()) + "}").encode()


@MODES
@FORMS
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_decode_takes_any_text_of_a_user(decoder: PushDecoder, aes_key: str, form: str, text: str) -> None:
    message = {"FromUserName": "oBOB", "MsgType": "event", "Content": text, "Event": EVENT, "OpenID": "oALICE"}
    body = raw_json(message) if form == "json" else crypto.serialize(message, form)
    query, body = safe(crypto.encrypt_push(AES_KEY, APPID, body)) if aes_key else (signed(), body)
    found = decoder.decode(query, body, NOW)
    assert (found.event, found.openid) == (EVENT, "oALICE")


@pytest.mark.parametrize("reference", ["&#2;", "&#x2;", "&#xFFFE;", "&#0;", "&#xD83D;&#xDE00;", "&#x110000;"])
def test_decode_takes_a_reference_to_any_character(reference: str) -> None:
    """The field with the reference does not become another openid."""
    xml = f"<xml><MsgType>event</MsgType><Event>{EVENT}</Event><OpenID>oALICE{reference}</OpenID></xml>"
    found = PLAIN.decode(signed(), xml.encode(), NOW)
    assert found.event == EVENT
    assert found.openid is not None
    assert found.openid.removeprefix("oALICE").strip("\ufffd") == ""
    assert found.openid != "oALICE"


FIELDS_OF_A_USER = "<Event>user_authorization_cancellation</Event><OpenID>oVICTIM</OpenID><AppID>wx1</AppID>"


@pytest.mark.parametrize("more", ["", "<MsgType>event</MsgType>", "<MsgType><![CDATA[event]]></MsgType>"])
@pytest.mark.parametrize("end", ["<Content><![CDATA[", "<Other><![CDATA[", ""])
def test_user_cannot_write_an_event_into_a_text(more: str, end: str) -> None:
    """WeChat does not escape the end of CDATA in a text. Either the message is refused, or it is no event."""
    text = f"]]></Content>{more}{FIELDS_OF_A_USER}{end}"
    message = {"FromUserName": "oBOB", "MsgType": "text", "Content": text, "MsgId": "1"}
    try:
        found = PLAIN.decode(signed(), crypto.serialize(message, "xml"), NOW)
    except InvalidMessage:
        return
    assert found.event is None


# --- Refused messages


@MODES
@pytest.mark.parametrize("part", ["timestamp", "nonce", "signature", "msg_signature"])
@pytest.mark.parametrize("spoil", ["", "0", "签", "\ud800"])
def test_decode_refuses_a_changed_part_of_the_signature(
    decoder: PushDecoder, aes_key: str, part: str, spoil: str
) -> None:
    query, body = FAKE.push(APPID, "alice", EVENT, TOKEN, aes_key)
    if part == ("signature" if aes_key else "msg_signature"):
        # This mode does not use it.
        assert decoder.decode({**query, part: spoil}, body, NOW).event == EVENT
    else:
        assert reason(decoder, {**query, part: spoil}, body) == "signature"


@MODES
def test_decode_refuses_an_empty_query(decoder: PushDecoder, aes_key: str) -> None:
    assert reason(decoder, {}, b'{"Encrypt":""}') == "signature"


@MODES
def test_decode_refuses_another_token(decoder: PushDecoder, aes_key: str) -> None:
    assert reason(decoder, *FAKE.push(APPID, "alice", EVENT, "other", aes_key)) == "signature"


@MODES
@pytest.mark.parametrize(("ahead", "is_fresh"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_decode_refuses_a_message_older_than_five_minutes(
    decoder: PushDecoder, aes_key: str, ahead: int, is_fresh: bool
) -> None:
    """A recorded request cannot be sent again later."""
    query, body = FAKE.push(APPID, "alice", EVENT, TOKEN, aes_key)
    assert FRESH_FOR == 300
    if is_fresh:
        assert decoder.decode(query, body, NOW + ahead).event == EVENT
    else:
        assert reason(decoder, query, body, NOW + ahead) == "time"


@pytest.mark.parametrize("timestamp", ["", "0", "x", f"0{NOW}", f"{NOW} ", f"{NOW}.0", "١٧٠٠٠٠٠٠٠٠", "9" * 5000])
def test_decode_refuses_a_timestamp_that_is_not_ten_digits(timestamp: str) -> None:
    """The signature does not matter."""
    assert reason(PLAIN, signed(timestamp=timestamp), b"{}") == "time"


def test_echo_refuses_an_old_request() -> None:
    with pytest.raises(InvalidMessage, match="time"):
        PushDecoder(vectors.PUSH_TOKEN, None).echo(vectors.ECHO_QUERY, NOW)


@FORMS
def test_decode_in_safe_mode_refuses_a_plain_message(form: str) -> None:
    assert reason(SAFE, *FAKE.push(APPID, "alice", EVENT, TOKEN, form=form)) == "aes_key"


@FORMS
def test_decode_without_a_key_refuses_an_encrypted_message(form: str) -> None:
    """The reason tells the operator which variable is missing."""
    assert reason(PLAIN, *FAKE.push(APPID, "alice", EVENT, TOKEN, AES_KEY, form)) == "aes_key"


def test_decode_with_another_key_gives_the_reason_aes_key() -> None:
    """The token is right, so the operator has mistyped the key. Some messages have a valid padding by chance."""
    other = base64.b64encode(bytes(32)).decode().rstrip("=")
    reasons = {reason(SAFE, *FAKE.push(APPID, "alice", EVENT, TOKEN, other)) for _ in range(2000)}
    assert reasons == {"aes_key"}


def test_decode_refuses_a_message_with_two_appids() -> None:
    """The appid inside must be the one that was encrypted with it."""
    sealed = crypto.encrypt_push(
        AES_KEY, APPID, crypto.serialize({"Event": EVENT, "AppID": "wxfedcba9876543210"}, "json")
    )
    assert reason(SAFE, *safe(sealed)) == "app"


@pytest.mark.parametrize(
    ("sealed", "expected"),
    [
        pytest.param("A", "form", id="no base64"),
        pytest.param("", "form", id="nothing"),
        pytest.param("AAAA", "form", id="less than a block"),
        pytest.param("签", "form", id="Chinese"),
        pytest.param("A" * 22 + "==", "aes_key", id="a random block"),
        pytest.param(crypto.encrypt_push(AES_KEY, APPID, b"hello"), "content", id="no JSON"),
        pytest.param(crypto.encrypt_push(AES_KEY, APPID, b""), "content", id="empty"),
    ],
)
def test_decode_refuses_signed_but_malformed_data(sealed: str, expected: str) -> None:
    """An attacker who knows only the token gets no further."""
    query = {"timestamp": str(NOW), "nonce": "7"}
    query["msg_signature"] = crypto.sign_push(TOKEN, *query.values(), sealed)
    assert reason(SAFE, query, crypto.serialize({"Encrypt": sealed}, "json")) == expected


def test_decode_refuses_a_lone_surrogate() -> None:
    """JSON can express it, but nothing can sign it."""
    assert reason(SAFE, signed(msg_signature="0" * 40), b'{"Encrypt": "\\ud800"}') == "signature"


BOMB = b"""<?xml version="1.0"?><!DOCTYPE xml [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><xml><Event>&b;</Event></xml>"""
ODD: dict[str, bytes] = {
    "nothing": b"",
    "words": b"hello",
    "truncated JSON": b'{"Event":',
    "a list": b"[]",
    "a duplicate name": b'{"Event":"a","Event":"b"}',
    "not UTF-8": b'{"Event":"\xff"}',
    "deep": b'{"a":' * 3000,
    "truncated XML": b"<xml><Event>a</Event>",
    "CDATA without an end": b"<xml><Event><![CDATA[a</Event></xml>",
    "a root of CDATA without an end": b"<xml><![CDATA[a",
    "XML not UTF-8": b"<xml><Event>\xff</Event></xml>",
    "an undefined entity": b"<xml><Event>&a;</Event></xml>",
    "entity expansion": BOMB,
    "an external file": BOMB.replace(b'"ha"', b'SYSTEM "file:///etc/passwd"'),
    "entities in UTF-16": BOMB.decode().encode("utf-16-le"),
    "an empty DOCTYPE": b"<!DOCTYPE xml><xml><Event>a</Event></xml>",
    "an external DOCTYPE": b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml><Event>a</Event></xml>',
    "two roots": b"<xml/><xml/>",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_decode_refuses_a_malformed_body(body: bytes) -> None:
    """An XML document type is refused before an entity is expanded."""
    assert reason(PLAIN, signed(), body) == "content"
    assert reason(SAFE, *safe(crypto.encrypt_push(AES_KEY, APPID, body))) == "content"
    assert reason(SAFE, signed(), body) == "form"


@settings(deadline=None, max_examples=200)
@given(body=st.binary(max_size=200) | st.text(alphabet="<>xml/![]&;\"'DOCTYPE {}:,", max_size=60).map(str.encode))
def test_decode_of_any_body_returns_or_raises_invalid_message(body: bytes) -> None:
    for decoder in (PLAIN, SAFE):
        try:
            found: Any = decoder.decode(signed(), body, NOW)
        except InvalidMessage:
            continue
        assert isinstance(found, Message)


def test_repr_of_a_message_hides_the_openid() -> None:
    """A traceback can hold it."""
    assert "oALICE" not in repr(Message(EVENT, APPID, "oALICE"))
