"""Generate clients from openapi.yaml, each in a folder of its own, with the generator as its package installs it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.support.servers import program
from tests.support.service import BIN, ROOT

CONTRACT: Final = ROOT / "wxauth" / "openapi.yaml"
CLIENTS: Final = ROOT / "tests" / "clients"
PROGRAMS: Final = CLIENTS / "programs"
NODE_MODULES: Final = CLIENTS / "node_modules"


def run(*command: str | Path, folder: Path) -> str:
    """Run the command in `folder`, and return what it prints. Raises AssertionError if it fails."""
    environ = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder), "HOME": str(folder)}
    environ |= {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}  # no request to its makers
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def npm_program(name: str) -> str:
    return program(name, NODE_MODULES / ".bin")


def npm_version(package: str) -> str:
    found: str = json.loads((NODE_MODULES / package / "package.json").read_text())["version"]
    return found


def openapi_generator(folder: Path) -> tuple[str, list[str]]:
    """Generate the Python client of OpenAPI Generator. Return its version, and the command that uses it."""
    spec = importlib.util.find_spec("openapi_generator_cli")
    assert spec is not None
    assert spec.origin is not None
    jar = Path(spec.origin).with_name("openapi-generator.jar")
    options = ("--generator-name", "python", "--package-name", "wxauth_client", "--output", folder)
    run(program("java"), "-jar", jar, "generate", "--input-spec", CONTRACT, *options, folder=folder)
    found = run(program("java"), "-jar", jar, "version", folder=folder).strip()
    return found, [sys.executable, str(PROGRAMS / "openapi_generator.py")]


def openapi_python_client(folder: Path) -> tuple[str, list[str]]:
    """Generate the client of openapi-python-client. Return its version, and the command that uses it."""
    options = ("--meta", "none", "--output-path", folder / "wxauth_client")
    run(BIN / "openapi-python-client", "generate", "--path", CONTRACT, *options, folder=folder)
    return version("openapi-python-client"), [sys.executable, str(PROGRAMS / "openapi_python_client.py")]


def openapi_typescript(folder: Path) -> tuple[str, list[str]]:
    """Generate the types of openapi-typescript, and compile a program against them. Return version and command."""
    run(npm_program("openapi-typescript"), CONTRACT, "--output", folder / "contract.d.ts", folder=folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    for source in (PROGRAMS / "openapi_fetch.mts", CLIENTS / "tsconfig.json"):
        shutil.copy(source, folder)
    run(npm_program("tsc"), "--project", "tsconfig.json", folder=folder)
    return npm_version("openapi-typescript"), [program("node"), "openapi_fetch.mjs"]
