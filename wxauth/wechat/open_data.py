"""User data that WeChat sealed or signed, judged under the session_keys it may be of. Knows no store and no clock.

WeChat keeps one session_key for each user and may replace it at a login, so data can be on its way that was sealed
under the one before: that is tried too, for a while.
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
from .crypto import BLOCK, data_is_signed, decode, decrypt

#: Seconds for which the previous session_key is still tried: time enough for what was on its way.
PREVIOUS_KEY_LIFE: Final = 600
#: Seconds by which WeChat's clock may be ahead of ours.
CLOCK_SKEW: Final = 60

#: What WeChat seals for the phone button, beside the watermark, and nothing else with it.
PHONE_NAMES: Final = frozenset({"phoneNumber", "purePhoneNumber", "countryCode"})

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Watermark:
    """What user data has to say of itself at `now`, Unix seconds: its app, and that it is at most `max_age` old."""

    appid: str
    now: float
    max_age: int

    def is_met_by(self, watermark: object) -> bool:
        if not isinstance(watermark, dict) or type(watermark.get("timestamp")) is not int:
            return False
        is_young = self.now - self.max_age <= watermark["timestamp"] <= self.now + CLOCK_SKEW
        return is_young and watermark.get("appid") == self.appid


@dataclass(frozen=True, slots=True)
class EncryptedData:
    """`encryptedData` and `iv`: AES-CBC under a session_key."""

    ciphertext: bytes
    iv: bytes

    @classmethod
    def read(cls, encrypted_data: str, iv: str) -> EncryptedData:
        """Out of base64, in which a `+` may have become a space; BadRequest if no key whatsoever could open it."""
        with contextlib.suppress(ValueError):
            found = cls(decode(encrypted_data.replace(" ", "+")), decode(iv.replace(" ", "+")))
            if found.ciphertext and len(found.ciphertext) % BLOCK == 0 and len(found.iv) == BLOCK:
                return found
        raise BadRequest(f"encryptedData must be blocks of {BLOCK} bytes in base64, and iv one such block.")

    def open(self, keys: SessionKeys | None, expected: Watermark) -> Found:
        """What was sealed, or SessionKeyStale."""
        return _first("decrypt", keys, expected.now, lambda key: self._open_under(key, expected))

    def _open_under(self, session_key: Secret, expected: Watermark) -> Found | None:
        key = _aes_key(session_key)
        if key is None:
            return None
        # Each step is taken whatever became of the one before: the time must not tell which of them failed.
        text, is_whole = decrypt(key, self.iv, self.ciphertext)
        try:
            found = parse(text)
        except ValueError:
            found = {}
        is_met = expected.is_met_by(found.get("watermark"))
        is_sound = is_met and not _is_made_up(found.keys())
        return found if is_whole and is_sound else None


@dataclass(frozen=True, slots=True)
class SignedData:
    """`rawData` and `signature`: JSON in the clear, and SHA-1 over it and a session_key."""

    raw_data: bytes = field(repr=False)
    signature: str
    content: Found = field(repr=False)

    @classmethod
    def read(cls, raw_data: str, signature: str) -> SignedData:
        """BadRequest if it is no JSON object: WeChat signs nothing else, and no key is needed to see it."""
        with contextlib.suppress(ValueError):
            raw = raw_data.encode()
            return cls(raw, signature, parse(raw))
        # Out here, so that the error has no __context__: that would hold all of the data.
        raise BadRequest("rawData must be one JSON object, letter by letter as WeChat gave it.")

    def check(self, keys: SessionKeys | None, now: float) -> Found:
        """What was signed, or SessionKeyStale."""
        return _first("verify", keys, now, self._check_under)

    def _check_under(self, session_key: Secret) -> Found | None:
        return self.content if data_is_signed(self.raw_data, session_key.reveal(), self.signature) else None


def _is_made_up(names: AbstractSet[str]) -> bool:
    """Whether there is a phone number that need not be WeChat's.

    In CBC whoever sends the data chooses its first 16 bytes, and where in what WeChat sealed it begins: so the end of
    his own nickname can be made a phone number. What he can't do is take away the names that come after that.
    """
    return not PHONE_NAMES.isdisjoint(names) and names != PHONE_NAMES | {"watermark"}


def _first(kind: str, keys: SessionKeys | None, now: float, attempt: Callable[[Secret], Found | None]) -> Found:
    """What `attempt` finds under the first key that fits. Here alone is said that none does, and never why."""
    for name, key in _to_try(keys, now):
        found = attempt(key)
        if found is not None:
            USERDATA.labels(kind, name).inc()
            return found
    USERDATA.labels(kind, "none").inc()
    raise SessionKeyStale


def _to_try(keys: SessionKeys | None, now: float) -> Iterator[tuple[str, Secret]]:
    if keys:
        yield "newest", keys.newest
        if keys.previous and now < keys.since + PREVIOUS_KEY_LIFE:
            yield "previous", keys.previous


def _aes_key(session_key: Secret) -> bytes | None:
    """The bytes that a session_key spells; None if they are no key, so that nothing opens under it."""
    try:
        key = decode(session_key.reveal())
    except ValueError:
        return None
    return key if len(key) == BLOCK else None
