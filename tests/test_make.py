"""Test that `make test` and `make check` together run every test, each once, and that `make` refuses old Pythons."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CHECK
from tests.support.servers import program
from tests.support.service import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def pytest_arguments(target: str) -> list[str]:
    """Return what the target adds to the common options of pytest."""
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return re.findall(r"^\t\$\(PYTEST\) (.*)$", recipe, re.MULTILINE)


@pytest.mark.parametrize(("target", "selection"), [("test", '-m "not check"'), ("check", "-m check")])
def test_the_target_selects_by_the_marker_alone(target: str, selection: str) -> None:
    """The two selections are opposites, so each test is in exactly one of them."""
    assert pytest_arguments(target) == [selection]


def test_the_common_options_select_nothing() -> None:
    (options,) = re.findall(r"^PYTEST := (.*)$", MAKEFILE, re.MULTILINE)
    assert not re.search(r" -m pytest.* (-m|-k|--ignore|--deselect|tests)", options)


@pytest.mark.parametrize("beginning", CHECK)
def test_each_entry_of_check_exists(beginning: str) -> None:
    """A file or test that is renamed does not move to `make test` unseen."""
    path, _, function = beginning.partition("::")
    assert (ROOT / path).exists()
    assert not function or f"def {function}(" in (ROOT / path).read_text()


#: Runs the program after `-c` and says that it is Python 3.10.
OLD_PYTHON = f"""#!{sys.executable}
import sys
sys.version_info = (3, 10, 13, "final", 0)
exec(sys.argv[2])
"""


@pytest.mark.parametrize("target", ["run", "test"])
def test_make_refuses_python_3_10_with_one_sentence_and_makes_no_venv(target: str, tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    command = [program("make"), target, f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.stderr.startswith("wxauth needs Python 3.11 or later; this is 3.10. Name a newer one: make run ")
    assert (done.returncode, (tmp_path / ".venv").exists()) == (2, False)
