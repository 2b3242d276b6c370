"""How the fake WeChat seals and signs, as WeChat's documents say. It shares no line with what opens and checks."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

#: Bits to which the padding of user data and of a push fills up the last block.
OF_USERDATA: Final = 128
OF_A_PUSH: Final = 256


def compact(content: Mapping[str, object]) -> str:
    """JSON as WeChat writes it: no spaces, and Chinese as it is."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def seal(session_key: str, content: Mapping[str, object]) -> dict[str, str]:
    """`content` as a phone is given it: `encryptedData` and `iv`."""
    iv = secrets.token_bytes(16)
    sealed = _aes_cbc(base64.b64decode(session_key), iv, compact(content).encode(), OF_USERDATA)
    return {"encryptedData": base64.b64encode(sealed).decode(), "iv": base64.b64encode(iv).decode()}


def sign(session_key: str, raw_data: str) -> str:
    """The `signature` beside `rawData`."""
    return hashlib.sha1(f"{raw_data}{session_key}".encode()).hexdigest()  # noqa: S324 - as WeChat does


def seal_push(aes_key: str, appid: str, message: bytes) -> str:
    """`message` as it stands under `Encrypt` in the safe mode."""
    key = base64.b64decode(f"{aes_key}=")
    whole = secrets.token_bytes(16) + len(message).to_bytes(4, "big") + message + appid.encode()
    return base64.b64encode(_aes_cbc(key, key[:16], whole, OF_A_PUSH)).decode()


def sign_push(*parts: str) -> str:
    """The `signature` of token, timestamp and nonce, or the `msg_signature` of these and what is sealed."""
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324 - as WeChat does


def written(message: Mapping[str, object], form: str) -> bytes:
    """`message` in the form that was chosen in the console: `json` or `xml`."""
    if form == "json":
        return compact(message).encode()
    texts = (f"<{name}><![CDATA[{value}]]></{name}>" for name, value in message.items())
    return f"<xml>{''.join(texts)}</xml>".encode()


def _aes_cbc(key: bytes, iv: bytes, content: bytes, block_bits: int) -> bytes:
    padder = PKCS7(block_bits).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
