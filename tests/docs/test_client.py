"""Test the mini program in `examples/miniprogram`: run the client's tests on Node, check its types and its files.

`tests/miniprogram/wxauth.test.js` specifies the client and starts the sandbox.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wxauth
from tests.support.servers import program
from tests.support.service import ROOT

MINI_PROGRAM = ROOT / "examples" / "miniprogram"
TESTS = ROOT / "tests" / "miniprogram"
CLIENT = MINI_PROGRAM / "wxauth.js"


def ran(*command: str, folder: Path = TESTS) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "HOME": os.environ.get("HOME", "")}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=280)


@pytest.mark.timeout(300)
def test_client_passes_its_tests_on_node() -> None:
    done = ran(program("node"), "--test", "--test-reporter=spec", "wxauth.test.js")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_phones_of_one_user_settle_at_the_real_service() -> None:
    done = ran(program("node"), "--test", "--test-reporter=spec", "phones.test.js")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "project",
    [
        pytest.param("tsconfig.json", id="types-fit-wechat-s"),
        pytest.param("tsconfig.es2017.json", id="code-needs-es2017-and-no-browser"),
    ],
)
def test_tsc_accepts_the_client(project: str) -> None:
    """`wxauth.d.ts` agrees with WeChat's types. `wxauth.js` uses only functions that a mini program has."""
    program("node")
    done = ran(program("tsc", TESTS / "node_modules" / ".bin"), "--project", project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_client_is_one_short_file_without_imports() -> None:
    """Users copy this file."""
    text = CLIENT.read_text()
    assert len(text.splitlines()) <= 200
    assert not re.search(r"\b(require|import)\b", text)


def test_es_module_is_the_same_code() -> None:
    """If this fails, run `npm run build` in examples/miniprogram."""
    code, export = CLIENT.read_text().split("module.exports = ")
    assert (MINI_PROGRAM / "wxauth.mjs").read_text() == f"{code}export {export}"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the package that `npm pack` makes is installed."""
    folder = tmp_path_factory.mktemp("package")
    done = ran(program("npm"), "pack", "--pack-destination", str(folder), folder=MINI_PROGRAM)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tgz")
    # The filter of Python's own module is unknown to Python 3.11.2.
    assert ran(program("tar"), "-xf", str(archive), folder=folder).returncode == 0
    (folder / "node_modules").mkdir()
    (folder / "package").rename(folder / "node_modules" / "wxauth")
    return folder


def test_package_has_the_client_and_nothing_else(package: Path) -> None:
    files = {path.name for path in (package / "node_modules" / "wxauth").iterdir()}
    code = {"wxauth.js", "wxauth.mjs", "wxauth.d.ts", "wxauth.d.mts"}
    assert files == code | {"package.json", "README.md", "LICENSE"}


def test_package_has_the_license_of_the_project() -> None:
    assert (MINI_PROGRAM / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_package_has_the_version_of_the_service() -> None:
    assert json.loads((MINI_PROGRAM / "package.json").read_text())["version"] == wxauth.__version__


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        pytest.param("commonjs", "const { create } = require('wxauth')", id="commonjs"),
        pytest.param("module", "import { create } from 'wxauth'", id="es-module"),
    ],
)
def test_package_gives_create_to_both_kinds_of_module(kind: str, code: str, package: Path) -> None:
    code += "\nconsole.log(typeof create({ baseURL: 'https://login.example.com', wx: {} }).request)"
    done = ran(program("node"), f"--input-type={kind}", "--eval", code, folder=package)
    assert (done.stdout, done.stderr) == ("function\n", "")


def test_package_shows_its_version_to_tools(package: Path) -> None:
    code = "console.log(require('wxauth/package.json').name)"
    done = ran(program("node"), "--eval", code, folder=package)
    assert (done.stdout, done.stderr) == ("wxauth\n", "")


@pytest.mark.parametrize(
    ("module", "resolution"), [("es2022", "bundler"), ("node16", "node16"), ("commonjs", "node10")]
)
def test_tsc_accepts_the_client_as_a_package(module: str, resolution: str, package: Path) -> None:
    program("node")
    source = package / f"{resolution}.ts"
    source.write_text(
        "import { create, Client, Platform } from 'wxauth'\n"
        "export const start = (wx: Platform): Client => create({ baseURL: '', wx })\n"
    )
    options = ["--noEmit", "--strict", "--module", module, "--moduleResolution", resolution]
    done = ran(program("tsc", TESTS / "node_modules" / ".bin"), *options, str(source), folder=package)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_of_the_es_module_are_those_of_an_es_module(package: Path) -> None:
    """The ES module has no default export, so `tsc` must refuse to import one."""
    program("node")
    source = package / "module.mts"
    source.write_text(
        "import { create, Client, Platform } from 'wxauth'\n"
        "export const start = (wx: Platform): Client => create({ baseURL: '', wx })\n"
        "// @ts-expect-error: there is no default export\n"
        "import wxauth from 'wxauth'\n"
    )
    options = ["--noEmit", "--strict", "--module", "node16", "--moduleResolution", "node16"]
    done = ran(program("tsc", TESTS / "node_modules" / ".bin"), *options, str(source), folder=package)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("word", ["checkSession", "session_key", "secret"])
def test_mini_program_does_not_contain_the_word(word: str) -> None:
    """A mini program holds no secret. `wx.checkSession` says nothing about our token."""
    texts = [path.read_text() for path in MINI_PROGRAM.rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if word.casefold() in text.casefold()]


def test_devtools_finds_all_files_and_no_appid() -> None:
    """The project has no real AppID, and each page in app.json has its four files."""
    project, app = (json.loads((MINI_PROGRAM / name).read_text()) for name in ("project.config.json", "app.json"))
    assert (project["appid"], project["setting"]["urlCheck"]) == ("touristappid", False)
    files = [f"{page}.{kind}" for page in app["pages"] for kind in ("js", "json", "wxml", "wxss")]
    assert [name for name in (*files, app["sitemapLocation"]) if not (MINI_PROGRAM / name).is_file()] == []


def test_package_lock_has_hashes_and_no_registry() -> None:
    """npm uses the configured registry and compares each package with its hash."""
    packages = json.loads((TESTS / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert [name for name, it in installed.items() if "resolved" in it or "integrity" not in it] == []
    assert {
        f"node_modules/{name}"
        for name in (
            "axe-core",
            "express",
            "miniprogram-api-typings",
            "openid-client",
            "typescript",
        )
    } <= set(installed)
