"""`Secret`: a text that is not printed, copied or compared by accident."""

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
from flask import Flask, jsonify, render_template_string

from tests.conftest import ALICE, APP_SECRET, APPID, RING_KEY, SESSION_KEY
from wxauth.keys import KeyRing, SigningKey
from wxauth.models import Identity, Secret, SessionKeys
from wxauth.sessions.records import UserHash
from wxauth.settings import Client, Settings
from wxauth.wechat.push import PushDecoder

TEXT = "a-text-that-must-not-be-shown"
SECRET = Secret(TEXT)
RING = KeyRing([Secret(RING_KEY)])
TOKEN = RING.issue(ALICE)
KEYS = RING.newest.for_user(ALICE)
HASH = UserHash.of(RING.newest, ALICE)


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
    pytest.param(lambda value: "%s %r" % (value, value), id="percent"),  # noqa: UP031 - one of the printers
    pytest.param(pprint.pformat, id="pprint"),
    pytest.param(lambda value: json.dumps({"field": value}, default=str), id="json with default=str"),
    pytest.param(log_line, id="log line"),
    pytest.param(traceback_with_locals, id="traceback"),
]

#: A value, and the texts that its printed form must not contain.
HOLDERS = [
    pytest.param(Identity(ALICE, Secret(SESSION_KEY)), [SESSION_KEY], id="Identity"),
    pytest.param(Client(SECRET, None), [TEXT], id="Client"),
    pytest.param(Settings({APPID: Secret(APP_SECRET)}, (SECRET,), SECRET), [APP_SECRET, TEXT], id="Settings"),
    pytest.param(PushDecoder(SECRET, SECRET), [TEXT], id="PushDecoder"),
    pytest.param(SessionKeys(Secret(SESSION_KEY), 5, SECRET), [SESSION_KEY, TEXT], id="SessionKeys"),
    pytest.param(RING, [RING_KEY], id="KeyRing"),
    pytest.param(SigningKey(SECRET), [TEXT], id="SigningKey"),
    pytest.param(TOKEN, [TOKEN.text, TOKEN.text[-43:], repr(TOKEN.seal_key)], id="Token"),
    pytest.param(KEYS, [repr(KEYS.seal_key), repr(KEYS.fingerprint_key)], id="UserKeys"),
    pytest.param(HASH, [ALICE.openid, repr(KEYS.seal_key), repr(KEYS.fingerprint_key)], id="UserHash"),
]

#: Operations on a text that must fail on a Secret.
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


def test_reveal_returns_the_text() -> None:
    assert SECRET.reveal() == TEXT


@pytest.mark.parametrize("printed", PRINTERS)
def test_printed_secret_shows_that_there_is_one_but_not_the_text(printed: Callable[[object], str]) -> None:
    line = printed(SECRET)
    assert TEXT not in line
    assert "Secret(***)" in line


@pytest.mark.parametrize("printed", PRINTERS)
@pytest.mark.parametrize(("holder", "texts"), HOLDERS)
def test_objects_with_secrets_do_not_print_them(
    holder: object, texts: list[str], printed: Callable[[object], str]
) -> None:
    line = printed(holder)
    assert [text for text in texts if text in line] == []


@pytest.mark.parametrize("operation", [pytest.param(operation, id=name) for name, operation in TEXT_OPERATIONS])
def test_text_operation_on_a_secret_raises_type_error(operation: Callable[[Secret], object]) -> None:
    """The message does not show the text."""
    with pytest.raises(TypeError) as caught:
        operation(SECRET)
    assert TEXT not in str(caught.value)


@pytest.mark.parametrize("copied", COPIERS)
def test_pickling_or_copying_a_secret_raises_type_error(copied: Callable[[Secret], object]) -> None:
    """It must not leave the process through a cache or a queue."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        copied(SECRET)


@pytest.mark.parametrize("text", ["", "a", "密钥", TEXT], ids=["empty", "one letter", "Chinese", "long"])
def test_secrets_with_equal_texts_are_equal(text: str) -> None:
    """Their hashes are equal too."""
    assert Secret(text) == Secret(text)
    assert hash(Secret(text)) == hash(Secret(text))


@pytest.mark.parametrize(
    "other",
    [Secret(TEXT + "x"), Secret(""), TEXT, TEXT.encode(), None],
    ids=["longer", "empty", "str", "bytes", "None"],
)
def test_secret_is_not_equal_to_another_text_or_a_str(other: object) -> None:
    assert other != SECRET


def test_secret_in_json_or_a_template_raises_with_what_to_write() -> None:
    with Flask("app").app_context():
        for use in (lambda: jsonify(token=Secret("s")), lambda: render_template_string("{{ s }}", s=Secret("s"))):
            with pytest.raises(TypeError, match=r"\.reveal\(\)"):
                use()
