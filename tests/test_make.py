"""Test that `make test` and `make check` together run every test, and no test twice."""

from __future__ import annotations

import re

import pytest

from conftest import CHECK
from tests.support.service import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def pytest_arguments(target: str) -> list[str]:
    """Return what the target adds to the common options of pytest."""
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return re.findall(r"^\t\$\(PYTEST\) (.*)$", recipe, re.MULTILINE)


@pytest.mark.parametrize(("target", "selection"), [("test", '-m "not check"'), ("check", "-m check")])
def test_the_target_selects_by_the_marker_alone(target: str, selection: str) -> None:
    """The two selections are opposites, so each test is in exactly one of them."""
    assert pytest_arguments(target) == [selection]


def test_the_common_options_select_nothing() -> None:
    (options,) = re.findall(r"^PYTEST := (.*)$", MAKEFILE, re.MULTILINE)
    assert not re.search(r" -m pytest.* (-m|-k|--ignore|--deselect|tests)", options)


@pytest.mark.parametrize("beginning", CHECK)
def test_each_entry_of_check_exists(beginning: str) -> None:
    """A file or test that is renamed does not move to `make test` unseen."""
    path, _, function = beginning.partition("::")
    assert (ROOT / path).exists()
    assert not function or f"def {function}(" in (ROOT / path).read_text()
