"""Test SECURITY.md: the tests that it names exist, each promise names a test, and its numbers equal the code."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.service import ROOT
from wxauth.cli.server import HEADER_TIMEOUT, MAX_CONNECTIONS
from wxauth.keys import TOKEN_LENGTH
from wxauth.sessions.store import BAN_TTL, MAX_FAILURES, TOUCH_INTERVAL
from wxauth.settings import CLIENT_SECRET_LENGTH, KEY_LENGTH, Settings
from wxauth.storage.acl import CLUSTER_RIGHTS, MORE_COMMANDS, RIGHTS, SENTINEL_RIGHTS
from wxauth.storage.reasons import HINTS
from wxauth.web.rate_limits import IMAGES, PUBLIC_CODES, USER_GUESSES
from wxauth.web.requests import MAX_BODY
from wxauth.wechat.access_tokens import FORCE_INTERVAL
from wxauth.wechat.open_data import PREVIOUS_KEY_LIFE
from wxauth.wechat.push import FRESH_FOR

TEXT = ROOT.joinpath("SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", TEXT)))

#: The beginning of each row in the table of limits, and its number.
LIMITS = {
    "idle end": Settings.__dataclass_fields__["idle_ttl"].default,
    "absolute end": Settings.__dataclass_fields__["max_ttl"].default,
    "use is recorded": TOUCH_INTERVAL,
    "sessions for each user": Settings.__dataclass_fields__["max_sessions"].default,
    "a key of the ring": KEY_LENGTH,
    "the secret of a client": CLIENT_SECRET_LENGTH,
    "a ban": BAN_TTL,
    "a body": MAX_BODY,
    "user data's age": Settings.__dataclass_fields__["userdata_max_age"].default,
    "the previous session_key": PREVIOUS_KEY_LIFE,
    "a push": FRESH_FOR,
    "connections of a worker": MAX_CONNECTIONS,
    "a silent connection": HEADER_TIMEOUT // 1000,
    "logins of an address": int(Settings.login_rate.partition("/")[0]),
    "failed tries": MAX_FAILURES,
    "wrong codes": USER_GUESSES.amount,
    "images to scan": IMAGES.amount,
    "device codes": PUBLIC_CODES.amount,
    "phone numbers": int(Settings.phone_rate.partition("/")[0]),
    "forcing an access token": FORCE_INTERVAL // 3600,
    "an exchange": Settings.__dataclass_fields__["wechat_timeout"].default,
}


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(title: str) -> list[list[str]]:
    """Return the rows of the section's table, without the head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the functions in a file. Methods have the form `Class::name`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + item.name for item in inner if isinstance(item, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("named", NAMED)
def test_each_named_test_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert name in names_in(path)
    assert name.rpartition("::")[2].startswith("test_")


@pytest.mark.parametrize("row", rows("What is promised"), ids=lambda row: row[0][:40])
def test_each_promise_names_a_test(row: list[str]) -> None:
    assert any(named in row[1] for named in NAMED)


@pytest.mark.parametrize("what", LIMITS)
def test_limits_equal_the_defaults_in_the_code(what: str) -> None:
    (row,) = (row for row in rows("Lifetimes and limits") if row[0].startswith(what))
    assert f"{LIMITS[what]:g}" == f"{float(re.findall(r'[0-9]+', row[1])[0]):g}"


def test_each_named_variable_exists() -> None:
    """A misspelt name would be a configuration error for the reader who copies it."""
    fields = {f"WXAUTH_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert set(re.findall(r"WXAUTH_[A-Z_]*[A-Z]", TEXT)) <= fields


def test_rights_of_the_redis_user_are_those_of_the_hint() -> None:
    text = " ".join(TEXT.split())
    assert f"`ACL SETUSER wxauth reset on >password {RIGHTS}`" in text
    for rights in (CLUSTER_RIGHTS, SENTINEL_RIGHTS):
        assert f"`{rights}`" in text
    assert all(rights in HINTS["noperm"] for rights in (RIGHTS, CLUSTER_RIGHTS, SENTINEL_RIGHTS))


def test_rights_that_may_be_left_out_are_those_of_the_code() -> None:
    (sentence,) = re.findall(r"You may leave out (.*?)\. If another right", " ".join(TEXT.split()))
    assert re.findall(r"`\+(\w+)`", sentence) == MORE_COMMANDS.split()


def test_token_length_is_that_of_the_code() -> None:
    assert f"{TOKEN_LENGTH} characters in all" in TEXT


def test_table_has_each_requirement_of_asvs_v7() -> None:
    """Each of the 19 requirements of ASVS 5.0, V7, has one row."""
    counts = {1: 3, 2: 4, 3: 2, 4: 5, 5: 3, 6: 2}
    chapter = {f"7.{part}.{number}" for part, count in counts.items() for number in range(1, count + 1)}
    cells = [row[0] for row in rows("OWASP ASVS 5.0, chapter V7 (session management)")]
    listed = [number for cell in cells for number in cell.split(", ")]
    assert sorted(listed) == sorted(chapter)
