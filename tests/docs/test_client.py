"""The mini program in `examples/miniprogram`: its client's own tests, on Node; its types; and what it may not hold.

What the client does is said in `tests/miniprogram/wxauth.test.js`, which starts the sandbox by itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.servers import program
from tests.service import ROOT

MINI_PROGRAM = ROOT / "examples" / "miniprogram"
TESTS = ROOT / "tests" / "miniprogram"
CLIENT = MINI_PROGRAM / "wxauth.js"


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    return subprocess.run(command, cwd=TESTS, env=environ, capture_output=True, text=True, timeout=280)


@pytest.mark.timeout(300)
def test_the_client_does_what_its_tests_say() -> None:
    """Every rule of the client holds against the real service."""
    done = ran(program("node"), "--test", "--test-reporter=spec", "wxauth.test.js")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "project",
    [
        pytest.param("tsconfig.json", id="types-fit-wechat-s"),
        pytest.param("tsconfig.es2017.json", id="code-needs-es2017-and-no-browser"),
    ],
)
def test_tsc_finds_no_fault(project: str) -> None:
    """`wxauth.d.ts` fits WeChat's own types, and `wxauth.js` calls nothing that a mini program lacks."""
    program("node")
    done = ran(program("tsc", TESTS / "node_modules" / ".bin"), "--project", project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_client_is_one_short_file() -> None:
    """It is copied, so it is short, and needs nothing else."""
    text = CLIENT.read_text()
    assert len(text.splitlines()) <= 150
    assert not re.search(r"\b(require|import)\b", text)


@pytest.mark.parametrize("word", ["checkSession", "session_key", "secret"])
def test_the_mini_program_does_without(word: str) -> None:
    """No secret is in it, and no call that says nothing about our token."""
    texts = [path.read_text() for path in MINI_PROGRAM.rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if word.casefold() in text.casefold()]


def test_devtools_can_open_it() -> None:
    """The project names no AppID of anybody's, and every page that it lists is there whole."""
    project, app = (json.loads((MINI_PROGRAM / name).read_text()) for name in ("project.config.json", "app.json"))
    assert (project["appid"], project["setting"]["urlCheck"]) == ("touristappid", False)
    files = [f"{page}.{kind}" for page in app["pages"] for kind in ("js", "json", "wxml", "wxss")]
    assert [name for name in (*files, app["sitemapLocation"]) if not (MINI_PROGRAM / name).is_file()] == []


def test_packages_come_from_nowhere_in_particular() -> None:
    """Whoever installs them uses the registry that is set up there; what comes is held against its hash."""
    packages = json.loads((TESTS / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert [name for name, it in installed.items() if "resolved" in it or "integrity" not in it] == []
    assert len(installed) == 2
