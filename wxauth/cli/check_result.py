"""The result of one check of `doctor`: its status, its exit code, and its row in the table.

No result contains a secret, or a value that may be a secret in the wrong variable.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import click

OK: Final = "ok"
SKIPPED: Final = "skipped"
WARNING: Final = "warning"
FAILURE: Final = "failure"

#: A skipped check is no problem.
EXIT_CODES: Final[Mapping[str, int]] = {OK: 0, SKIPPED: 0, WARNING: 1, FAILURE: 2}
COLOURS: Final = {OK: "green", SKIPPED: None, WARNING: "yellow", FAILURE: "red"}

#: Widths in columns.
STATUS_WIDTH: Final = 9
CHECK_WIDTH: Final = 17
MARGIN: Final = STATUS_WIDTH + CHECK_WIDTH
MIN_TEXT_WIDTH: Final = 30
MAX_WIDTH: Final = 110


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One result: `status` is a key of EXIT_CODES, `value` the measured value, `app` the AppID if it is about one."""

    check: str
    status: str
    english: str
    chinese: str | None = None
    value: str | float | None = None
    app: str | None = None


def worst(results: list[CheckResult]) -> str:
    """Return the most severe status; `ok` if nothing is worse than skipped."""
    return max(
        (result.status for result in results if EXIT_CODES[result.status]), key=EXIT_CODES.__getitem__, default=OK
    )


def row(result: CheckResult) -> str:
    """Return one result for a terminal: status, check and text, with the Chinese text below the English one."""
    head = click.style(f"{result.status:<{STATUS_WIDTH}}", fg=COLOURS[result.status])
    text = f"{result.app}: {result.english}" if result.app else result.english
    width = max(min(shutil.get_terminal_size().columns, MAX_WIDTH) - MARGIN, MIN_TEXT_WIDTH)
    lines = textwrap.wrap(printable(text), width, break_on_hyphens=False)
    # The terminal wraps Chinese: textwrap counts one column for a character that takes two.
    lines += [printable(result.chinese)] if result.chinese else []
    return f"{head}{result.check:<{CHECK_WIDTH}}" + f"\n{' ' * MARGIN}".join(lines)


def summary(results: list[CheckResult]) -> str:
    """Return the last line of the table: how many failures and warnings there are."""
    counts = [(status, sum(it.status == status for it in results)) for status in (FAILURE, WARNING)]
    parts = [f"{count} {status}{'s' if count > 1 else ''}" for status, count in counts if count]
    return ", ".join(parts) if parts else "No problems found."


def printable(text: str) -> str:
    """Replace control characters, which could move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
