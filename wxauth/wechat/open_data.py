"""Decrypt and verify the user data that a mini program gets from WeChat.

WeChat keeps one session_key for each user and may replace it at a login. Data can still be on its way then, so the
previous key is tried too, for ten minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..errors import BadRequest, SessionKeyStale
from ..metrics import USERDATA
from ..models import Secret, SessionKeys
from ..strict_json import parse
from .crypto import BLOCK, decode_blocks, decrypt, hmac_signature, is_sha1

#: Seconds for which the previous session_key is tried.
PREVIOUS_KEY_LIFE: Final = 600
#: Seconds by which WeChat's clock may be ahead of ours.
CLOCK_SKEW: Final = 60

#: The fields of the phone button's data, besides the watermark. WeChat adds no other field.
PHONE_FIELDS: Final = frozenset({"phoneNumber", "purePhoneNumber", "countryCode"})

UserData = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Watermark:
    """The watermark that user data must have at `now` (Unix seconds): this app's, at most `max_age` seconds old."""

    appid: str
    now: float
    max_age: int

    def matches(self, watermark: object) -> bool:
        """Return whether `watermark` is this app's and fresh enough."""
        if not isinstance(watermark, dict) or type(watermark.get("timestamp")) is not int:
            return False
        is_fresh = self.now - self.max_age <= watermark["timestamp"] <= self.now + CLOCK_SKEW
        return is_fresh and watermark.get("appid") == self.appid


def open_encrypted(encrypted_data: str, iv: str, keys: SessionKeys | None, expected: Watermark) -> UserData:
    """Return the data in `encrypted_data`, AES-CBC with a session_key. Both are base64; a space counts as `+`.

    Raises BadRequest if one of them is malformed, SessionKeyStale if no key fits or the watermark is wrong.
    """
    try:
        ciphertext, vector = (decode_blocks(text.replace(" ", "+")) for text in (encrypted_data, iv))
    except ValueError:
        vector = b""
    if len(vector) != BLOCK:
        raise BadRequest(f"encryptedData must be blocks of {BLOCK} bytes in base64, and iv one such block.")
    return _first_match("decrypt", keys, expected.now, lambda key: _decrypt(key, vector, ciphertext, expected))


def _decrypt(session_key: Secret, iv: bytes, ciphertext: bytes, expected: Watermark) -> UserData | None:
    try:
        text, is_padded = decrypt(decode_blocks(session_key.reveal()), iv, ciphertext)
        found = parse(text, controls=True)
    except ValueError:
        return None
    is_genuine = expected.matches(found.get("watermark")) and not _may_be_forged(found)
    # The padding is judged last: the response time must not show whether it is valid.
    return found if is_genuine and is_padded else None


def check_signed(raw_data: str, signature: str, keys: SessionKeys | None, now: float) -> UserData:
    """Return the object in `raw_data`, which `signature` (SHA-1 of it and a session_key) proves.

    Raises BadRequest if it is not a JSON object (WeChat signs nothing else), SessionKeyStale if no key fits.
    """
    content = None
    with contextlib.suppress(ValueError):
        raw = raw_data.encode()
        content = parse(raw, controls=True)
    if content is None:
        # Raised outside the `with` block, so that the error has no __context__: that would hold the user's data.
        raise BadRequest("rawData must be one JSON object, letter by letter as WeChat gave it.")
    return _first_match(
        "verify", keys, now, lambda key: content if is_sha1(raw + key.reveal().encode(), signature) else None
    )


def sign(message: str, keys: SessionKeys | None) -> str:
    """Return the signature of `message` under the newest session_key: 64 hexadecimal digits.

    Source: "虚拟支付", which asks for it. Raises BadRequest if the message is empty or has no UTF-8 form,
    SessionKeyStale without a session_key.
    """
    # A surrogate, which JSON can hold, has no UTF-8 form.
    if not message or any("\ud800" <= letter <= "\udfff" for letter in message):
        raise BadRequest("message must be a text of at least one character.")
    if keys is None:
        raise SessionKeyStale
    return hmac_signature(keys.newest, message)


def _may_be_forged(found: UserData) -> bool:
    """Return whether there is a phone number that may not come from WeChat.

    With CBC, a user can cut off the beginning of genuine data and choose the first 16 bytes of the rest. In this way
    the end of a nickname becomes a phone number. But the fields that follow the nickname remain. And with many tries
    a user can change one block of genuine data, which holds only one of the two numbers.
    """
    if PHONE_FIELDS.isdisjoint(found):
        return False
    number, pure_number = str(found.get("phoneNumber")), str(found.get("purePhoneNumber"))
    return found.keys() != PHONE_FIELDS | {"watermark"} or not number.endswith(pure_number)


def _first_match(
    kind: str, keys: SessionKeys | None, now: float, attempt: Callable[[Secret], UserData | None]
) -> UserData:
    """Return the result of `attempt` for the first key that fits. Raises a bare SessionKeyStale if none."""
    for name, key in _candidates(keys, now):
        if (found := attempt(key)) is not None:
            USERDATA.labels(kind, name).inc()
            return found
    USERDATA.labels(kind, "none").inc()
    raise SessionKeyStale


def _candidates(keys: SessionKeys | None, now: float) -> Iterator[tuple[str, Secret]]:
    if keys:
        yield "newest", keys.newest
        if keys.previous and now < keys.since + PREVIOUS_KEY_LIFE:
            yield "previous", keys.previous
