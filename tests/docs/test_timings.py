"""Test `make timings` without the measurement: what it writes into the READMEs, and how it ends `make`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.documents import README, both, document
from tests.support.servers import has_ended, wait_until
from tests.support.timings import Make, MakeRun, replaced, rounded, seconds

FIGURES = {"first": 44.0, "later": 2.96, "test": 412.0}
OTHERS = {"first": 123.0, "later": 0.71, "test": 61.0}
READMES = pytest.mark.parametrize("name", both(README))


def written(folder: Path, recipe: str) -> Path:
    """Return the folder with a Makefile whose target `run` has this recipe."""
    (folder / "Makefile").write_text(f"run:\n\t{recipe}\n")
    return folder


@READMES
def test_replaced_writes_the_figures_into_each_readme(name: str) -> None:
    text = replaced(document(name).text, name, FIGURES)
    minutes, second = ("分钟", "秒") if "zh" in name else ("minutes", "s")
    (line,) = (line for line in text.splitlines() if f" 7 {minutes}" in line)
    assert [f"{figure} {second}" in line for figure in ("40", "3.0")] == [True, True]
    assert f"{os.cpu_count()} " in line


@READMES
def test_replaced_changes_nothing_but_its_sentence(name: str) -> None:
    old, new = document(name).text.splitlines(), replaced(document(name).text, name, FIGURES).splitlines()
    assert len([1 for before, after in zip(old, new, strict=True) if before != after]) == 1


@READMES
def test_replaced_twice_has_the_last_figures_alone(name: str) -> None:
    text = document(name).text
    assert replaced(replaced(text, name, OTHERS), name, FIGURES) == replaced(text, name, FIGURES)


@READMES
@pytest.mark.parametrize("times", [0, 2])
def test_replaced_refuses_a_readme_without_one_sentence(name: str, times: int) -> None:
    with pytest.raises(ValueError, match=f"has the sentence with the timings {times} times"):
        replaced(document(name).text * times, name, FIGURES)


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        pytest.param(1.472, "1.5 s", id="tenths"),
        pytest.param(9.97, "10 s", id="ten"),
        pytest.param(23.4, "20 s", id="tens"),
        pytest.param(89.9, "90 s", id="the-longest-in-seconds"),
        pytest.param(90.0, "2 minutes", id="the-shortest-in-minutes"),
        pytest.param(204.0, "3 minutes", id="minutes"),
    ],
)
def test_rounded_has_the_digits_that_a_person_says(duration: float, said: str) -> None:
    assert rounded(duration, ("s", "minutes")) == said


@pytest.mark.parametrize("kind", [Make, MakeRun])
def test_seconds_raises_runtime_error_if_make_fails(kind: type[Make], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such package"):
        seconds(kind("run", written(tmp_path, "@echo no such package; exit 1")))


def test_seconds_raises_timeout_error_and_ends_make_if_the_page_does_not_answer(tmp_path: Path) -> None:
    make = MakeRun("run", written(tmp_path, "sleep 60 & sleep 60"))
    # A job in the background of a shell ignores the interrupt.
    make.patience = make.grace = 1
    with pytest.raises(TimeoutError):
        seconds(make)
    assert make.process.poll() is not None
    wait_until(lambda: has_ended(make.process.pid), "the end of the process group")


def test_make_has_an_empty_home_of_its_own(tmp_path: Path) -> None:
    seconds(Make("run", written(tmp_path, "@echo $$HOME > seen; ls -A $$HOME >> seen")))
    (home,) = (tmp_path / "seen").read_text().splitlines()
    assert home != os.environ.get("HOME")
