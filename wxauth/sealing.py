"""The door to `cryptography`: derive keys, seal and open what lies in Redis. Knows nothing of what it seals."""

from __future__ import annotations

import os
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: Another layout of anything that is sealed is another version.
VERSION: Final = 2
NONCE: Final = 12
HEAD: Final = struct.Struct(">BQ")  # version, absolute expiry in Unix seconds


class SealBroken(Exception):
    """These bytes were not sealed under this key, for this place and this expiry.

    It never leaves the store, so it is no part of the tree in `errors`.
    """


def derive(key: bytes, material: bytes, label: str, length: int = 32) -> bytes:
    """`length` bytes for the one purpose that `label` names: HKDF-SHA256 (RFC 5869) with `key` as the salt."""
    return HKDF(hashes.SHA256(), length, salt=key, info=label.encode()).derive(material)


def seal(key: bytes, place: str, expires_at: int, payload: bytes) -> bytes:
    """`payload` under AES-256-GCM: version, expiry, nonce, ciphertext.

    `place` is where it will lie in Redis. It is authenticated along with version and expiry, so the result opens
    nowhere else and lives no longer.
    """
    head = HEAD.pack(VERSION, expires_at)
    nonce = os.urandom(NONCE)
    return head + nonce + AESGCM(key).encrypt(nonce, payload, head + place.encode())


def unseal(key: bytes, place: str, sealed: bytes) -> tuple[int, bytes]:
    """The expiry and the payload that `seal` was given, or SealBroken; any bytes at all may be handed in."""
    head, nonce, ciphertext = sealed[: HEAD.size], sealed[HEAD.size : HEAD.size + NONCE], sealed[HEAD.size + NONCE :]
    if len(nonce) < NONCE or head[0] != VERSION:
        raise SealBroken
    try:
        payload = AESGCM(key).decrypt(nonce, ciphertext, head + place.encode())
    except InvalidTag:
        raise SealBroken from None
    return HEAD.unpack(head)[1], payload
