"""User data: genuine data opens with the right key; every failure looks the same."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import assume, given, settings

from tests.support import vectors
from wxauth.errors import BadRequest, SessionKeyStale
from wxauth.models import Secret, SessionKeys
from wxauth.sandbox import crypto
from wxauth.wechat.open_data import (
    CLOCK_SKEW,
    PHONE_FIELDS,
    PREVIOUS_KEY_LIFE,
    Watermark,
    check_signed,
    open_encrypted,
)

APPID = "wx0123456789abcdef"
NOW = 1_700_000_000
MAX_AGE = 600
EXPECTED = Watermark(APPID, NOW, MAX_AGE)
KEY, OTHER_KEY, THIRD_KEY = (base64.b64encode(bytes([number]) * 16).decode() for number in (1, 2, 3))
KEYS = SessionKeys(Secret(KEY), NOW)
DATA: dict[str, Any] = {"nickName": "小明", "watermark": {"timestamp": NOW, "appid": APPID}}


class EncryptedData(NamedTuple):
    """The bytes of `encryptedData` and `iv`."""

    ciphertext: bytes
    iv: bytes

    def open(self, keys: SessionKeys | None, expected: Watermark) -> dict[str, Any]:
        encrypted_data, iv = (base64.b64encode(raw).decode() for raw in self)
        return open_encrypted(encrypted_data, iv, keys, expected)


def sealed(data: dict[str, Any] | None = None, key: str = KEY) -> EncryptedData:
    given = crypto.encrypt(key, DATA if data is None else data)
    return EncryptedData(base64.b64decode(given["encryptedData"]), base64.b64decode(given["iv"]))


def raw(padded: bytes) -> EncryptedData:
    """Encrypt `padded` as it is, without adding padding."""
    encryptor = Cipher(algorithms.AES(base64.b64decode(KEY)), modes.CBC(bytes(16))).encryptor()
    return EncryptedData(encryptor.update(padded) + encryptor.finalize(), bytes(16))


def padded(text: bytes) -> bytes:
    count = 16 - len(text) % 16
    return text + bytes([count]) * count


def opens(data: EncryptedData, keys: SessionKeys | None = KEYS, expected: Watermark = EXPECTED) -> bool:
    try:
        data.open(keys, expected)
    except SessionKeyStale:
        return False
    return True


def holds(text: str, signature: str, keys: SessionKeys | None = KEYS, now: float = NOW) -> bool:
    try:
        check_signed(text, signature, keys, now)
    except SessionKeyStale:
        return False
    return True


def marked(**watermark: Any) -> dict[str, Any]:
    return {**DATA, "watermark": {**DATA["watermark"], **watermark}}


# --- open_encrypted


OFFICIAL = Watermark(vectors.SEALED_FOR.appid, vectors.SEALED_AT + MAX_AGE, MAX_AGE)
OFFICIAL_KEYS = SessionKeys(vectors.SEALED_UNDER, 0)


def test_open_returns_the_official_example() -> None:
    """The clock is the one of its day."""
    found = open_encrypted(vectors.ENCRYPTED_DATA, vectors.IV, OFFICIAL_KEYS, OFFICIAL)
    assert (found["openId"], found["nickName"]) == (vectors.SEALED_FOR.openid, "Band")


def test_open_takes_a_space_for_a_plus() -> None:
    """A form that is not escaped turns `+` into a space."""
    found = open_encrypted(vectors.ENCRYPTED_DATA, vectors.IV, OFFICIAL_KEYS, OFFICIAL)
    assert open_encrypted(vectors.ENCRYPTED_DATA.replace("+", " "), vectors.IV, OFFICIAL_KEYS, OFFICIAL) == found
    iv = "+" * 21 + "w=="
    encryptor = Cipher(algorithms.AES(base64.b64decode(KEY)), modes.CBC(base64.b64decode(iv))).encryptor()
    ciphertext = base64.b64encode(encryptor.update(padded(GENUINE)) + encryptor.finalize()).decode()
    assert open_encrypted(ciphertext, iv.replace("+", " "), KEYS, EXPECTED) == DATA


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
session_keys = st.binary(min_size=16, max_size=16).map(lambda key: base64.b64encode(key).decode())


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=12), json_values, max_size=6), session_keys)
def test_open_returns_what_was_encrypted(data: dict[str, Any], key: str) -> None:
    """Unknown fields stay as they are. Hypothesis takes names from our source; those of phone data are refused."""
    assume(PHONE_FIELDS.isdisjoint(data))
    data = {**data, "watermark": DATA["watermark"]}
    assert sealed(data, key).open(SessionKeys(Secret(key), NOW), EXPECTED) == data


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_open_refuses_data_with_one_changed_bit(data: st.DataObject) -> None:
    """It garbles its whole block."""
    found = sealed()
    place = data.draw(st.integers(0, len(found.ciphertext) * 8 - 1))
    changed = bytearray(found.ciphertext)
    changed[place // 8] ^= 1 << place % 8
    assert not opens(EncryptedData(bytes(changed), found.iv))


@pytest.mark.parametrize("place", range(128))
def test_open_with_one_changed_bit_of_the_iv_changes_at_most_16_bytes(place: int) -> None:
    """Nothing in CBC protects the first block. The rest is still what WeChat encrypted."""
    found = sealed({"openId": "oALICE", **DATA})
    iv = bytearray(found.iv)
    iv[place // 8] ^= 1 << place % 8
    data = EncryptedData(found.ciphertext, bytes(iv))
    if opens(data):
        text = crypto.compact(data.open(KEYS, EXPECTED)).encode()
        assert text.endswith(crypto.compact({"openId": "oALICE", **DATA}).encode()[16:])


def test_open_refuses_a_phone_number_made_of_a_nickname() -> None:
    """A user can start at any block and choose the iv, and so write 16 bytes before the rest."""
    number, front = "13800138000", crypto.compact({"openId": "oALICE", "nickName": ""})[:-2]
    nickname = "." * (-len(front) % 16) + "x" * 16 + number
    profile = {"openId": "oALICE", **DATA, "nickName": nickname}
    whole, text = sealed(profile), crypto.compact(profile).encode()
    at = text.index(number.encode())
    before, own = whole.ciphertext[at - 32 : at - 16], text[at - 16 : at]
    iv = bytes(left ^ known ^ meant for left, known, meant in zip(before, own, b'{"phoneNumber":"', strict=True))
    forged = EncryptedData(whole.ciphertext[at - 16 :], iv)
    assert json.loads(unpadded(forged)) == {"phoneNumber": number, "watermark": DATA["watermark"]}
    assert not opens(forged)


def unpadded(data: EncryptedData) -> bytes:
    decryptor = Cipher(algorithms.AES(base64.b64decode(KEY)), modes.CBC(data.iv)).decryptor()
    text = decryptor.update(data.ciphertext) + decryptor.finalize()
    return text[: -text[-1]]


def test_open_accepts_genuine_phone_data() -> None:
    """Older mini programs still get it."""
    phone = {"phoneNumber": "12066600001", "purePhoneNumber": "12066600001", "countryCode": "86"}
    assert opens(sealed({**phone, "watermark": DATA["watermark"]}))


@pytest.mark.parametrize("number", ["+85212066600001", "8612066600001"])
def test_open_accepts_a_foreign_number_with_its_country_code(number: str) -> None:
    phone = {"phoneNumber": number, "purePhoneNumber": "12066600001", "countryCode": "852"}
    assert opens(sealed({**phone, "watermark": DATA["watermark"]}))


@pytest.mark.parametrize(("number", "pure_number"), [("13999999999", "12066600001"), ("12066600001", "13999999999")])
def test_open_refuses_two_numbers_that_do_not_fit(number: str, pure_number: str) -> None:
    """With many tries a user can choose one block of genuine phone data, which holds one of the numbers."""
    phone = {"phoneNumber": number, "purePhoneNumber": pure_number, "countryCode": "86"}
    assert not opens(sealed({**phone, "watermark": DATA["watermark"]}))


@settings(deadline=None)
@given(st.integers(1, 60).flatmap(lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks)), st.binary())
def test_open_refuses_any_blocks(ciphertext: bytes, iv: bytes) -> None:
    """It raises SessionKeyStale and no other exception."""
    assert not opens(EncryptedData(ciphertext, iv[:16].ljust(16, b"\0")))


GENUINE = json.dumps(DATA).encode()
WRONG = {
    "another session_key": sealed(key=OTHER_KEY),
    "padding of zero bytes": raw(padded(GENUINE)[:-1] + b"\0"),
    "padding of more than a block, which JSON reads as spaces": raw(GENUINE + b" " * (48 - len(GENUINE) % 16)),
    "padding that is not uniform": raw(GENUINE + b" " * (30 - len(GENUINE) % 16) + b"\1\2"),
    "nothing but padding": raw(b"\x10" * 16),
    "no JSON": raw(padded(b"hello")),
    "truncated JSON": raw(padded(GENUINE[:-1])),
    "text after the JSON": raw(padded(GENUINE + b"x")),
    "not UTF-8": raw(padded(GENUINE.replace(b"nick", b"n\xffck"))),
    "a list": raw(padded(b"[" + GENUINE + b"]")),
    "a duplicate name": raw(padded(b'{"watermark":1,' + GENUINE[1:])),
    "deep nesting": raw(padded(b"[" * 9000)),
    "no watermark": sealed({"nickName": "小明"}),
    "a watermark that is no object": sealed({**DATA, "watermark": [APPID, NOW]}),
    "another app": sealed(marked(appid="wxfedcba9876543210")),
    "no app": sealed({**DATA, "watermark": {"timestamp": NOW}}),
    "an app in a list": sealed(marked(appid=[APPID])),
    "too old": sealed(marked(timestamp=NOW - MAX_AGE - 1)),
    "in the future": sealed(marked(timestamp=NOW + CLOCK_SKEW + 1)),
    "no timestamp": sealed({**DATA, "watermark": {"appid": APPID}}),
    "a timestamp as text": sealed(marked(timestamp=str(NOW))),
    "a timestamp that is true": sealed(marked(timestamp=True)),
    "a timestamp as float": sealed(marked(timestamp=float(NOW))),
    "a huge timestamp": sealed(marked(timestamp=10**400)),
    "an infinite number": raw(padded(GENUINE.replace(b"{", b'{"x":1e400,', 1))),
    "a phone number among other data": sealed({"phoneNumber": "12066600001", **DATA}),
}


def test_open_accepts_the_data_that_the_table_spoils() -> None:
    """Each row of WRONG differs from it in one thing."""
    assert opens(raw(padded(GENUINE)))
    assert opens(sealed())


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_open_raises_the_same_bare_error_for_every_fault(data: EncryptedData) -> None:
    """The error holds nothing that an attacker could learn from."""
    with pytest.raises(SessionKeyStale) as caught:
        data.open(KEYS, EXPECTED)
    said = (str(caught.value), caught.value.errcode, caught.value.__cause__, caught.value.__context__)
    assert said == ("SessionKeyStale", None, None, None)


@pytest.mark.parametrize(
    "timestamp", [NOW - MAX_AGE, NOW, NOW + CLOCK_SKEW], ids=["as old as may be", "of now", "of the near future"]
)
def test_open_accepts_the_oldest_and_newest_allowed_time(timestamp: int) -> None:
    assert opens(sealed(marked(timestamp=timestamp)))


@pytest.mark.parametrize(
    ("encrypted_data", "iv"),
    [
        pytest.param("", vectors.IV, id="nothing"),
        pytest.param("AAAA", vectors.IV, id="less than a block"),
        pytest.param("A" * 24, vectors.IV, id="a block and two bytes"),
        pytest.param("A" * 22 + "==", "AAAA", id="a short iv"),
        pytest.param("A" * 22 + "==", "A" * 24, id="a long iv"),
        pytest.param("A" * 22 + "==", "", id="no iv"),
        pytest.param("A" * 22, vectors.IV, id="without its padding"),
        pytest.param("A" * 21 + "B==", vectors.IV, id="bits left over"),
        pytest.param("*" * 24, vectors.IV, id="no base64"),
        pytest.param("中" * 24, vectors.IV, id="Chinese"),
    ],
)
def test_open_raises_bad_request_for_malformed_input(encrypted_data: str, iv: str) -> None:
    """No key could open it, and a new login would not help."""
    with pytest.raises(BadRequest):
        open_encrypted(encrypted_data, iv, KEYS, EXPECTED)


# --- Control characters in a nickname, not escaped


@pytest.mark.parametrize("nickname", ["a\x02b", "\x10", "\x1b[31m", "a\0b", "a\tb\n", "a\ufffeb", "\x7f\x85"])
def test_nickname_with_control_characters_is_accepted(nickname: str) -> None:
    text = '{"nickName":"' + nickname + '"}'
    assert check_signed(text, crypto.sign(KEY, text), KEYS, NOW) == {"nickName": nickname}
    encrypted = raw(padded(GENUINE.replace(b"{", f'{{"name":"{nickname}",'.encode(), 1)))
    assert encrypted.open(KEYS, EXPECTED) == {"name": nickname, **DATA}


# --- check_signed


def test_check_returns_the_official_example() -> None:
    found = check_signed(vectors.RAW_DATA, vectors.SIGNATURE, SessionKeys(vectors.SIGNED_UNDER, 0), NOW)
    assert found == json.loads(vectors.RAW_DATA)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=12), json_values, max_size=6), st.sampled_from([None, 1]), session_keys)
def test_check_covers_the_exact_text(data: dict[str, Any], indent: int | None, key: str) -> None:
    """Spaces and escapes are part of the signed text."""
    text = json.dumps(data, indent=indent, ensure_ascii=indent is None)
    assert check_signed(text, crypto.sign(key, text), SessionKeys(Secret(key), NOW), NOW) == data


@settings(deadline=None)
@given(st.data())
def test_check_refuses_one_changed_bit(data: st.DataObject) -> None:
    """The bit may be in the text or in the signature."""
    text, signature = data.draw(st.sampled_from([(1, 0), (0, 1)]))
    place = data.draw(st.integers(0, len(vectors.RAW_DATA if text else vectors.SIGNATURE) * 7 - 1))
    raw_data = spoil(vectors.RAW_DATA, place) if text else vectors.RAW_DATA
    signed = spoil(vectors.SIGNATURE, place) if signature else vectors.SIGNATURE
    with pytest.raises((SessionKeyStale, BadRequest)):
        check_signed(raw_data, signed, SessionKeys(vectors.SIGNED_UNDER, 0), NOW)


def spoil(text: str, place: int) -> str:
    changed = bytearray(text.encode())
    changed[place // 7] ^= 1 << place % 7
    return changed.decode()


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "1", "null", '{"a":1,"a":2}', '{"a":NaN}', "{} {}", '{"a":"\ud800"}']
)
def test_check_raises_bad_request_for_raw_data_that_is_no_object(text: str) -> None:
    """The signature does not matter."""
    for signature in ("0" * 40, crypto.sign(KEY, text.encode(errors="replace").decode())):
        with pytest.raises(BadRequest, check=lambda error: error.__context__ is None):
            check_signed(text, signature, KEYS, NOW)


# --- Choice of the key


def test_open_tries_the_newest_and_the_previous_key() -> None:
    """Data can be on its way while WeChat replaces the key."""
    keys = SessionKeys(Secret(OTHER_KEY), NOW, Secret(KEY))
    assert opens(sealed(), keys)
    assert opens(sealed(key=OTHER_KEY), keys)
    assert not opens(sealed(key=THIRD_KEY), keys)


@pytest.mark.parametrize(("age", "is_tried"), [(0, True), (PREVIOUS_KEY_LIFE - 1, True), (PREVIOUS_KEY_LIFE, False)])
def test_previous_key_is_tried_for_ten_minutes(age: int, is_tried: bool) -> None:
    """The newest key is tried without a limit."""
    keys = SessionKeys(Secret(OTHER_KEY), NOW - age, Secret(KEY))
    assert PREVIOUS_KEY_LIFE == 600
    assert opens(sealed(), keys) is is_tried
    assert holds("{}", crypto.sign(KEY, "{}"), keys) is is_tried
    assert opens(sealed(key=OTHER_KEY), keys)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(None, id="none"),
        pytest.param(SessionKeys(Secret("no base64!"), NOW), id="no base64"),
        pytest.param(SessionKeys(Secret("AAAA"), NOW), id="too short"),
        pytest.param(SessionKeys(Secret("A" * 43 + "="), NOW), id="too long"),
    ],
)
def test_open_without_a_valid_key_raises_stale(keys: SessionKeys | None) -> None:
    """A malformed key is not used."""
    assert not opens(sealed(key=base64.b64encode(bytes(16)).decode()), keys)


def test_check_without_a_key_raises_stale() -> None:
    assert not holds("{}", crypto.sign("", "{}"), None)
