"""SECURITY.md under test: every test that it names exists, every promise has one, and its numbers are the code's."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from wxauth.sessions.store import BAN_TTL, TOUCH_INTERVAL
from wxauth.settings import Settings
from wxauth.web.requests import MAX_BODY
from wxauth.wechat.access_tokens import MAX_FORCED
from wxauth.wechat.open_data import PREVIOUS_KEY_LIFE
from wxauth.wechat.push import FRESH_FOR

ROOT = Path(__file__).parents[2]
TEXT = ROOT.joinpath("SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", TEXT)))

#: What a row of the table of limits begins with, and the number that it has to name.
LIMITS = {
    "idle end": Settings.__dataclass_fields__["idle_ttl"].default,
    "absolute end": Settings.__dataclass_fields__["max_ttl"].default,
    "use is recorded": TOUCH_INTERVAL,
    "sessions for each user": Settings.__dataclass_fields__["max_sessions"].default,
    "a ban": BAN_TTL,
    "a body": MAX_BODY,
    "user data's age": Settings.__dataclass_fields__["userdata_max_age"].default,
    "the previous session_key": PREVIOUS_KEY_LIFE,
    "a push": FRESH_FOR,
    "phone numbers": int(Settings.phone_rate.partition("/")[0]),
    "forcing an access token": MAX_FORCED,
    "an exchange": Settings.__dataclass_fields__["wechat_timeout"].default,
}


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(title: str) -> list[list[str]]:
    """The rows of the section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def names_in(path: str) -> set[str]:
    """The tests of a file, those of its classes with the class before them."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + item.name for item in inner if isinstance(item, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("named", NAMED)
def test_every_test_that_is_named_exists(named: str) -> None:
    """Whoever doubts a promise finds the test behind it."""
    path, _, name = named.partition("::")
    assert name in names_in(path)
    assert name.rpartition("::")[2].startswith("test_")


@pytest.mark.parametrize("row", rows("What is promised"), ids=lambda row: row[0][:40])
def test_every_promise_is_proved(row: list[str]) -> None:
    """Nothing is promised for which there is no test."""
    assert any(named in row[1] for named in NAMED)


@pytest.mark.parametrize("what", LIMITS)
def test_the_limits_are_the_code_s(what: str) -> None:
    """The table names the defaults that are in force."""
    (row,) = (row for row in rows("Lifetimes and limits") if row[0].startswith(what))
    assert f"{LIMITS[what]:g}" == f"{float(re.findall(r'[0-9]+', row[1])[0]):g}"


def test_every_variable_that_is_named_exists() -> None:
    """A name that is misspelt here would be a fault in the configuration."""
    fields = {f"WXAUTH_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert set(re.findall(r"WXAUTH_[A-Z_]*[A-Z]", TEXT)) <= fields


def test_the_whole_chapter_is_answered() -> None:
    """Each of the nineteen requirements of ASVS 5.0's V7 stands in one row."""
    counts = {1: 3, 2: 4, 3: 2, 4: 5, 5: 3, 6: 2}
    chapter = {f"7.{part}.{number}" for part, count in counts.items() for number in range(1, count + 1)}
    cells = [row[0] for row in rows("OWASP ASVS 5.0, chapter V7 (session management)")]
    listed = [number for cell in cells for number in cell.split(", ")]
    assert sorted(listed) == sorted(chapter)
