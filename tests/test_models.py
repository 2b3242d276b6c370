"""`Secret`: a text that nobody prints, copies or compares by accident."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable

import pytest

from tests.conftest import ALICE, APP_SECRET, APPID, RING_KEY, SESSION_KEY
from wxauth.keys import KeyRing, SigningKey
from wxauth.models import Identity, Secret, SessionKeys
from wxauth.sessions.records import Shelf
from wxauth.settings import Client, Settings
from wxauth.wechat.push import PushDecoder

TEXT = "a-text-that-nobody-may-see"
SECRET = Secret(TEXT)
RING = KeyRing([Secret(RING_KEY)])
TOKEN = RING.issue(ALICE)
SHELF = Shelf.of(RING.newest, ALICE)


def log_line(value: object) -> str:
    return logging.LogRecord("wxauth", logging.INFO, __file__, 1, "it is %s, %r", (value, value), None).getMessage()


def traceback_with_locals(value: object) -> str:
    try:
        raise ValueError(value)
    except ValueError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


PRINTERS = [
    pytest.param(repr, id="repr"),
    pytest.param(str, id="str"),
    pytest.param(ascii, id="ascii"),
    pytest.param(format, id="format"),
    pytest.param("{}".format, id="str.format"),
    pytest.param(lambda value: f"{value} {value!s} {value!r}", id="f-string"),
    pytest.param(lambda value: "%s %r" % (value, value), id="percent"),  # noqa: UP031 - one of the ways
    pytest.param(pprint.pformat, id="pprint"),
    pytest.param(lambda value: json.dumps({"field": value}, default=str), id="json with default=str"),
    pytest.param(log_line, id="log line"),
    pytest.param(traceback_with_locals, id="traceback"),
]

#: A value, and the texts that its printed form must not hold.
HOLDERS = [
    pytest.param(Identity(ALICE, Secret(SESSION_KEY)), [SESSION_KEY], id="Identity"),
    pytest.param(Client(SECRET, None), [TEXT], id="Client"),
    pytest.param(Settings({APPID: Secret(APP_SECRET)}, (SECRET,), SECRET), [APP_SECRET, TEXT], id="Settings"),
    pytest.param(PushDecoder(SECRET, SECRET), [TEXT], id="PushDecoder"),
    pytest.param(SessionKeys(Secret(SESSION_KEY), 5, SECRET), [SESSION_KEY, TEXT], id="SessionKeys"),
    pytest.param(RING, [RING_KEY], id="KeyRing"),
    pytest.param(SigningKey(SECRET), [TEXT], id="SigningKey"),
    pytest.param(TOKEN, [TOKEN.text, TOKEN.text[-43:], repr(TOKEN.seal_key)], id="Token"),
    pytest.param(SHELF, [ALICE.openid, repr(RING.newest.for_user(ALICE, "seal"))], id="Shelf"),
]

#: What one does with a text, and must not be able to do with a Secret.
TEXT_OPERATIONS: list[tuple[str, Callable[[Secret], object]]] = [
    ("add", lambda secret: "key: " + secret),  # type: ignore[operator]
    ("join", lambda secret: ", ".join([secret])),  # type: ignore[list-item]
    ("iterate", lambda secret: list(secret)),  # type: ignore[call-overload]
    ("length", lambda secret: len(secret)),  # type: ignore[arg-type]
    ("index", lambda secret: secret[0]),  # type: ignore[index]
    ("bytes", lambda secret: bytes(secret)),  # type: ignore[call-overload]
    ("json", lambda secret: json.dumps(secret)),
    ("vars", lambda secret: vars(secret)),
    ("padding", lambda secret: f"{secret:>40}"),
    ("order", lambda secret: secret < secret),  # type: ignore[operator]
]

COPIERS = [
    *(
        pytest.param(lambda value, protocol=protocol: pickle.dumps(value, protocol), id=f"pickle {protocol}")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda value: pickle.dumps(Client(value, None)), id="pickle of its holder"),
    pytest.param(lambda value: copy.deepcopy(Client(value, None)), id="deepcopy of its holder"),
    pytest.param(lambda value: dataclasses.asdict(Client(value, None)), id="asdict of its holder"),
]


def test_reveal_gives_the_text() -> None:
    """There is one way in, and it has a name to search for."""
    assert SECRET.reveal() == TEXT


@pytest.mark.parametrize("printed", PRINTERS)
def test_a_secret_is_not_printed(printed: Callable[[object], str]) -> None:
    """No way of making a text of it shows it, and each shows that something is there."""
    line = printed(SECRET)
    assert TEXT not in line
    assert "Secret(***)" in line


@pytest.mark.parametrize("printed", PRINTERS)
@pytest.mark.parametrize(("holder", "texts"), HOLDERS)
def test_no_holder_prints_what_it_holds(holder: object, texts: list[str], printed: Callable[[object], str]) -> None:
    """Whatever holds a secret, a key or a token may be printed, too."""
    line = printed(holder)
    assert [text for text in texts if text in line] == []


@pytest.mark.parametrize("operation", [pytest.param(operation, id=name) for name, operation in TEXT_OPERATIONS])
def test_a_secret_is_no_text(operation: Callable[[Secret], object]) -> None:
    """It can't be used where a text is wanted, so it does not slip into one."""
    with pytest.raises(TypeError) as caught:
        operation(SECRET)
    assert TEXT not in str(caught.value)


@pytest.mark.parametrize("copied", COPIERS)
def test_a_secret_is_neither_pickled_nor_copied(copied: Callable[[Secret], object]) -> None:
    """It does not leave the process by way of a cache or a queue."""
    with pytest.raises(TypeError, match="not to be pickled"):
        copied(SECRET)


@pytest.mark.parametrize("text", ["", "a", "密钥", TEXT], ids=["empty", "one letter", "Chinese", "long"])
def test_secrets_of_one_text_are_equal(text: str) -> None:
    """Equal texts make equal secrets, with equal hashes."""
    assert Secret(text) == Secret(text)
    assert hash(Secret(text)) == hash(Secret(text))


@pytest.mark.parametrize(
    "other",
    [Secret(TEXT + "x"), Secret(""), TEXT, TEXT.encode(), None],
    ids=["longer", "empty", "str", "bytes", "None"],
)
def test_a_secret_equals_nothing_else(other: object) -> None:
    """Another text, or the text itself outside of a Secret, is not equal."""
    assert other != SECRET
