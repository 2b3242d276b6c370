"""Seals: what was sealed opens under its key, at its place, with its expiry, and in no other way."""

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
PLACE = "wxa:{rout}:s:id"
EXPIRY = 1_700_000_000
PAYLOAD = b"what nobody may read"
SEALED = seal(KEY, PLACE, EXPIRY, PAYLOAD)


def opens(sealed: bytes, key: bytes = KEY, place: str = PLACE) -> bool:
    try:
        unseal(key, place, sealed)
    except InvalidSeal:
        return False
    return True


def hkdf(salt: bytes, material: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, sections 2.2 and 2.3, from nothing but HMAC."""
    extracted = hmac.digest(salt or bytes(32), material, hashlib.sha256)
    found, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([counter]), hashlib.sha256)
        found += block
    return found[:length]


@settings(deadline=None)
@given(st.binary(max_size=500), st.text(max_size=50), st.integers(0, 2**64 - 1))
def test_what_was_sealed_opens(payload: bytes, place: str, expires_at: int) -> None:
    """Any payload comes back, with its expiry."""
    assert unseal(KEY, place, seal(KEY, place, expires_at, payload)) == (expires_at, payload)


def test_a_seal_hides_the_payload() -> None:
    """Nothing of the payload can be read in what lies in Redis."""
    assert PAYLOAD not in SEALED
    assert PAYLOAD[:8] not in SEALED


def test_two_seals_of_the_same_payload_differ() -> None:
    """Nobody can tell from two seals that they hold the same."""
    assert len({seal(KEY, PLACE, EXPIRY, PAYLOAD)[-len(PAYLOAD) - 16 :] for _ in range(16)}) == 16


def test_a_seal_that_was_moved_does_not_open() -> None:
    """A seal opens nowhere but where it was made for."""
    assert not opens(SEALED, place=PLACE + "2")


def test_another_key_does_not_open() -> None:
    """A seal opens under its own key alone."""
    assert not opens(SEALED, key=OTHER_KEY)


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_an_edited_byte_does_not_open(position: int) -> None:
    """Not a bit of a seal can be changed: version, expiry, nonce, ciphertext or tag."""
    edits = [SEALED[position] ^ 1 << bit for bit in range(8)]
    edited = [SEALED[:position] + bytes([edit]) + SEALED[position + 1 :] for edit in edits]
    assert [text for text in edited if opens(text)] == []


@pytest.mark.parametrize(
    "expires_at", [EXPIRY - 1, EXPIRY + 1, 0, 2**64 - 1], ids=["less", "more", "none", "for ever"]
)
def test_an_expiry_can_not_be_moved(expires_at: int) -> None:
    """Nobody who can write to Redis prolongs a life."""
    assert not opens(SEALED[:1] + struct.pack(">Q", expires_at) + SEALED[9:])


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_a_truncated_seal_does_not_open(length: int) -> None:
    """A seal that was cut off anywhere is broken, and raises nothing else."""
    assert not opens(SEALED[:length])


def test_a_seal_with_more_behind_it_does_not_open() -> None:
    """Nothing can be added to a seal."""
    assert not opens(SEALED + b"\0")


def test_one_version_opens() -> None:
    """Of the 256 first bytes one is right."""
    assert [version for version in range(256) if opens(bytes([version]) + SEALED[1:])] == [2]


@pytest.mark.parametrize(("version", "accepted"), [(0, False), (1, False), (2, True), (255, False)])
def test_the_layout_is_that_of_version_2(version: int, accepted: bool) -> None:
    """Version, expiry, nonce, AES-256-GCM over them and the place: what lies in Redis already must still open."""
    head, nonce = struct.pack(">BQ", version, EXPIRY), bytes(12)
    assert opens(head + nonce + AESGCM(KEY).encrypt(nonce, PAYLOAD, head + PLACE.encode())) is accepted


@settings(deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: SEALED[:21] + tail))
def test_any_bytes_at_all_may_be_handed_in(sealed: bytes) -> None:
    """What was not sealed here is InvalidSeal, and nothing else."""
    with pytest.raises(InvalidSeal):
        unseal(KEY, PLACE, sealed)


def test_a_broken_seal_tells_nothing() -> None:
    """The error carries neither text nor reason, so it may be logged."""
    with pytest.raises(InvalidSeal) as caught:
        unseal(OTHER_KEY, PLACE, SEALED)
    assert (caught.value.args, caught.value.__cause__) == ((), None)


def test_derive_gives_the_answer_of_the_rfc() -> None:
    """RFC 5869, appendix A.3: no salt, no info."""
    known = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert derive(b"", b"\x0b" * 22, "", 42).hex() == known


@pytest.mark.parametrize("length", [1, 3, 16, 31, 32, 33, 64, 100])
def test_derive_is_hkdf_with_the_key_as_salt(length: int) -> None:
    """The key is the salt, the label the info, and the material what is hashed."""
    assert derive(KEY, b"material", "wxauth label", length) == hkdf(KEY, b"material", b"wxauth label", length)


@pytest.mark.parametrize(
    "other",
    [derive(OTHER_KEY, b"material", "label"), derive(KEY, b"Material", "label"), derive(KEY, b"material", "Label")],
    ids=["key", "material", "label"],
)
def test_each_part_makes_another_key(other: bytes) -> None:
    """Another key, other material or another purpose gives other bytes, 32 of them unless told otherwise."""
    found = derive(KEY, b"material", "label")
    assert len(found) == 32
    assert found != other
