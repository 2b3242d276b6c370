"""The corpus of the fuzzers, replayed without them: whatever was ever found stays found."""

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
def test_the_corpus_holds(path: Path) -> None:
    """The parser accepts what is genuine, refuses all else with an error of its own, and never fails otherwise."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_has_good_and_bad(target: str) -> None:
    """Each parser is seen to accept something and to refuse something."""
    outcomes = {TARGETS[target](path.read_bytes()) for path in CORPUS if path.parent.name == target}
    assert outcomes == {True, False}


def test_every_target_is_fuzzed() -> None:
    """The command runs the targets that the tests replay, and each has a corpus."""
    assert set(FUZZED) == set(TARGETS) == {path.parent.name for path in CORPUS}


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_the_fuzzers_run() -> None:
    """`python -m tests.fuzz` goes through all targets and finds nothing in a moment."""
    command = [sys.executable, "-m", "tests.fuzz", "3"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (run.returncode, "found something: nothing" in run.stderr) == (0, True), run.stderr[-2000:]
