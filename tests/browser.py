"""Debian's chromium on the playground, headless. Run as a module, it takes the picture in the READMEs.

The driver comes with the browser, so nothing is downloaded; and the browser knows no address but this machine's.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import program
from tests.service import Sandbox

OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",  # it is root's, in a container
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE: Final = 20
SETTLED: Final = "return !!document.documentElement.dataset.ready && !document.body.classList.contains('running')"

CHOSEN: Final = """
const [language, theme] = arguments
const chosen = localStorage.language === language && localStorage.theme === theme
Object.assign(localStorage, { language, theme })
return chosen
"""


class Browser:
    """One page; it lives as long as the `with` block. Nothing moves unless `media` allows it."""

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

    def open(self, *, language: str = "en", theme: str = "light", width: int = 1280, height: int = 900) -> None:
        """The page as somebody finds it who chose these before; nobody is logged in."""
        self.resize(width, height)
        self.driver.get(self.url)
        if not self.run(CHOSEN, language, theme):
            self.driver.get(self.url)
        self.settle()

    def open_anew(self) -> None:
        """The page as somebody finds it who never was here."""
        self.driver.get(self.url)
        self.run("localStorage.clear()")
        self.driver.get(self.url)
        self.settle()

    def settle(self) -> None:
        """Waits until everything that was begun has been shown."""
        WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: self.run(SETTLED))

    def press(self, selector: str) -> None:
        """A click on what is there and can be seen, and all that comes of it."""
        self.driver.find_element("css selector", selector).click()
        self.settle()

    def type(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """What can be read there, in lines; nothing where it is hidden."""
        found: str = self.driver.find_element("css selector", selector).text
        return found

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements("css selector", selector)]

    def focused(self) -> str:
        found: str = self.run("return document.activeElement.id")
        return found

    def resize(self, width: int, height: int) -> None:
        """The size of the page itself, also below what a window can be."""
        measures = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)

    def media(self, *, motion: str = "reduce", scheme: str = "light") -> None:
        features = {"prefers-reduced-motion": motion, "prefers-color-scheme": scheme}
        told = [{"name": name, "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": told})

    def cut_off(self, offline: bool) -> None:
        """Whether no request gets out of the page."""
        conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def speak(self, language: str) -> None:
        """What `navigator.language` says from the next page on."""
        told = {"userAgent": self.run("return navigator.userAgent"), "acceptLanguage": language}
        self.driver.execute_cdp_cmd("Emulation.setUserAgentOverride", told)

    def complaints(self) -> list[dict[str, Any]]:
        """What the console has said since the last call, but for answers that are no success."""
        return [line for line in self._log("browser") if "Failed to load resource" not in line["message"]]

    def addresses(self) -> set[str]:
        """Where requests have gone to since the last call."""
        messages = [json.loads(line["message"])["message"] for line in self._log("performance")]
        asked = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return {message["params"]["request"]["url"] for message in asked}

    def _log(self, kind: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]  # selenium's
        return lines

    def picture(self) -> bytes:
        """The whole page as PNG."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(shot["data"])


def main(path: str) -> None:
    """The picture of a finished login: desktop, light, English."""
    with Sandbox() as sandbox, Browser(f"{sandbox.url}/") as browser:
        browser.open()
        # The second login: the first of a process also loads what every other finds loaded.
        for button in ("#login", "#logout", "#login"):
            browser.press(button)
        browser.resize(1280, browser.run("return document.documentElement.scrollHeight"))
        Path(path).write_bytes(browser.picture())


if __name__ == "__main__":
    main(sys.argv[1])
