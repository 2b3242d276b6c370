"""Tokens: issue and verify, and what a signing key derives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import string
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from itsdangerous import Signer

from tests.conftest import ALICE, APPID, RING_KEY
from wxauth.errors import TokenInvalid
from wxauth.keys import KeyRing, SigningKey, Token
from wxauth.models import Secret, User

ALPHABET = string.ascii_letters + string.digits + "-_"
FORM = re.compile(r"wxa_[A-Za-z0-9_-]{22}[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}", re.ASCII)
LENGTH = 113
RANDOM = slice(26, 69)
SIGNATURE = slice(70, 113)
BOB = User(APPID, "oBOB")
OLD, NEW = Secret(RING_KEY), Secret(RING_KEY[::-1])
RING = KeyRing([OLD])
TOKEN = RING.issue(ALICE)


def passes(text: str, ring: KeyRing = RING) -> bool:
    try:
        ring.verify(text)
    except TokenInvalid:
        return False
    return True


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=")


def other_spellings(signature: str) -> list[str]:
    """Return the other texts of the same bytes: two bits of the last character have no meaning."""
    spellings = [signature[:-1] + last for last in ALPHABET if last != signature[-1]]
    return [spelling for spelling in spellings if decoded(spelling) == decoded(signature)]


def with_full_width_digits(text: str) -> str:
    return re.sub(r"[0-9]", lambda digit: chr(ord(digit[0]) + 0xFEE0), text[:-1] + "0")


HOSTILE: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "prefix alone": lambda text: "wxa_",
    "one short at the end": lambda text: text[:-1],
    "one short at the front": lambda text: text[1:],
    "one long at the end": lambda text: text + "A",
    "one long at the front": lambda text: "A" + text,
    "twice": lambda text: text + text,
    "8 KiB": lambda text: text + "A" * 8192,
    "1 MiB": lambda text: text + "A" * 1048576,
    "NUL for a character": lambda text: text[:-1] + "\0",
    "NUL behind": lambda text: text + "\0",
    "CR LF behind": lambda text: text + "\r\n",
    "CR LF for two characters": lambda text: text[:-2] + "\r\n",
    "newline behind": lambda text: text + "\n",
    "newline for a character": lambda text: text[:-1] + "\n",
    "space in front": lambda text: " " + text,
    "Bearer in front": lambda text: "Bearer " + text,
    "padding behind": lambda text: text + "=",
    "upper case": lambda text: text.upper(),
    "full-width digits": with_full_width_digits,
    "Arabic digits": lambda text: text[:-1] + "٣",
    "Cyrillic letter": lambda text: text[:1] + "х" + text[2:],
    "Chinese": lambda text: "票" * LENGTH,
    "lone surrogate": lambda text: text[:-1] + "\ud800",
    "no dot": lambda text: text.replace(".", "A"),
    "two dots": lambda text: text[:20] + "." + text[21:],
    "other prefix": lambda text: "wxb_" + text[4:],
    "signature of another token": lambda text: text[: SIGNATURE.start] + RING.issue(ALICE).text[SIGNATURE],
    "tag of another user": lambda text: f"wxa_{RING.newest.for_user(BOB).hash_tag}{text[26:]}",
}


def test_token_has_the_documented_form() -> None:
    """Prefix, hash tag, 256 random bits, a dot, a signature of 256 bits."""
    assert FORM.fullmatch(TOKEN.text)
    assert len(decoded(TOKEN.text[RANDOM])) == len(decoded(TOKEN.text[SIGNATURE])) == 32


def test_each_of_the_256_bits_is_random() -> None:
    numbers = [int.from_bytes(decoded(RING.issue(ALICE).text[RANDOM])) for _ in range(128)]
    ever_set, always_set = 0, 2**256 - 1
    for number in numbers:
        ever_set, always_set = ever_set | number, always_set & number
    assert (ever_set, always_set) == (2**256 - 1, 0)


def test_verify_returns_the_issued_token() -> None:
    assert RING.verify(TOKEN.text) == TOKEN


@pytest.mark.parametrize("position", range(LENGTH))
def test_token_with_a_changed_character_is_refused(position: int) -> None:
    others = [character for character in ALPHABET + ".=" if character != TOKEN.text[position]]
    changed = [TOKEN.text[:position] + character + TOKEN.text[position + 1 :] for character in others]
    assert [text for text in changed if passes(text)] == []


def test_other_spelling_of_the_signature_is_refused() -> None:
    """base64 spells the signature's bytes in four ways; only one of them is the token."""
    spellings = other_spellings(TOKEN.text[SIGNATURE])
    assert len(spellings) == 3
    assert [spelling for spelling in spellings if passes(TOKEN.text[: SIGNATURE.start] + spelling)] == []


@pytest.mark.parametrize("spoilt", [pytest.param(spoilt, id=name) for name, spoilt in HOSTILE.items()])
def test_malformed_token_is_refused(spoilt: Callable[[str], str]) -> None:
    with pytest.raises(TokenInvalid):
        RING.verify(spoilt(TOKEN.text))


@settings(deadline=None)
@given(st.text(st.characters()) | st.text(ALPHABET + ".", min_size=LENGTH, max_size=LENGTH) | st.from_regex(FORM))
def test_verify_of_any_text_raises_only_token_invalid(text: str) -> None:
    with pytest.raises(TokenInvalid):
        RING.verify(text)


