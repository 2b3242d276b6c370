"""Run the fuzzers' corpus through the targets, without a fuzzer. What a fuzzer once found is tested here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS as FUZZED
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent
CORPUS = sorted((Path(__file__).parent / "fuzz" / "corpus").glob("*/*"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_target_accepts_or_refuses_each_file_of_the_corpus(path: Path) -> None:
    """The parser accepts genuine input and raises its own error for other input."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_has_accepted_and_refused_input(target: str) -> None:
    outcomes = {TARGETS[target](path.read_bytes()) for path in CORPUS if path.parent.name == target}
    assert outcomes == {True, False}


def test_command_runs_every_target() -> None:
    """Each target has a corpus."""
    assert set(FUZZED) == set(TARGETS) == {path.parent.name for path in CORPUS}


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_fuzzers_run_and_find_nothing() -> None:
    """`python -m tests.fuzz` runs all targets."""
    command = [sys.executable, "-m", "tests.fuzz", "3"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (run.returncode, "found something: nothing" in run.stderr) == (0, True), run.stderr[-2000:]
