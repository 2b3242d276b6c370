"""What every fault run has: counts by the size of the run, a printed seed, and the figures beside their bars."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from typing import Any

import pytest

FULL = os.environ.get("FAULTS") == "full"
SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))

#: The same fault with sessions kept at hand and with none: WXAUTH_CACHE_SIZE.
cache_on_and_off = pytest.mark.parametrize("cache", ["10000", "0"], ids=["cache on", "cache off"])

ROWS = pytest.StashKey[list[str]]()


@dataclass(frozen=True)
class Run:
    """`of(small, full)` picks a count: `make test` runs small ones, `make faults` those of the specification."""

    seed: int
    rows: list[str]

    def of(self, small: int, full: int) -> int:
        return full if FULL else small

    def figure(self, fault: str, name: str, value: object, bar: object) -> None:
        """One line of the closing table; the test itself asserts the bar where it is a promise."""
        self.rows.append(f"{fault:<38} {name:<44} {value!s:>14}   bar: {bar}")


class Progress:
    """Lines on the terminal while a long run goes on; none in a small one."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter") if FULL else None
        self._capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
        self._said_at = 0.0

    def __call__(self, text: str) -> None:
        if self._reporter and time.monotonic() - self._said_at > 2:
            self._said_at = time.monotonic()
            with self._capture.global_and_fixture_disabled():
                self._reporter.write_line(f"  … {text}")


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Progress:
    return Progress(request)


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return Run(SEED, request.config.stash.setdefault(ROWS, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section(f"faults, seed {SEED} (again with FAULTS_SEED={SEED})")
        for row in rows:
            terminalreporter.line(row)
