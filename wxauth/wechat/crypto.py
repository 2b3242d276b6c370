"""WeChat's own cryptography: AES-CBC as it seals with, SHA-1 as it signs with. Knows no key's owner and no meaning.

None of it is what one would choose today: AES-CBC says nothing of whether the text was changed. So nobody may be told
in what way an opened text is wrong, nor learn it from the time that it took.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

#: Bytes of an AES block, of an initialisation vector and of a session_key.
BLOCK: Final = 16


def decode(text: str) -> bytes:
    """The bytes of `text`; ValueError if it is not base64 in its one spelling, padded and without bits left over."""
    raw = b64decode(text, validate=True)
    if b64encode(raw).decode() != text:
        raise ValueError("this is not how base64 spells it")
    return raw


def decrypt(key: bytes, iv: bytes, ciphertext: bytes, pad_to: int = BLOCK) -> tuple[bytes, bool]:
    """The text, and whether its PKCS#7 padding to `pad_to` bytes is whole; `ciphertext` is one block or more.

    Where the padding is broken the text is there all the same, so that whoever judges it takes as long over it.
    """
    opening = Cipher(AES(key), CBC(iv)).decryptor()
    padded = opening.update(ciphertext) + opening.finalize()
    count = padded[-1]
    whole = 1 <= count <= pad_to
    whole &= hmac.compare_digest(padded[-count:], bytes([count]) * count)
    return padded[:-count] if whole else padded, whole


def data_is_signed(raw_data: bytes, session_key: str, signature: str) -> bool:
    """Whether `signature` is that of user data: SHA-1 over the data and the text of the session_key, as hex."""
    return _equal(_sha1(raw_data + session_key.encode()), signature)


def push_is_signed(parts: list[str], signature: str) -> bool:
    """Whether `signature` is that of a push: SHA-1 over its parts in alphabetical order, the token among them."""
    return _equal(_sha1("".join(sorted(parts)).encode(errors="replace")), signature)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()  # WeChat's choice, not ours


def _equal(signature: str, presented: str) -> bool:
    return hmac.compare_digest(signature.encode(), presented.encode(errors="replace"))
