"""Tokens: what is minted, what is refused before Redis is asked, and what a ring key derives."""

from __future__ import annotations

import base64
import hashlib
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
FORM = re.compile(r"wxa_[A-Za-z0-9_-]{4}[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}", re.ASCII)
LENGTH = 95
RANDOM = slice(8, 51)
SIGNATURE = slice(52, 95)
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
    """The other texts that mean the same bytes: the last character of 43 holds two bits that mean nothing."""
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
    "tag of another user": lambda text: f"wxa_{RING.newest.tag(BOB)}{text[8:]}",
}


def test_a_token_has_one_shape() -> None:
    """`wxa_`, the routing tag, 256 random bits, a dot, a signature of 256 bits."""
    assert FORM.fullmatch(TOKEN.text)
    assert len(decoded(TOKEN.text[RANDOM])) == len(decoded(TOKEN.text[SIGNATURE])) == 32


def test_every_one_of_the_256_bits_is_random() -> None:
    """Among many tokens each of the 256 bits is now 0 and now 1."""
    numbers = [int.from_bytes(decoded(RING.issue(ALICE).text[RANDOM])) for _ in range(128)]
    ever_set, always_set = 0, 2**256 - 1
    for number in numbers:
        ever_set, always_set = ever_set | number, always_set & number
    assert (ever_set, always_set) == (2**256 - 1, 0)


def test_a_minted_token_is_accepted() -> None:
    """Checking a token gives the same name and the same key as minting it did."""
    assert RING.verify(TOKEN.text) == TOKEN


@pytest.mark.parametrize("position", range(LENGTH))
def test_any_changed_character_is_refused(position: int) -> None:
    """No other character of base64, and no dot, may stand at any place of a token."""
    others = [character for character in ALPHABET + ".=" if character != TOKEN.text[position]]
    changed = [TOKEN.text[:position] + character + TOKEN.text[position + 1 :] for character in others]
    assert [text for text in changed if passes(text)] == []


def test_another_spelling_of_the_same_signature_is_refused() -> None:
    """base64 spells the signature's bytes in four ways; one of them is the token, three are not."""
    spellings = other_spellings(TOKEN.text[SIGNATURE])
    assert len(spellings) == 3
    assert [spelling for spelling in spellings if passes(TOKEN.text[: SIGNATURE.start] + spelling)] == []


@pytest.mark.parametrize("spoilt", [pytest.param(spoilt, id=name) for name, spoilt in HOSTILE.items()])
def test_what_is_no_token_of_ours_is_refused(spoilt: Callable[[str], str]) -> None:
    """Whatever is not a token of ours, letter by letter, is TokenInvalid."""
    with pytest.raises(TokenInvalid):
        RING.verify(spoilt(TOKEN.text))


@settings(deadline=None)
@given(st.text(st.characters()) | st.text(ALPHABET + ".", min_size=LENGTH, max_size=LENGTH) | st.from_regex(FORM))
def test_any_text_at_all_may_be_handed_in(text: str) -> None:
    """What was not minted here raises TokenInvalid, and nothing else."""
    with pytest.raises(TokenInvalid):
        RING.verify(text)


def test_an_older_key_still_verifies() -> None:
    """A new key in front of the ring logs nobody out."""
    assert KeyRing([NEW, OLD]).verify(TOKEN.text) == TOKEN


def test_the_newest_key_signs() -> None:
    """Once a key is put in front, all new tokens are its own."""
    assert passes(KeyRing([NEW, OLD]).issue(ALICE).text, KeyRing([NEW]))


def test_a_dropped_key_refuses() -> None:
    """Dropping a key ends the tokens that it signed."""
    assert not passes(TOKEN.text, KeyRing([NEW]))


@pytest.mark.parametrize(
    ("salt", "accepted"), [(b"wxauth.token", True), (b"itsdangerous.Signer", False)], ids=["own salt", "default salt"]
)
def test_a_signature_is_for_tokens_alone(salt: bytes, accepted: bool) -> None:
    """Signatures have a salt of their own, the one that all living tokens were signed with."""
    key = hashlib.sha256(RING_KEY.encode()).digest()
    signer = Signer(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
    assert passes(signer.sign(TOKEN.text[: SIGNATURE.start - 1]).decode()) is accepted


def test_all_tokens_of_a_user_share_the_routing_tag() -> None:
    """The tag is the user's, so that all that is his lies in one slot."""
    assert {RING.issue(ALICE).tag for _ in range(8)} == {RING.newest.tag(ALICE)} == {TOKEN.text[4:8]}


@pytest.mark.parametrize("part", ["id", "seal_key", "text"])
def test_no_two_tokens_share_anything_else(part: str) -> None:
    """Every token has a record of its own, under a key of its own."""
    assert len({getattr(RING.issue(ALICE), part) for _ in range(8)}) == 8


@pytest.mark.parametrize(
    "derived",
    [
        pytest.param(lambda key, user: key.tag(user), id="tag"),
        pytest.param(lambda key, user: key.user_name(user), id="name"),
        pytest.param(lambda key, user: key.for_user(user, "seal"), id="seal key"),
        pytest.param(lambda key, user: key.for_token(user.openid, "seal"), id="token's key"),
    ],
)
def test_what_is_derived_needs_the_key_and_the_user(derived: Callable[[SigningKey, User], object]) -> None:
    """Another key or another user gives another name, and the same ones give the same again."""
    found = [derived(SigningKey(OLD), ALICE), derived(SigningKey(NEW), ALICE), derived(SigningKey(OLD), BOB)]
    assert len(set(found)) == 3
    assert derived(SigningKey(OLD), ALICE) == found[0]


def test_no_two_users_run_into_each_other() -> None:
    """Where the appid ends and the openid begins makes a difference."""
    key = RING.newest
    assert key.user_name(User("wx1", "2o")) != key.user_name(User("wx12", "o"))


def test_one_label_for_each_purpose() -> None:
    """A token's name says nothing of the key that seals its record."""
    token: Token = RING.issue(ALICE)
    assert token.seal_key[:16] != decoded(token.id + "=")
