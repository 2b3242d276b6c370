"""Measure how long `make run` and `make test` take in a new clone, and write the figures into the READMEs.

Run as a module, it measures the last commit. HOME is empty, so pip has no cache. It ends with an error and changes
nothing if make fails, or if the page does not answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import requests

from tests.support.servers import Server, free_port, program
from tests.support.service import ROOT

#: The sentence of each README. Its words mark the place of the figures.
SENTENCES: Final = {
    "README.md": (
        "On {cores} cores and a fast network, the first `make run` takes about {first}, later ones {later}. "
        "The first `make test`, which installs more packages, takes about {test}."
    ),
    "README.zh-CN.md": (
        "{cores} 核的机器，网络较快时，第一次 `make run` 约 {first}，以后约 {later}；"
        "第一次 `make test` 还要装更多依赖，约 {test}。"
    ),
}
UNITS: Final = {"README.md": ("s", "minutes"), "README.zh-CN.md": ("秒", "分钟")}


class Make(Server):
    """`make` with a target. It is ready when it has ended without an error. HOME is an empty folder."""

    patience = 3600
    #: Seconds until an interrupted process is killed.
    grace = 15

    def __init__(self, target: str, checkout: Path) -> None:
        self.port = free_port()
        super().__init__([program("make"), target], cwd=checkout)
        (home := self.folder / "home").mkdir()
        self._environ = os.environ | {"HOME": str(home), "PORT": str(self.port)}

    def answers(self) -> bool:
        return self.process.poll() == 0

    def stop(self) -> int:
        """Interrupt the process group, as Ctrl+C does. Kill what is left of it after the grace time."""
        os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(self.grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


class MakeRun(Make):
    """`make run`. It is ready when the page answers."""

    patience = 600

    def answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/", timeout=1).ok
        except requests.RequestException:
            return False


def seconds(make: Make) -> float:
    """Return the time until `make` is ready."""
    begin = time.monotonic()
    with make:
        return time.monotonic() - begin


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "wxauth")
        subprocess.run([program("git"), "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        first, later = seconds(MakeRun("run", checkout)), seconds(MakeRun("run", checkout))
        return {"first": first, "later": later, "test": seconds(Make("test", checkout))}


def rounded(duration: float, units: tuple[str, str]) -> str:
    """Return a duration as a person says it."""
    if duration >= 90:
        return f"{duration / 60:.0f} {units[1]}"
    return f"{duration:.1f} {units[0]}" if duration < 9.95 else f"{round(duration, -1):.0f} {units[0]}"


def replaced(text: str, name: str, figures: dict[str, float]) -> str:
    """Return the text of a README with these figures. Raises ValueError if it does not have the sentence once."""
    shown = {key: rounded(figure, UNITS[name]) for key, figure in figures.items()}
    sentence = SENTENCES[name].format(cores=os.cpu_count(), **shown)
    text, count = re.subn(re.sub(r"\\{\w+\\}", ".+?", re.escape(SENTENCES[name])), sentence, text)
    if count != 1:
        raise ValueError(f"{name} has the sentence with the timings {count} times")
    return text


def main() -> None:
    figures = measure()
    texts = {name: replaced((ROOT / name).read_text(encoding="utf-8"), name, figures) for name in SENTENCES}
    for name, text in texts.items():
        (ROOT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
