"""Verify, decrypt and parse the messages that WeChat pushes.

With an AES key (safe mode) the signature covers the whole message. Without one it covers only the time and a nonce:
someone who has seen a signed request can then send another body with it while the time is fresh.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape, unescape
from typing import Final
from xml.etree import ElementTree

from ..models import Secret
from ..strict_json import parse
from .crypto import BLOCK, decode_blocks, decrypt, is_sha1

#: Seconds by which the time of a message may differ from ours. WeChat repeats a message for about 15 seconds.
FRESH_FOR: Final = 300
TIMESTAMP: Final = re.compile(r"[1-9][0-9]{9}")
#: A decrypted message: 16 random bytes, the length of the content, the content, the appid; padded to 32 bytes.
HEAD: Final = struct.Struct(">16sI")
PAD_TO: Final = 32
#: U+FFFD, in place of a character. To drop the character could make another openid.
REPLACEMENT: Final = "\ufffd"
#: The fields that this service reads.
FIELDS: Final = ("Encrypt", "MsgType", "Event", "AppID", "OpenID")

Query = Mapping[str, str]


class InvalidMessage(Exception):
    """The message is not from WeChat, or not for us. Its text is a key of HINTS; only the operator sees it."""


HINTS: Final[Mapping[str, str]] = {
    "signature": "check that WXAUTH_PUSH_TOKEN is the Token in the WeChat console",
    "time": f"the message is not within {FRESH_FOR} seconds of this server's clock: check the clock",
    "aes_key": "set WXAUTH_PUSH_AES_KEY to the EncodingAESKey in the WeChat console, only with the safe mode there",
    "form": "the message is not the XML or the JSON that WeChat sends",
    "content": "a user's text breaks the form of the message; it is acknowledged, and has no effect",
    "app": "the message does not name exactly one mini program that is configured here",
}


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of a message that this service needs. A field that the message lacks is None."""

    event: str | None
    appid: str | None
    openid: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class PushDecoder:
    """Decodes messages with the Token and the EncodingAESKey of the WeChat console.

    With `aes_key`, only encrypted messages are accepted.
    """

    token: Secret
    aes_key: Secret | None

    def echo(self, query: Query, now: float) -> str:
        """Return the answer to the console's check of the URL. Raises InvalidMessage if it is not signed."""
        self._verify("signature", query, now)
        return query.get("echostr", "")

    def decode(self, query: Query, body: bytes, now: float) -> Message:
        """Return the message in `body`. Raises InvalidMessage."""
        if self.aes_key:
            return self._decode_encrypted(self.aes_key, query, body, now)
        self._verify("signature", query, now)
        fields = _content_fields(body)
        if "Encrypt" in fields and "Event" not in fields:
            raise InvalidMessage("aes_key")
        return _message(fields)

    def _decode_encrypted(self, aes_key: Secret, query: Query, body: bytes, now: float) -> Message:
        encrypted = _fields(body).get("Encrypt")
        if encrypted is None:
            raise InvalidMessage("aes_key")
        self._verify("msg_signature", query, now, encrypted)
        content, appid = _decrypt(aes_key, encrypted)
        message = _message(_content_fields(content))
        if message.appid not in (None, appid):
            raise InvalidMessage("app")
        return replace(message, appid=appid)

    def _verify(self, name: str, query: Query, now: float, *more: str) -> None:
        timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
        signed = "".join(sorted([self.token.reveal(), timestamp, nonce, *more]))
        if not is_sha1(signed.encode(errors="replace"), query.get(name, "")):
            raise InvalidMessage("signature")
        # The signed parts are joined without a separator. A fixed length keeps a part from growing into the next.
        if not TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > FRESH_FOR:
            raise InvalidMessage("time")


def _decrypt(aes_key: Secret, encrypted: str) -> tuple[bytes, str]:
    """Return the content and the appid."""
    key = b64decode(aes_key.reveal() + "=")
    try:
        ciphertext = decode_blocks(encrypted)
    except ValueError:
        raise InvalidMessage("form") from None
    text, is_padded = decrypt(key, key[:BLOCK], ciphertext, PAD_TO)
    if not is_padded or len(text) < HEAD.size:
        raise InvalidMessage("aes_key")
    end = HEAD.size + HEAD.unpack_from(text)[1]
    if end > len(text):
        # With a wrong key, one message in 256 has a valid padding by chance.
        raise InvalidMessage("aes_key")
    return text[HEAD.size : end], text[end:].decode(errors="replace")


def _message(fields: Mapping[str, str]) -> Message:
    # A user's text that ends its CDATA can add fields. It cannot remove the MsgType before it.
    event = fields.get("Event") if fields.get("MsgType") == "event" else None
    # In messages about a user's rights FromUserName is WeChat itself, and OpenID is the user.
    return Message(event, fields.get("AppID"), fields.get("OpenID"))


def _content_fields(content: bytes) -> Mapping[str, str]:
    """Return the fields of a message that WeChat has signed."""
    try:
        return _fields(content)
    except InvalidMessage:
        raise InvalidMessage("content") from None


def _fields(content: bytes) -> Mapping[str, str]:
    """Return those FIELDS that a message in XML or JSON has as a text."""
    try:
        found = _xml_fields(content) if content.lstrip().startswith(b"<") else parse(content, controls=True)
    except (ValueError, ElementTree.ParseError):
        raise InvalidMessage("form") from None
    return {name: found[name] for name in FIELDS if isinstance(found.get(name), str)}


#: An element with a text as WeChat sends it. The text may hold "]]>". Without an end it is the rest of the message,
#: so that many beginnings take no quadratic time.
CDATA: Final = re.compile(r"<([\w.-]+)><!\[CDATA\[(.*?)(\]\]></\1>|\Z)", re.DOTALL | re.ASCII)
REFERENCE: Final = re.compile(r"&#\w+;", re.ASCII)
#: What XML 1.0 does not allow: control characters, U+FFFE and U+FFFF. Users can send them.
NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document with a DOCTYPE, before the parser reads an entity (entity expansion, external files)."""

    def doctype(self, *_: object) -> None:
        raise ValueError("the document has a DOCTYPE")


def _xml_fields(content: bytes) -> dict[str, str]:
    """Return the texts of those FIELDS that occur once below the root."""
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314 - _NoDoctype makes it safe
    root = ElementTree.XML(_as_xml(content.decode()), parser)
    return {name: root.findtext(name, "") for name in FIELDS if len(root.findall(name)) == 1}


def _as_xml(text: str) -> str:
    """Return `text` with escapes in place of CDATA, and with U+FFFD in place of what XML does not allow."""
    text = CDATA.sub(lambda found: f"<{found[1]}>{escape(found[2])}{found[3].removeprefix(']]>')}", text)
    text = REFERENCE.sub(lambda found: escape(unescape(found[0]) or REPLACEMENT), text)
    return NOT_XML.sub(REPLACEMENT, text)
