"""The messages that WeChat pushes: are they WeChat's, and what do they say. Knows no HTTP and no store.

With an AES key the signature covers the whole message. Without one it covers the time and a nonce alone, so that
whoever has seen one signed request may send another body along with it while the time is fresh.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat

from ..models import Secret
from ..strict_json import parse
from .crypto import BLOCK, decode, decrypt, push_is_signed

#: Seconds by which the time of a message may differ from ours. WeChat sends one again for some fifteen seconds.
FRESH_FOR: Final = 300
TIMESTAMP: Final = re.compile(r"[1-9][0-9]{9}")
#: A sealed message: random bytes, its length, itself, the appid; padded to so many bytes.
HEAD: Final = struct.Struct(">16sI")
PADDED_TO: Final = 32

Query = Mapping[str, str]


class InvalidMessage(Exception):
    """This is no message of WeChat's for us. `reason` is one word of HINTS, for the operator alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


HINTS: Final[Mapping[str, str]] = {
    "signature": "is WXAUTH_PUSH_TOKEN the Token of the WeChat console?",
    "time": f"it is not within {FRESH_FOR} seconds of this server's clock; is that right?",
    "sealed": "WeChat encrypts its messages: set WXAUTH_PUSH_AES_KEY to the EncodingAESKey of the WeChat console",
    "not_sealed": "choose the safe mode in the WeChat console, or remove WXAUTH_PUSH_AES_KEY",
    "aes_key": "is WXAUTH_PUSH_AES_KEY the EncodingAESKey of the WeChat console?",
    "form": "this is neither the XML nor the JSON that WeChat sends",
    "app": "it is about a mini program that is not configured here, or it names none or two",
    "user": "it names no user",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What is of interest here of a message; whatever it does not say is None."""

    event: str | None
    appid: str | None
    openid: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class PushDecoder:
    """What the operator and WeChat have agreed upon. With an AES key, only sealed messages are taken."""

    token: Secret
    aes_key: Secret | None

    def echo(self, query: Query, now: float) -> str:
        """What WeChat wants to hear back when the address is entered in its console, or InvalidMessage."""
        self._check("signature", query, now)
        return query.get("echostr", "")

    def open(self, query: Query, body: bytes, now: float) -> Message:
        """The message in `body`, or InvalidMessage."""
        if self.aes_key:
            return self._open_sealed(self.aes_key, query, body, now)
        self._check("signature", query, now)
        fields = _fields(body)
        if "Encrypt" in fields and "Event" not in fields:
            raise InvalidMessage("sealed")
        return _message(fields)

    def _open_sealed(self, aes_key: Secret, query: Query, body: bytes, now: float) -> Message:
        sealed = _text(_fields(body), "Encrypt")
        if sealed is None:
            raise InvalidMessage("not_sealed")
        self._check("msg_signature", query, now, sealed)
        content, appid = _unseal(aes_key, sealed)
        message = _message(_fields(content))
        if message.appid not in (None, appid):
            raise InvalidMessage("app")
        return Message(message.event, appid, message.openid)

    def _check(self, name: str, query: Query, now: float, *more: str) -> None:
        timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
        if not push_is_signed([self.token.reveal(), timestamp, nonce, *more], query.get(name, "")):
            raise InvalidMessage("signature")
        # One length: the parts are signed in alphabetical order, without a mark of where one ends.
        if not TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > FRESH_FOR:
            raise InvalidMessage("time")


def _unseal(aes_key: Secret, sealed: str) -> tuple[bytes, str]:
    """The message and the appid that were sealed."""
    key = b64decode(aes_key.reveal() + "=")
    try:
        ciphertext = decode(sealed)
    except ValueError:
        raise InvalidMessage("form") from None
    if not ciphertext or len(ciphertext) % BLOCK:
        raise InvalidMessage("form")
    text, is_whole = decrypt(key, key[:BLOCK], ciphertext, PADDED_TO)
    if not is_whole or len(text) < HEAD.size:
        raise InvalidMessage("aes_key")
    end = HEAD.size + HEAD.unpack_from(text)[1]
    return text[HEAD.size : end], text[end:].decode(errors="replace")


def _message(fields: Mapping[str, Any]) -> Message:
    # FromUserName is WeChat itself where a user's rights are the matter; whose they are stands in OpenID.
    return Message(_text(fields, "Event"), _text(fields, "AppID"), _text(fields, "OpenID"))


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def _fields(content: bytes) -> Mapping[str, Any]:
    """What the message says under each name, whichever of the two forms it has."""
    try:
        return _Texts().read(content) if content.lstrip().startswith(b"<") else parse(content)
    except (ValueError, expat.ExpatError):
        raise InvalidMessage("form") from None


class _Texts:
    """The texts directly under the root of an XML document, but for names that stand there twice.

    A document that declares anything is refused at its first declaration, before an entity could grow or be fetched.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._text: list[str] = []
        self._found: list[tuple[str, str]] = []

    def read(self, content: bytes) -> dict[str, str]:
        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._hear
        parser.StartDoctypeDeclHandler = self._refuse
        parser.Parse(content, True)
        times = Counter(name for name, _ in self._found)
        return {name: text for name, text in self._found if times[name] == 1}

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 2:
            self._text = []

    def _end(self, name: str) -> None:
        if self._depth == 2:
            self._found.append((name, "".join(self._text)))
        self._depth -= 1

    def _hear(self, text: str) -> None:
        if self._depth == 2:
            self._text.append(text)

    def _refuse(self, *declared: object) -> None:
        raise ValueError("a document type is declared")
