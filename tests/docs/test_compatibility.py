"""Test the table of docs/compatibility.md against the tests that it names."""

from __future__ import annotations

import re

from tests.support.compatibility import PAGES, rows
from tests.support.service import ROOT


def test_both_languages_have_the_same_rows() -> None:
    english, chinese = (rows(page.read_text()) for page in PAGES)
    assert english == chinese


def test_each_row_of_the_page_has_the_form_that_the_tests_read() -> None:
    for page in PAGES:
        text = page.read_text()
        rows_of_tables = [line for line in text.splitlines() if re.match(r"\| (?!.*\|---)", line)]
        assert len(rows_of_tables) == len(rows(text)) + text.count("|---|---|---|---|")


def test_each_row_is_checked_by_the_test_that_it_names() -> None:
    for name, _, path in rows(PAGES[0].read_text()):
        test = (ROOT / path).read_text()
        assert "check_row(" in test, f"{path} checks no row"
        assert f'"{name}"' in test, f"{path} does not name {name}"
