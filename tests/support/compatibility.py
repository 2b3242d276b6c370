"""The table of docs/compatibility.md: proxies, stores, servers and clients that a test has run with the service."""

from __future__ import annotations

import re
from typing import Final

from tests.support.service import ROOT

PAGES: Final = [ROOT / "docs" / "compatibility.md", ROOT / "docs" / "compatibility.zh-CN.md"]
#: | name version | what was run | what to set | [test](path) |
ROW: Final = re.compile(r"^\| ([^|]*) ([0-9.]+) \|[^|]*\|[^|]*\| \[[^]]*\]\(\.\./([^)]+)\) \|$", re.MULTILINE)


def rows(page: str) -> list[tuple[str, str, str]]:
    """Return the rows of a page, sorted: name, version, and the file of the test."""
    return sorted(ROW.findall(page))


def check_row(name: str, version: str, versions: int = 1) -> None:
    """Fail unless each page has a row for `name`, with major and minor number of `version`. Call it in the test.

    `versions` is how many different ones of `name` the tests run. A row with another one was not run.
    """
    minor = ".".join(version.split(".")[:2])
    for page in PAGES:
        found = {version for row, version, _ in rows(page.read_text()) if row == name}
        assert minor in found, f"{page.name} has no row with {name} {minor}"
        assert len(found) == versions, f"{page.name} has rows of {name} that no test runs: {sorted(found)}"
