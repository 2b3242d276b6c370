"""The encryption and the signatures of WeChat, from its documentation. Shares no code with `wxauth.wechat`."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

#: PKCS#7 block sizes in bits.
USERDATA_BLOCK: Final = 128
PUSH_BLOCK: Final = 256


def compact(content: Mapping[str, object]) -> str:
    """Return JSON in WeChat's format: no spaces, no escapes for Chinese."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def encrypt(session_key: str, content: Mapping[str, object]) -> dict[str, str]:
    """Return `encryptedData` and `iv` of user data."""
    iv = secrets.token_bytes(16)
    encrypted = _aes_cbc(base64.b64decode(session_key), iv, compact(content).encode(), USERDATA_BLOCK)
    return {"encryptedData": base64.b64encode(encrypted).decode(), "iv": base64.b64encode(iv).decode()}


def sign(session_key: str, raw_data: str) -> str:
    """Return the `signature` of `rawData`."""
    return hashlib.sha1(f"{raw_data}{session_key}".encode()).hexdigest()  # noqa: S324 - as WeChat does


def encrypt_push(aes_key: str, appid: str, message: bytes) -> str:
    """Return the value of `Encrypt` for a push message in safe mode."""
    key = base64.b64decode(f"{aes_key}=")
    plaintext = secrets.token_bytes(16) + len(message).to_bytes(4, "big") + message + appid.encode()
    return base64.b64encode(_aes_cbc(key, key[:16], plaintext, PUSH_BLOCK)).decode()


def sign_push(*parts: str) -> str:
    """Return `signature` (token, timestamp, nonce) or `msg_signature` (these and the value of `Encrypt`)."""
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324 - as WeChat does


def serialize(message: Mapping[str, object], form: str) -> bytes:
    """Return `message` in the format that is set in the WeChat console: `json` or `xml`."""
    if form == "json":
        return compact(message).encode()
    texts = (f"<{name}><![CDATA[{value}]]></{name}>" for name, value in message.items())
    return f"<xml>{''.join(texts)}</xml>".encode()


def _aes_cbc(key: bytes, iv: bytes, content: bytes, block_bits: int) -> bytes:
    padder = PKCS7(block_bits).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
