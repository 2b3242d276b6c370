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


def check_row(name: str, version: str) -> None:
    """Fail unless each page has a row for `name`, with major and minor number of `version`. Call it in the test."""
    minor = ".".join(version.split(".")[:2])
    for page in PAGES:
        found = [(name, version) for name, version, _ in rows(page.read_text())]
        assert (name, minor) in found, f"{page.name} has no row with {name} {minor}"
