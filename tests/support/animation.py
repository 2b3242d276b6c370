"""Film the playground for the README: a login, then a scan. Run as a module; it needs img2webp of Debian's package webp."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.browser import SETTLED, Browser
from tests.support.servers import program
from tests.support.service import Sandbox

WIDTH, HEIGHT = 1180, 690
#: What is pressed, and for how many seconds the result is shown. The story before the first click takes 7.
ACTS: Final = (("", 7.2), ("#login", 3), ("#tab-scan", 2), ("#ask", 1.2), ("#scan", 1.8), ("#approve", 4))

#: A picture, and when it was taken.
Frame = tuple[float, bytes]


def film(browser: Browser) -> Iterator[Frame]:
    """Yield what the window shows, as fast as the browser can draw it."""
    for button, seconds in ACTS:
        if button:
            browser.driver.find_element("css selector", button).click()
        while not browser.run(SETTLED):
            yield shot(browser)
        shown_until = time.monotonic() + seconds
        while time.monotonic() < shown_until:
            yield shot(browser)


def shot(browser: Browser) -> Frame:
    return time.monotonic(), browser.driver.get_screenshot_as_png()


def changes(frames: Iterator[Frame]) -> list[Frame]:
    """Return the frames that differ from the one before."""
    kept: list[Frame] = []
    for frame in frames:
        if not kept or kept[-1][1] != frame[1]:
            kept.append(frame)
    return kept


def save(frames: list[Frame], path: Path) -> None:
    """Save an animated WebP that starts again after the last frame."""
    ends = [at for at, _ in frames[1:]] + [frames[-1][0] + ACTS[-1][1]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-loop", "0", "-min_size", "-lossy", "-q", "70", "-m", "6"]
        for number, ((at, picture), end) in enumerate(zip(frames, ends, strict=True)):
            file = Path(folder, f"{number}.png")
            file.write_bytes(picture)
            arguments += ["-d", str(max(round((end - at) * 1000), 20)), str(file)]
        subprocess.run([program("img2webp"), *arguments, "-o", str(path)], check=True, stdout=subprocess.DEVNULL)


def main(path: str) -> None:
    """Light, English."""
    with Sandbox() as sandbox, Browser(f"{sandbox.url}/") as browser:
        browser.media(motion="no-preference")
        browser.open(width=WIDTH, height=HEIGHT)
        save(changes(film(browser)), Path(path))


if __name__ == "__main__":
    main(sys.argv[1])
