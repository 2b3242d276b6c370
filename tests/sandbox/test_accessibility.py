"""The playground, checked by axe-core in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.browser import Browser
from tests.support.service import Sandbox


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        yield stack.enter_context(Browser(f"{sandbox.url}/"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [390, 1366])
def test_axe_core_finds_nothing_in_the_playground(browser: Browser, width: int, language: str, theme: str) -> None:
    """At the beginning, after a login and failures with all messages opened, and at the code to copy."""
    browser.open(language=language, theme=theme, width=width)
    found = [("the first view", browser.barriers())]
    for selector in ("#login", "[data-scene=used]", "[data-scene=gone]", "[data-scene=second]", "#tab-code"):
        browser.press(selector)
        browser.run("for (const row of document.querySelectorAll('.row[aria-expanded=false]')) row.click()")
        found.append((selector, browser.barriers()))
    assert [view for view in found if view[1]] == []


#: The colour of the page, and by how much it is wider than the window.
SEEN = """
const { scrollWidth, clientWidth } = document.documentElement
return [getComputedStyle(document.body).backgroundColor, scrollWidth - clientWidth]
"""


@pytest.mark.parametrize(("theme", "colour"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(23, 27, 26)")])
@pytest.mark.parametrize("width", [390, 1366])
def test_axe_core_finds_nothing_in_the_documentation_of_the_sandbox(
    browser: Browser, width: int, theme: str, colour: str
) -> None:
    """A page has the theme of the playground. Wide tables and code do not make it wider than the window."""
    browser.open(theme=theme, width=width)
    for name in ("errors.md", "scan-login.zh-CN.md"):
        browser.driver.get(f"{browser.url}sandbox/docs/{name}")
        assert (browser.barriers(), browser.run(SEEN)) == ([], [colour, 0])
    assert browser.console_messages() == []


def test_axe_core_finds_a_picture_without_a_text(browser: Browser) -> None:
    """The check can fail."""
    browser.open()
    browser.run("document.querySelector('main').append(new Image())")
    assert [rule for rule, _ in browser.barriers()] == ["image-alt"]
