"""The door to `itsdangerous`: mint a token, check one, and what a ring key derives for a token, a user or an app.

    wxa_ rout <43 characters: 256 random bits> . <43 characters: HMAC-SHA256>

`rout` is the routing tag, a keyed hash of the user that keeps all keys of one user in one Redis Cluster slot.
Nothing here talks to Redis: a token that was not signed by us costs no command at all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import Signer

from .errors import TokenInvalid
from .models import Secret, User

#: Another layout of anything that is sealed is another version.
VERSION: Final = 2
NONCE: Final = 12
HEAD: Final = struct.Struct(">BQ")  # version, absolute expiry in Unix seconds


class InvalidSeal(Exception):
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
    """The expiry and the payload that `seal` was given, or InvalidSeal; any bytes at all may be handed in."""
    head, nonce, ciphertext = sealed[: HEAD.size], sealed[HEAD.size : HEAD.size + NONCE], sealed[HEAD.size + NONCE :]
    if len(nonce) < NONCE or head[0] != VERSION:
        raise InvalidSeal
    try:
        payload = AESGCM(key).decrypt(nonce, ciphertext, head + place.encode())
    except InvalidTag:
        raise InvalidSeal from None
    return HEAD.unpack(head)[1], payload


TAG_LENGTH: Final = 4
LENGTH: Final = 4 + TAG_LENGTH + 43 + 1 + 43
SHAPE: Final = re.compile(rf"(wxa_([A-Za-z0-9_-]{{{TAG_LENGTH}}})[A-Za-z0-9_-]{{43}})\.([A-Za-z0-9_-]{{43}})")


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class SigningKey:
    """One of our own keys, and everything that is derived from it."""

    def __init__(self, secret: Secret) -> None:
        self._key = hashlib.sha256(secret.reveal().encode()).digest()
        self._signer = Signer(self._key, salt=b"wxauth.token", key_derivation="hmac", digest_method=hashlib.sha256)

    def signature(self, value: str) -> str:
        return self._signer.get_signature(value).decode()

    def for_token(self, value: str, label: str, length: int = 32) -> bytes:
        return derive(self._key, value.encode(), f"wxauth token {label}", length)

    def for_user(self, user: User, label: str, length: int = 32) -> bytes:
        # The zero byte can be part of neither, so no two users give the same bytes.
        return derive(self._key, f"{user.appid}\0{user.openid}".encode(), f"wxauth user {label}", length)

    def for_app(self, appid: str, label: str, length: int = 32) -> bytes:
        return derive(self._key, appid.encode(), f"wxauth app {label}", length)

    def tag(self, user: User) -> str:
        return _text(self.for_user(user, "tag", 3))

    def user_name(self, user: User) -> str:
        return _text(self.for_user(user, "name", 16))

    def app_name(self, appid: str) -> str:
        return _text(self.for_app(appid, "name", 16))


@dataclass(frozen=True, slots=True)
class Token:
    """A token whose signature is ours. Its `id` names the record in Redis and in the user's own list."""

    text: str = field(repr=False)
    tag: str
    id: str
    seal_key: bytes = field(repr=False)


class KeyRing:
    """Our keys, newest first: the newest signs, all of them verify."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._keys = tuple(SigningKey(key) for key in keys)

    def __iter__(self) -> Iterator[SigningKey]:
        return iter(self._keys)

    @property
    def newest(self) -> SigningKey:
        return self._keys[0]

    def issue(self, user: User) -> Token:
        """A new token for `user`; its text is to be shown once, to the client that logged in."""
        key = self.newest
        value = f"wxa_{key.tag(user)}{secrets.token_urlsafe(32)}"
        return _token(key, value, key.signature(value))

    def verify(self, text: str) -> Token:
        """The token behind `text`, or TokenInvalid. Any text may be handed in."""
        return _token(*self._signed(text))

    def verify_signature(self, text: str) -> None:
        """As `check`, for a fraction of its cost: TokenInvalid unless one of our keys has signed `text`."""
        self._signed(text)

    def _signed(self, text: str) -> tuple[SigningKey, str, str]:
        """The key that signed `text`, what it signed, and the signature."""
        match = SHAPE.fullmatch(text) if len(text) == LENGTH else None
        if match is None:
            raise TokenInvalid
        value, signature = match[1], match[3]
        for key in self._keys:
            # The texts are compared, not the decoded bytes: base64 has four spellings for these 32 bytes.
            if hmac.compare_digest(key.signature(value), signature):
                return key, value, signature
        raise TokenInvalid


def _token(key: SigningKey, value: str, signature: str) -> Token:
    return Token(
        text=f"{value}.{signature}",
        tag=value[4 : 4 + TAG_LENGTH],
        id=_text(key.for_token(value, "name", 16)),
        seal_key=key.for_token(value, "seal"),
    )
