"""WeChat's cryptography: AES-CBC to decrypt, SHA-1 and HMAC to sign.

AES-CBC does not detect changed data. A caller that can tell a padding error from another error can decrypt data
without the key (a padding oracle). So callers must report every failure alike, after the same work.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from ..models import Secret

#: Bytes of an AES block, of an initialisation vector and of a session_key.
BLOCK: Final = 16


def decode_blocks(text: str) -> bytes:
    """Decode `text`. Raises ValueError if it is not canonical base64 (padded, without unused bits) of AES blocks."""
    raw = b64decode(text, validate=True)
    if b64encode(raw).decode() != text or not raw or len(raw) % BLOCK:
        raise ValueError("this is not canonical base64 of AES blocks")
    return raw


def decrypt(key: bytes, iv: bytes, ciphertext: bytes, pad_to: int = BLOCK) -> tuple[bytes, bool]:
    """Return the plaintext, and whether its PKCS#7 padding is valid. `ciphertext` is one or more blocks.

    Raises ValueError if no AES key has the length of `key`.
    If the padding is invalid, the plaintext is returned with it, so that the caller can do the same work.
    """
    decryptor = Cipher(AES(key), CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    count = padded[-1]
    is_valid = 1 <= count <= pad_to
    is_valid &= hmac.compare_digest(padded[-count:], bytes([count]) * count)
    return padded[:-count] if is_valid else padded, is_valid


def is_sha1(content: bytes, signature: str) -> bool:
    """Return whether `signature` is the SHA-1 of `content` in lower-case hex, compared in constant time."""
    expected = hashlib.sha1(content, usedforsecurity=False).hexdigest()  # WeChat requires SHA-1
    return hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))


def hmac_signature(session_key: Secret, message: str = "") -> str:
    """Return the HMAC-SHA256 that proves knowledge of the session_key. Some interfaces want that of no message.

    The key is the session_key's text. Only for AES is the text decoded from base64.
    """
    return hmac.digest(session_key.reveal().encode(), message.encode(), "sha256").hex()
