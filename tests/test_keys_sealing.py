"""Seals open only with their key, in their context, with their end."""

from __future__ import annotations

import hashlib
import hmac
import struct

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings

from wxauth.keys import InvalidSeal, derive, seal, unseal

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
CONTEXT = "hash-tag session-id"
END = 1_700_000_000
PAYLOAD = b"what nobody may read"
SEALED = seal(KEY, CONTEXT, END, PAYLOAD)


def opens(sealed: bytes, key: bytes = KEY, context: str = CONTEXT) -> bool:
    try:
        unseal(key, context, sealed)
    except InvalidSeal:
        return False
    return True


@settings(deadline=None)
@given(st.binary(max_size=500), st.text(max_size=50), st.integers(0, 2**64 - 1))
def test_unseal_returns_end_and_payload(payload: bytes, context: str, expires_at: int) -> None:
    assert unseal(KEY, context, seal(KEY, context, expires_at, payload)) == (expires_at, payload)


def test_sealed_bytes_do_not_show_the_payload() -> None:
    assert PAYLOAD not in SEALED
    assert PAYLOAD[:8] not in SEALED


def test_two_seals_of_one_payload_differ() -> None:
    assert len({seal(KEY, CONTEXT, END, PAYLOAD)[-len(PAYLOAD) - 16 :] for _ in range(16)}) == 16


def test_seal_in_another_context_does_not_open() -> None:
    assert not opens(SEALED, context=CONTEXT + "2")


def test_seal_does_not_open_with_another_key() -> None:
    assert not opens(SEALED, key=OTHER_KEY)


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_seal_with_an_edited_byte_does_not_open(position: int) -> None:
    edits = [SEALED[position] ^ 1 << bit for bit in range(8)]
    edited = [SEALED[:position] + bytes([edit]) + SEALED[position + 1 :] for edit in edits]
    assert [text for text in edited if opens(text)] == []


@pytest.mark.parametrize("expires_at", [END - 1, END + 1, 0, 2**64 - 1], ids=["less", "more", "none", "far"])
def test_seal_with_another_end_does_not_open(expires_at: int) -> None:
    """A writer to Redis cannot prolong a session."""
    assert not opens(SEALED[:1] + struct.pack(">Q", expires_at) + SEALED[9:])


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_truncated_seal_does_not_open(length: int) -> None:
    assert not opens(SEALED[:length])


def test_seal_with_added_bytes_does_not_open() -> None:
    assert not opens(SEALED + b"\0")


def test_only_one_version_opens() -> None:
    assert [version for version in range(256) if opens(bytes([version]) + SEALED[1:])] == [3]


@pytest.mark.parametrize(("version", "accepted"), [(0, False), (2, False), (3, True), (255, False)])
def test_layout_is_that_of_version_3(version: int, accepted: bool) -> None:
    """Version, end, nonce, AES-256-GCM: data that is in Redis must still open."""
    head, nonce = struct.pack(">BQ", version, END), bytes(12)
    assert opens(head + nonce + AESGCM(KEY).encrypt(nonce, PAYLOAD, head + CONTEXT.encode())) is accepted


@settings(deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: SEALED[:21] + tail))
def test_unseal_of_any_bytes_raises_only_invalid_seal(sealed: bytes) -> None:
    with pytest.raises(InvalidSeal):
        unseal(KEY, CONTEXT, sealed)


def test_invalid_seal_holds_no_text_and_no_cause() -> None:
    with pytest.raises(InvalidSeal) as caught:
        unseal(OTHER_KEY, CONTEXT, SEALED)
    assert (caught.value.args, caught.value.__cause__) == ((), None)


def test_derive_is_hmac_sha512_of_label_and_material() -> None:
    """NIST SP 800-108: the label, a zero byte, then the context."""
    expected = hmac.new(KEY, b"wxauth label\0material", hashlib.sha512).digest()
    assert derive(KEY, b"material", "wxauth label", 64) == expected
    assert derive(KEY, b"material", "wxauth label", 16) == expected[:16]


@pytest.mark.parametrize(
    "other",
    [derive(OTHER_KEY, b"material", "label"), derive(KEY, b"Material", "label"), derive(KEY, b"material", "Label")],
    ids=["key", "material", "label"],
)
def test_derive_depends_on_key_material_and_label(other: bytes) -> None:
    found = derive(KEY, b"material", "label")
    assert len(found) == 32
    assert found != other
