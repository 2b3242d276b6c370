"""WeChat's cryptography: the official examples, padding, and base64."""

from __future__ import annotations

import base64
import hashlib
import secrets

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings

from tests.support import vectors
from wxauth.models import Secret
from wxauth.wechat.crypto import decode_blocks, decrypt, hmac_signature, is_sha1

KEY, IV = secrets.token_bytes(16), secrets.token_bytes(16)


def encrypted(padded: bytes) -> bytes:
    """Encrypt without adding padding."""
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(IV)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def test_decrypt_opens_the_official_user_data() -> None:
    key = decode_blocks(vectors.SEALED_UNDER.reveal())
    text, is_padded = decrypt(key, decode_blocks(vectors.IV), decode_blocks(vectors.ENCRYPTED_DATA))
    assert is_padded
    assert hashlib.sha256(text).hexdigest() == vectors.PLAINTEXT_SHA256


def test_decrypt_opens_the_official_push() -> None:
    """It is padded to 32 bytes, and its key has 32 bytes."""
    key = bytes(32)
    text, is_padded = decrypt(key, key[:16], decode_blocks(vectors.SAFE_ENCRYPT), 32)
    assert is_padded
    assert text.endswith(b'"debug_str":"hello world"}' + vectors.PUSH_APPID.encode())


@pytest.mark.parametrize("pad_to", [16, 32])
@pytest.mark.parametrize("count", range(1, 33))
def test_decrypt_accepts_padding_of_one_byte_to_a_block(count: int, pad_to: int) -> None:
    """More than a block is invalid."""
    content = bytes(48 - count)
    text, is_padded = decrypt(KEY, IV, encrypted(content + bytes([count]) * count), pad_to)
    assert is_padded == (count <= pad_to)
    assert text == (content if is_padded else content + bytes([count]) * count)


@pytest.mark.parametrize("last", [0, 33, 128, 255])
def test_decrypt_refuses_a_last_byte_that_is_no_padding_length(last: int) -> None:
    assert decrypt(KEY, IV, encrypted(bytes(31) + bytes([last])))[1] is False


@pytest.mark.parametrize("wrong", range(1, 16))
def test_decrypt_checks_every_byte_of_the_padding(wrong: int) -> None:
    padding = bytearray([16] * 16)
    padding[-1 - wrong] ^= 1
    assert decrypt(KEY, IV, encrypted(bytes(16) + padding))[1] is False


def test_decrypt_refuses_padding_longer_than_the_text() -> None:
    """One block of 16 bytes cannot have 32 bytes of padding."""
    assert decrypt(KEY, IV, encrypted(bytes([32] * 16)), 32)[1] is False


@settings(deadline=None)
@given(st.integers(1, 6).flatmap(lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks)))
def test_decode_blocks_accepts_only_the_canonical_form(raw: bytes) -> None:
    """The same bytes with unused bits set are refused."""
    text = base64.b64encode(raw).decode()
    assert decode_blocks(text) == raw
    if text.endswith("="):
        place = len(text.rstrip("=")) - 1
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        left_over = text[:place] + alphabet[alphabet.index(text[place]) + 1] + text[place + 1 :]
        with pytest.raises(ValueError, match="canonical"):
            decode_blocks(left_over)


ENDS = ["AAA==", "AAAA", "AAAA=", "AAAA===", "A AA==", "AAAA==\n", "AA-_==", "АААА==", "======", "\ud800AAA=="]


@pytest.mark.parametrize("end", ENDS)
def test_decode_blocks_raises_for_other_text(end: str) -> None:
    """Too short, not padded, with a space or line feed, or of another alphabet."""
    assert decode_blocks("A" * 18 + "AAAA==") == bytes(16)
    with pytest.raises(ValueError, match=r"."):
        decode_blocks("A" * 18 + end)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 24, 33])
def test_decode_blocks_raises_for_other_sizes(size: int) -> None:
    with pytest.raises(ValueError, match="blocks"):
        decode_blocks(base64.b64encode(bytes(size)).decode())


SIGNED = vectors.RAW_DATA.encode() + vectors.SIGNED_UNDER.reveal().encode()


def test_is_sha1_accepts_the_official_signature() -> None:
    """It covers the text of the session_key, not the decoded bytes."""
    assert is_sha1(SIGNED, vectors.SIGNATURE)


@pytest.mark.parametrize(
    "signature",
    ["", "0" * 40, vectors.SIGNATURE.upper(), vectors.SIGNATURE[:-1], vectors.SIGNATURE + "0", "签\ud800"],
)
def test_is_sha1_refuses_other_signatures(signature: str) -> None:
    assert not is_sha1(SIGNED, signature)


@pytest.mark.parametrize(
    ("session_key", "expected"),
    [
        ("o0q0otL8aEzpcZL/FT9WsQ==", "46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128"),
        ("tiihtNczf5v6AKRyjwEUhQ==", "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"),
    ],
)
def test_signature_without_a_message_matches_the_vectors(session_key: str, expected: str) -> None:
    """The text of the session_key is the HMAC key."""
    assert hmac_signature(Secret(session_key)) == expected


@pytest.mark.parametrize(
    ("session_key", "message", "expected"),
    [
        (
            "o0q0otL8aEzpcZL/FT9WsQ==",
            '{"foo":"bar"}',
            "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b",
        ),
        (
            "gDyVgzwa0mFz9uUP7M6GQQ==",
            "1559129713_67297598215591297148AP6DT9ybtniUJfbwx20afc706a711eefc",
            "b002b824688dd8593a6079e11d8c5e8734fbcb39a6d5906eb347bfbcad79c617",
        ),
        (
            "9hAb/NEYUlkaMBEsmFgzig==",
            '{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}',
            "089d9e8dc5d308977360c4b79ec600a93d736802802a807d634192328032f6c7",
        ),
    ],
)
def test_signature_of_a_message_matches_wechats_examples(session_key: str, message: str, expected: str) -> None:
    assert hmac_signature(Secret(session_key), message) == expected
