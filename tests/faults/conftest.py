"""What every fault run has: counts by the size of the run, a printed seed, and the figures beside their bars."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

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


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return Run(SEED, request.config.stash.setdefault(ROWS, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section(f"faults, seed {SEED} (again with FAULTS_SEED={SEED})")
        for row in rows:
            terminalreporter.line(row)
