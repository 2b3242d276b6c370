"""Decrypt and verify the user data that a mini program gets from WeChat.

WeChat keeps one session_key for each user and may replace it at a login. Data can still be on its way then, so the
previous key is tried too, for ten minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import BadRequest, SessionKeyStale
from ..metrics import USERDATA
from ..models import Secret, SessionKeys
from ..strict_json import parse
from .crypto import BLOCK, data_is_signed, decode_blocks, decrypt

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
        if not isinstance(watermark, dict) or type(watermark.get("timestamp")) is not int:
            return False
        is_fresh = self.now - self.max_age <= watermark["timestamp"] <= self.now + CLOCK_SKEW
        return is_fresh and watermark.get("appid") == self.appid


@dataclass(frozen=True, slots=True)
class EncryptedData:
    """`encryptedData` and `iv`: AES-CBC with a session_key."""

    ciphertext: bytes
    iv: bytes

    @classmethod
    def read(cls, encrypted_data: str, iv: str) -> EncryptedData:
        """Decode both from base64; a space counts as `+`. Raises BadRequest if no key could decrypt them."""
        with contextlib.suppress(ValueError):
            found = cls(decode_blocks(encrypted_data.replace(" ", "+")), decode_blocks(iv.replace(" ", "+")))
            if len(found.iv) == BLOCK:
                return found
        raise BadRequest(f"encryptedData must be blocks of {BLOCK} bytes in base64, and iv one such block.")

    def open(self, keys: SessionKeys | None, expected: Watermark) -> UserData:
        """Return the decrypted data. Raises SessionKeyStale if no key fits or the watermark is wrong."""
        return _first_match("decrypt", keys, expected.now, lambda key: self._decrypt(key, expected))

    def _decrypt(self, session_key: Secret, expected: Watermark) -> UserData | None:
        try:
            text, is_padded = decrypt(decode_blocks(session_key.reveal()), self.iv, self.ciphertext)
            found = parse(text)
        except ValueError:
            return None
        is_genuine = expected.matches(found.get("watermark")) and not _may_be_forged(found.keys())
        # The padding is judged last: the response time must not show whether it is valid.
        return found if is_genuine and is_padded else None


@dataclass(frozen=True, slots=True)
class SignedData:
    """`rawData` and `signature`: JSON, and SHA-1 of the JSON and a session_key."""

    raw_data: bytes = field(repr=False)
    signature: str
    content: UserData = field(repr=False)

    @classmethod
    def read(cls, raw_data: str, signature: str) -> SignedData:
        """Parse `raw_data`. Raises BadRequest if it is not a JSON object: WeChat signs nothing else."""
        with contextlib.suppress(ValueError):
            raw = raw_data.encode()
            return cls(raw, signature, parse(raw))
        # Raised outside the `with` block, so that the error has no __context__: that would hold the user's data.
        raise BadRequest("rawData must be one JSON object, letter by letter as WeChat gave it.")

    def check(self, keys: SessionKeys | None, now: float) -> UserData:
        """Return the signed object. Raises SessionKeyStale if the signature fits no key."""
        return _first_match("verify", keys, now, self._verify)

    def _verify(self, session_key: Secret) -> UserData | None:
        return self.content if data_is_signed(self.raw_data, session_key.reveal(), self.signature) else None


def _may_be_forged(names: AbstractSet[str]) -> bool:
    """Return whether there is a phone number that may not come from WeChat.

    With CBC, a user can cut off the beginning of genuine data and choose the first 16 bytes of the rest. In this way
    the end of a nickname becomes a phone number. But the fields that follow the nickname remain.
    """
    return not PHONE_FIELDS.isdisjoint(names) and names != PHONE_FIELDS | {"watermark"}


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
