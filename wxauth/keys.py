"""The key ring: derive keys, sign tokens, seal what Redis keeps. Nothing here talks to Redis.

    wxa_ <22 characters: hash tag> <43 characters: 256 random bits> . <43 characters: HMAC-SHA256>

The hash tag names the Redis hash of the user. It is a keyed hash, so it tells nothing about the user. Its first four
characters are the id of the signing key: so a hash whose key was dropped can be told from the others.

Tickets and device codes have the same form with other prefixes. The prefix is signed too.
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
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.hmac import HMAC
from itsdangerous import Signer
from itsdangerous.signer import SigningAlgorithm

from .errors import TokenInvalid
from .models import Secret, User

PREFIX: Final = "wxa_"
TICKET_PREFIX: Final = "wxt_"
DEVICE_PREFIX: Final = "wxd_"
TAG_LENGTH: Final = 22
TOKEN_LENGTH: Final = len(PREFIX) + TAG_LENGTH + 43 + 1 + 43
TOKEN: Final = re.compile(rf"([a-z]{{3}}_[A-Za-z0-9_-]{{{TAG_LENGTH + 43}}})\.([A-Za-z0-9_-]{{43}})")

#: Increase it when the layout of sealed data changes.
VERSION: Final = 3
NONCE_LENGTH: Final = 12
HEAD: Final = struct.Struct(">BQ")  # version, absolute end in Unix seconds


class InvalidSeal(Exception):
    """The bytes were not sealed under this key, in this context, with this end.

    It is internal to the store and the access tokens, so it is not part of the tree in `errors`.
    """


def derive(key: HMAC | bytes, material: bytes, label: str, length: int = 32) -> bytes:
    """Return `length` bytes (at most 64) for the purpose `label`: HMAC-SHA512 as a KDF (NIST SP 800-108).

    For a key that is used often, prepare HMAC(key, SHA512()) once.
    """
    mac = HMAC(key, SHA512()) if isinstance(key, bytes) else key
    return _digest(mac, label.encode() + b"\0" + material)[:length]


def _digest(mac: HMAC, message: bytes) -> bytes:
    # Threads share `mac`, so only the copy changes. A copy takes half the time of a new HMAC.
    copy = mac.copy()
    copy.update(message)
    return copy.finalize()


def seal(key: bytes, context: str, expires_at: int, payload: bytes) -> bytes:
    """Encrypt `payload` with AES-256-GCM. Return version, end, nonce and ciphertext.

    Version, end and `context` (the place in Redis) are authenticated: the result opens only there, and its end
    cannot be changed.
    """
    head = HEAD.pack(VERSION, expires_at)
    nonce = os.urandom(NONCE_LENGTH)
    return head + nonce + AESGCM(key).encrypt(nonce, payload, head + context.encode())


def unseal(key: bytes, context: str, sealed: bytes) -> tuple[int, bytes]:
    """Return the end (Unix seconds) and the payload. Raises InvalidSeal for any other bytes."""
    head, rest = sealed[: HEAD.size], sealed[HEAD.size :]
    nonce, ciphertext = rest[:NONCE_LENGTH], rest[NONCE_LENGTH:]
    if len(nonce) < NONCE_LENGTH or head[0] != VERSION:
        raise InvalidSeal
    try:
        payload = AESGCM(key).decrypt(nonce, ciphertext, head + context.encode())
    except InvalidTag:
        raise InvalidSeal from None
    return HEAD.unpack(head)[1], payload


@dataclass(frozen=True, slots=True)
class UserKeys:
    """What a signing key derives for one user: the hash tag, and the keys for data that belongs to the user."""

    hash_tag: str
    seal_key: bytes = field(repr=False)
    fingerprint_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token, ticket or device code with a valid signature. `id` is what Redis keeps of it."""

    text: str = field(repr=False)
    hash_tag: str
    id: str
    seal_key: bytes = field(repr=False)


class _PreparedHMAC(SigningAlgorithm):
    """HMAC-SHA256 with the one key of its Signer. It ignores the `key` that the Signer passes."""

    def __init__(self, key: bytes) -> None:
        self._mac = HMAC(key, SHA256())

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return _digest(self._mac, value)


