"""The machine and the versions of a run."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.harness.host import BENCHMARKS, ROOT

PACKAGES: Final = (
    "granian", "flask", "werkzeug", "redis", "hiredis", "cryptography", "flask-session", "flask-jwt-extended",
    "gunicorn",
)  # fmt: skip
PROGRAMS: Final = (
    ("redis-server", "--version"),
    ("nginx", "-v"),
    ("node", "--version"),
    ("wrk", "--version"),
)


def commit() -> str:
    """Return the commit that is measured, with `-dirty` behind it if files have changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def facts() -> dict[str, str]:
    """Return the processor, the kernel, the load and all versions."""
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "load average at the start": load,
        "Python": f"{platform.python_version()}, {'the' if sys.base_prefix == '/usr' else 'not the'} system's",
        **{name: version(name) for name in PACKAGES},
        **{command[0]: _printed_version(*command) for command in PROGRAMS},
        **_node_packages(),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _printed_version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"v?=?/?([0-9]+\.[0-9.]+)", done.stdout + done.stderr)
    return found[1] if found else "?"


def _node_packages() -> dict[str, str]:
    found: dict[str, str] = json.loads((BENCHMARKS / "node" / "package.json").read_text())["dependencies"]
    return {f"{name} (npm)": text for name, text in found.items()}