def test_older_key_still_verifies() -> None:
    assert KeyRing([NEW, OLD]).verify(TOKEN.text) == TOKEN


def test_newest_key_signs() -> None:
    assert passes(KeyRing([NEW, OLD]).issue(ALICE).text, KeyRing([NEW]))


def test_token_of_a_dropped_key_is_refused() -> None:
    assert not passes(TOKEN.text, KeyRing([NEW]))


@pytest.mark.parametrize(
    ("salt", "accepted"),
    [(b"wxauth.token.2", True), (b"itsdangerous.Signer", False)],
    ids=["own salt", "default salt"],
)
def test_signature_has_the_salt_of_tokens(salt: bytes, accepted: bool) -> None:
    key = hashlib.sha256(RING_KEY.encode()).digest()
    signer = Signer(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
    assert passes(signer.sign(TOKEN.text[: SIGNATURE.start - 1]).decode()) is accepted


def derived_from_ring_key(label: bytes, material: str, length: int) -> bytes:
    key = hashlib.sha256(RING_KEY.encode()).digest()
    return hmac.new(key, label + b"\0" + material.encode(), "sha512").digest()[:length]


def test_what_is_derived_is_the_same_in_each_version() -> None:
    """Otherwise an upgrade logs everybody out."""
    of_token = derived_from_ring_key(b"wxauth token", TOKEN.text[: SIGNATURE.start - 1], 48)
    assert (decoded(TOKEN.id + "="), TOKEN.seal_key) == (of_token[:16], of_token[16:])
    of_user = derived_from_ring_key(b"wxauth user", f"{ALICE.appid}\0{ALICE.openid}", 64)
    keys = RING.newest.for_user(ALICE)
    assert (keys.seal_key, keys.fingerprint_key) == (of_user[16:48], of_user[48:])
    tag = derived_from_ring_key(b"wxauth key id", "", 3), of_user[:16]
    assert keys.hash_tag == "".join(base64.urlsafe_b64encode(part).decode() for part in tag)[:22]


@pytest.mark.parametrize(
    ("found", "label", "material"),
    [
        (RING.newest.for_device("tag"), b"wxauth device", "tag"),
        (RING.newest.for_app("wx1", "seal"), b"wxauth app seal", "wx1"),
        (decoded(RING.newest.for_user_code("CODE")[4:] + "="), b"wxauth user code", "CODE"),
    ],
    ids=["device", "app", "user_code"],
)
def test_other_derived_keys_are_the_same_in_each_version(found: bytes, label: bytes, material: str) -> None:
    assert found == derived_from_ring_key(label, material, len(found))


def test_tokens_of_a_user_share_the_hash_tag() -> None:
    tags = {RING.issue(ALICE).hash_tag for _ in range(8)}
    assert tags == {RING.newest.for_user(ALICE).hash_tag} == {TOKEN.text[4:26]}


@pytest.mark.parametrize("part", ["id", "seal_key", "text"])
def test_each_token_has_its_own(part: str) -> None:
    assert len({getattr(RING.issue(ALICE), part) for _ in range(8)}) == 8


@pytest.mark.parametrize(
    "derived",
    [
        pytest.param(lambda key, user: key.for_user(user).hash_tag, id="hash tag"),
        pytest.param(lambda key, user: key.for_user(user).seal_key, id="seal key"),
        pytest.param(lambda key, user: key.for_user(user).fingerprint_key, id="fingerprint key"),
        pytest.param(lambda key, user: key.token(TOKEN.text[:69] + user.openid, "").seal_key, id="token's key"),
        pytest.param(lambda key, user: key.for_app(user.openid, "seal"), id="app's key"),
    ],
)
def test_derived_keys_depend_on_the_ring_key_and_the_user(derived: Callable[[SigningKey, User], object]) -> None:
    found = [derived(SigningKey(OLD), ALICE), derived(SigningKey(NEW), ALICE), derived(SigningKey(OLD), BOB)]
    assert len(set(found)) == 3
    assert derived(SigningKey(OLD), ALICE) == found[0]


def test_hash_tag_begins_with_the_id_of_its_key() -> None:
    """Four characters of base64: a leaked name shows the key, and nothing of the user."""
    old, new = SigningKey(OLD), SigningKey(NEW)
    assert re.fullmatch(r"[A-Za-z0-9_-]{4}", old.id)
    assert {old.for_user(user).hash_tag[:4] for user in (ALICE, BOB)} == {old.id}
    assert new.for_user(ALICE).hash_tag.startswith(new.id)
    assert old.id != new.id


def test_appid_and_openid_are_separated() -> None:
    key = RING.newest
    assert key.for_user(User("wx1", "2o")) != key.for_user(User("wx12", "o"))


def test_session_id_says_nothing_about_the_seal_key() -> None:
    token: Token = RING.issue(ALICE)
    assert token.seal_key[:16] != decoded(token.id + "=")


@pytest.mark.parametrize("secret", ["hash_tag", "seal_key", "fingerprint_key"])
def test_repr_of_user_keys_holds_no_key(secret: str) -> None:
    keys = RING.newest.for_user(ALICE)
    assert (repr(getattr(keys, secret)) in repr(keys)) is (secret == "hash_tag")