class SigningKey:
    """One key of the ring, and everything derived from it."""

    def __init__(self, secret: Secret) -> None:
        key = hashlib.sha256(secret.reveal().encode()).digest()
        self._key = HMAC(key, SHA512())
        #: Four characters, at the front of each hash tag.
        self.id = _base64(derive(self._key, b"", "wxauth key id", 3))
        signer = Signer(key, salt=b"wxauth.token.2", key_derivation="hmac", digest_method=hashlib.sha256)
        # A Signer derives its key for each signature, unless it is told that this has been done.
        signing_key = signer.derive_key()
        self._signer = Signer(signing_key, key_derivation="none", algorithm=_PreparedHMAC(signing_key))

    def signature(self, body: str) -> str:
        """Return the 43 characters that sign `body`."""
        return self._signer.get_signature(body).decode()

    def token(self, body: str, signature: str) -> Token:
        """Return the token of `body`, whose signature was checked or made by the caller."""
        derived = derive(self._key, body.encode(), "wxauth token", 48)
        hash_tag = body[len(PREFIX) : len(PREFIX) + TAG_LENGTH]
        return Token(f"{body}.{signature}", hash_tag, _base64(derived[:16]), derived[16:])

    def for_user(self, user: User) -> UserKeys:
        """Return the hash tag and the keys of a user."""
        # Neither part can hold a zero byte, so no two users give the same bytes.
        derived = derive(self._key, f"{user.appid}\0{user.openid}".encode(), "wxauth user", 64)
        hash_tag = (self.id + _base64(derived[:16]))[:TAG_LENGTH]
        return UserKeys(hash_tag, derived[16:48], derived[48:])

    def for_user_code(self, user_code: str) -> str:
        """Return the hash tag of a device code's user_code."""
        derived = derive(self._key, user_code.encode(), "wxauth user code", 16)
        return (self.id + _base64(derived))[:TAG_LENGTH]

    def for_device(self, hash_tag: str) -> bytes:
        """Return the key that seals what is kept of a device code."""
        return derive(self._key, hash_tag.encode(), "wxauth device")

    def for_app(self, appid: str, label: str, length: int = 32) -> bytes:
        """Return `length` bytes for the purpose `label` of an app."""
        return derive(self._key, appid.encode(), f"wxauth app {label}", length)


class KeyRing:
    """Our keys, newest first: the newest signs, all of them verify."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._keys = tuple(SigningKey(key) for key in keys)

    def __iter__(self) -> Iterator[SigningKey]:
        return iter(self._keys)

    @property
    def newest(self) -> SigningKey:
        """The key that signs new tokens."""
        return self._keys[0]

    def issue(self, user: User, secret: str = "") -> Token:
        """Return a new token for `user`. Show its text once, to the client that logged in. `secret` as in `make`."""
        return self.make(self.newest.for_user(user).hash_tag, secret)

    def issue_for(self, device_code: Token, user: User) -> Token:
        """Return the token that `user` has granted to a device code: the same one each time."""
        return self.issue(user, _base64(derive(device_code.seal_key, b"", "wxauth granted token")))

    def make(self, hash_tag: str, secret: str = "", prefix: str = PREFIX) -> Token:
        """Return a new token, ticket or device code of this hash tag. `secret` has 43 characters, random if empty.

        The key of the hash tag signs it: without that key no token of the hash is good.
        """
        body = f"{prefix}{hash_tag}{secret or secrets.token_urlsafe(32)}"
        key = self.key_of(hash_tag)
        return key.token(body, key.signature(body))

    def key_of(self, hash_tag: str) -> SigningKey:
        """Return the key that made this hash tag. The tag of a verified token has one."""
        return next(key for key in self._keys if hash_tag.startswith(key.id))

    def verify(self, text: str, prefix: str = PREFIX) -> Token:
        """Return the token of `text`, which may be any text. Raises TokenInvalid if no key of ours signed it."""
        match = TOKEN.fullmatch(text) if len(text) == TOKEN_LENGTH and text.startswith(prefix) else None
        if match is None:
            raise TokenInvalid
        body, signature = match.groups()
        for key in self._keys:
            # Compare the texts, not the decoded bytes: base64 has four spellings of these 32 bytes.
            if hmac.compare_digest(key.signature(body), signature):
                return key.token(body, signature)
        raise TokenInvalid


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
