"""Film the playground for the READMEs: a login, then a scan. Run as a module, it writes two animated WebP files."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.browser import SETTLED, Browser
from tests.support.servers import program
from tests.support.service import ROOT, Sandbox

WIDTH, HEIGHT, SCALE = 1160, 820, 0.7
FILMS: Final = {"en": "playground.webp", "zh": "playground.zh-CN.webp"}
#: What is pressed, and for how many seconds the result is shown.
ACTS: Final = (("", 1.5), ("#login", 3.0), ("#tab-scan", 1.5), ("#ask", 1.0), ("#scan", 2.0), ("#approve", 4.0))
#: Seconds between two frames.
PACE: Final = 0.25

#: When a picture was taken, and the picture.
Frame = tuple[float, bytes]


def film(browser: Browser) -> Iterator[Frame]:
    """Yield what the window shows, until each act is over."""
    for button, seconds in ACTS:
        if button:
            browser.driver.find_element("css selector", button).click()
        while not browser.run(SETTLED):
            yield from shots(browser)
        shown_until = time.monotonic() + seconds
        while time.monotonic() < shown_until:
            yield from shots(browser)


def shots(browser: Browser) -> Iterator[Frame]:
    """Yield a frame, unless the page scrolls: such frames have as many bytes as the first one."""
    at, place = time.monotonic(), browser.run("return scrollY")
    picture = browser.driver.get_screenshot_as_png()
    time.sleep(max(at + PACE - time.monotonic(), 0))
    if browser.run("return scrollY") == place:
        yield at, picture


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
        arguments = ["-loop", "0", "-min_size", "-lossy", "-q", "45", "-m", "4"]
        for number, ((at, picture), end) in enumerate(zip(frames, ends, strict=True)):
            file = Path(folder, f"{number}.png")
            file.write_bytes(picture)
            arguments += ["-d", str(round((end - at) * 1000)), str(file)]
        subprocess.run([program("img2webp"), *arguments, "-o", str(path)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """The theme is the light one."""
    with Sandbox() as sandbox, Browser(f"{sandbox.url}/") as browser:
        browser.media(motion="no-preference")
        browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        for language, name in FILMS.items():
            browser.open(language=language, width=WIDTH, height=HEIGHT, scale=SCALE)
            save(changes(film(browser)), ROOT / "docs" / name)


if __name__ == "__main__":
    main()
