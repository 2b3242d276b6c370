"""Fixtures of the fault tests: counts by the size of the run, a seed, figures with their limits, a WeChat."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.service import WeChatServer

FULL = os.environ.get("FAULTS") == "full"
# The workers of pytest-xdist inherit the environment, so all of them use one seed.
os.environ["FAULTS_SEED"] = os.environ.get("FAULTS_SEED") or str(random.SystemRandom().randrange(10**6))
SEED = int(os.environ["FAULTS_SEED"])

#: Run a test with the session cache (WXAUTH_CACHE_SIZE) on, and with it off.
cache_on_and_off = pytest.mark.parametrize("cache", ["10000", "0"], ids=["cache on", "cache off"])


@dataclass(frozen=True)
class Run:
    """Pick counts with `of(small, full)`: `make faults` uses those of the specification, all else the small ones."""

    seed: int
    record: Callable[[str, object], None]

    def of(self, small: int, full: int) -> int:
        return full if FULL else small

    def figure(self, fault: str, name: str, value: object, limit: object) -> None:
        """Add a line to the table at the end of the run. This asserts nothing."""
        self.record("figure", f"{fault:<38} {name:<44} {value!s:>14}   limit: {limit}")


class Progress:
    """Print a line every 2 s while a full run goes on. A small run, and a worker of pytest-xdist, print none."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter") if FULL else None
        self._capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
        self._printed_at = 0.0

    def __call__(self, text: str) -> None:
        if self._reporter and time.monotonic() - self._printed_at > 2:
            self._printed_at = time.monotonic()
            with self._capture.global_and_fixture_disabled():
                self._reporter.write_line(f"  … {text}")


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Progress:
    return Progress(request)


@pytest.fixture
def run(record_property: Callable[[str, object], None]) -> Run:
    # The reports carry the properties, also from a worker of pytest-xdist to the process that prints the summary.
    return Run(SEED, record_property)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timed: the test asserts latencies, so no other test may run beside it")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        report
        for found in terminalreporter.stats.values()
        for report in found
        if getattr(report, "when", "") == "call"
    ]
    properties = [entry for report in reports for entry in report.user_properties]
    rows = [value for name, value in properties if name == "figure"]
    if rows:
        terminalreporter.section(f"faults, seed {SEED} (repeat with FAULTS_SEED={SEED})")
        for row in rows:
            terminalreporter.line(row)
