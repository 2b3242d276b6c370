"""Drive headless Chromium on the playground. Run as a module, it takes the picture of the documentation.

The driver is part of Debian's package, so nothing is downloaded. The browser can resolve no host but 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.servers import needed_file, program
from tests.support.service import ROOT, Sandbox

OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",  # needed for root in a container
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
#: What checks a page for accessibility. `make check` installs it.
AXE: Final = ROOT / "tests" / "miniprogram" / "node_modules" / "axe-core" / "axe.min.js"
#: The rules of WCAG 2.2 A and AA, and those that axe-core calls best practices.
CHECKED: Final = """
const done = arguments[0]
axe.run().then(({ violations }) => done(violations.map(it => [it.id, it.nodes.map(node => node.html)])), done)
"""
#: Seconds.
TIMEOUT: Final = 20
SETTLED: Final = "return !!document.documentElement.dataset.ready && !document.body.classList.contains('running')"
#: The page hears of its new size in the next frame.
DRAWN: Final = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"

#: Open a closed group of failures, and scroll to an element that is not in the window or behind a bar.
REACHED: Final = """
const element = document.querySelector(arguments[0])
element.closest('details')?.setAttribute('open', '')
const { x, y, width, height } = element.getBoundingClientRect()
const shown = element.contains(document.elementFromPoint(x + width / 2, y + height / 2))
if (!shown) element.scrollIntoView({ block: 'center' })
"""
CHOSEN: Final = """
const [language, theme] = arguments
const { 'wxauth language': spoken, 'wxauth theme': shown, 'wxauth token': token } = localStorage
const chosen = spoken === language && shown === theme && !token
delete localStorage['wxauth token']
Object.assign(localStorage, { 'wxauth language': language, 'wxauth theme': theme })
return chosen
"""


class Browser:
    """One page, open during the `with` block. Animations are off unless `media` turns them on."""

    def __init__(self, url: str) -> None:
        os.environ |= {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
        self.url = url

    def __enter__(self) -> Self:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        for option in OPTIONS:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(program("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.media()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()

    def open(
        self,
        *,
        language: str = "en",
        theme: str = "light",
        width: int = 1280,
        height: int = 900,
        scale: float = 1,
    ) -> None:
        """Open the page with these choices stored, and without a login."""
        self.resize(width, height, scale)
        self.driver.get(self.url)
        if not self.run(CHOSEN, language, theme):
            self.driver.get(self.url)
        self.settle()

    def open_first_time(self) -> None:
        """Open the page without stored choices."""
        self.driver.get(self.url)
        self.run("localStorage.clear()")
        self.driver.get(self.url)
        self.settle()

    def settle(self) -> None:
        """Wait until the running scene is finished."""
        WebDriverWait(self.driver, TIMEOUT, 0.05).until(lambda _: self.run(SETTLED))

    def press(self, selector: str) -> None:
        """Click an element, and wait until the scene is finished."""
        self.run(REACHED, selector)
        self.driver.find_element("css selector", selector).click()
        self.settle()

    def type(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the visible text of an element; "" if it is hidden."""
        found: str = self.driver.find_element("css selector", selector).text
        return found

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements("css selector", selector)]

    def barriers(self) -> list[Any]:
        """Return what axe-core finds: the rules, each with the elements that break it."""
        if not self.run("return 'axe' in window"):
            self.run(needed_file(AXE).read_text())
        found: list[Any] = self.driver.execute_async_script(CHECKED)
        return found

    def focused(self) -> str:
        found: str = self.run("return document.activeElement.id")
        return found

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the page, and wait until it is drawn. It may be below the minimal size of a window."""
        measures = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)
        self.driver.execute_async_script(DRAWN)

    def media(self, *, motion: str = "reduce", scheme: str = "light") -> None:
        features = {"prefers-reduced-motion": motion, "prefers-color-scheme": scheme}
        values = [{"name": name, "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": values})

    def set_offline(self, offline: bool) -> None:
        """Turn the network of the page off or on."""
        conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def speak(self, language: str) -> None:
        """Set `navigator.language` for the next page."""
        override = {"userAgent": self.run("return navigator.userAgent"), "acceptLanguage": language}
        self.driver.execute_cdp_cmd("Emulation.setUserAgentOverride", override)

    def console_messages(self) -> list[dict[str, Any]]:
        """Return the console messages since the last call, except those about HTTP errors."""
        return [line for line in self._log("browser") if "Failed to load resource" not in line["message"]]

    def addresses(self) -> set[str]:
        """Return the URLs that were requested since the last call."""
        messages = [json.loads(line["message"])["message"] for line in self._log("performance")]
        asked = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return {message["params"]["request"]["url"] for message in asked}

    def _log(self, kind: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]  # selenium's
        return lines


def main(folder: str) -> None:
    """Save the picture of a scan: desktop, light, English."""
    with Sandbox() as sandbox, Browser(f"{sandbox.url}/") as browser:
        browser.open(height=800)
        for button in ("#tab-scan", "#ask", "#scan"):
            browser.press(button)
        browser.driver.save_screenshot(str(Path(folder, "scan-login.png")))


if __name__ == "__main__":
    main(sys.argv[1])
