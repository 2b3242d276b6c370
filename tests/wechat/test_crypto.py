"""WeChat's own cryptography: the official examples hold, and of padding and base64 one spelling alone is whole."""

from __future__ import annotations

import base64
import hashlib
import secrets

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings

from tests import vectors
from wxauth.wechat.crypto import data_is_signed, decode_base64, decrypt, push_is_signed

KEY, IV = secrets.token_bytes(16), secrets.token_bytes(16)


def encrypted(padded: bytes) -> bytes:
    """Without any padding but what stands there already."""
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(IV)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def test_the_official_user_data_opens() -> None:
    """To the byte."""
    key = decode_base64(vectors.SEALED_UNDER.reveal())
    text, is_whole = decrypt(key, decode_base64(vectors.IV), decode_base64(vectors.ENCRYPTED_DATA))
    assert is_whole
    assert hashlib.sha256(text).hexdigest() == vectors.PLAINTEXT_SHA256


def test_the_official_push_opens() -> None:
    """It is padded to 32 bytes, under a key of 32."""
    key = bytes(32)
    text, is_whole = decrypt(key, key[:16], decode_base64(vectors.SAFE_ENCRYPT), 32)
    assert is_whole
    assert text.endswith(b'"debug_str":"hello world"}' + vectors.PUSH_APPID.encode())


@pytest.mark.parametrize("pad_to", [16, 32])
@pytest.mark.parametrize("count", range(1, 33))
def test_padding_counts_up_to_its_block(count: int, pad_to: int) -> None:
    """From one byte to a whole block: more than that is none."""
    content = bytes(48 - count)
    text, is_whole = decrypt(KEY, IV, encrypted(content + bytes([count]) * count), pad_to)
    assert is_whole == (count <= pad_to)
    assert text == (content if is_whole else content + bytes([count]) * count)


@pytest.mark.parametrize("last", [0, 33, 128, 255])
def test_no_other_byte_is_padding(last: int) -> None:
    """Neither none at all nor more than there can be."""
    assert decrypt(KEY, IV, encrypted(bytes(31) + bytes([last])))[1] is False


@pytest.mark.parametrize("wrong", range(1, 16))
def test_every_byte_of_the_padding_counts(wrong: int) -> None:
    """Not only the last."""
    padding = bytearray([16] * 16)
    padding[-1 - wrong] ^= 1
    assert decrypt(KEY, IV, encrypted(bytes(16) + padding))[1] is False


def test_padding_is_no_longer_than_the_text() -> None:
    """A single block can't be padded by two."""
    assert decrypt(KEY, IV, encrypted(bytes([32] * 16)), 32)[1] is False


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_base64_has_one_spelling(raw: bytes) -> None:
    """What was encoded comes back; with another last letter that spells the same, it is none."""
    text = base64.b64encode(raw).decode()
    assert decode_base64(text) == raw
    if text.endswith("="):
        place = len(text.rstrip("=")) - 1
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        left_over = text[:place] + alphabet[alphabet.index(text[place]) + 1] + text[place + 1 :]
        with pytest.raises(ValueError, match="canonical"):
            decode_base64(left_over)


@pytest.mark.parametrize("text", ["A", "AAA", "AA=", "AAAA=", "A AA", "AAA\n", "AA-_", "АААА", "====", "\ud800AAA"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    """Too short, not padded, with something in it, of another alphabet."""
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)


def test_the_official_signature_of_user_data_holds() -> None:
    """Over the text of the session_key, not over the bytes that it spells."""
    assert data_is_signed(vectors.RAW_DATA.encode(), vectors.SIGNED_UNDER.reveal(), vectors.SIGNATURE)


@pytest.mark.parametrize(
    "signature",
    ["", "0" * 40, vectors.SIGNATURE.upper(), vectors.SIGNATURE[:-1], vectors.SIGNATURE + "0", "签\ud800"],
)
def test_no_other_signature_holds(signature: str) -> None:
    """Letter by letter, whatever was sent in its place."""
    assert not data_is_signed(vectors.RAW_DATA.encode(), vectors.SIGNED_UNDER.reveal(), signature)


PUSHES = [
    pytest.param(vectors.ECHO_QUERY, "signature", [], id="echo"),
    pytest.param(vectors.PLAIN_QUERY, "signature", [], id="plain"),
    pytest.param(vectors.SAFE_QUERY, "msg_signature", [vectors.SAFE_ENCRYPT], id="safe"),
]


@pytest.mark.parametrize(("query", "name", "more"), PUSHES)
def test_the_official_signatures_of_pushes_hold(query: dict[str, str], name: str, more: list[str]) -> None:
    """Whatever the order in which the parts are named."""
    parts = [vectors.PUSH_TOKEN.reveal(), query["timestamp"], query["nonce"], *more]
    assert push_is_signed(parts, query[name])
    assert push_is_signed(parts[::-1], query[name])


@pytest.mark.parametrize(("query", "name", "more"), PUSHES)
def test_each_part_of_a_push_is_signed(query: dict[str, str], name: str, more: list[str]) -> None:
    """Another token, time, nonce or message has another signature."""
    parts = [vectors.PUSH_TOKEN.reveal(), query["timestamp"], query["nonce"], *more]
    others = [[*parts[:at], parts[at][:-1] + "!", *parts[at + 1 :]] for at in range(len(parts))]
    assert [other for other in others if push_is_signed(other, query[name])] == []
