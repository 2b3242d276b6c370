"""Where the microseconds of a hit go: runs `benchmarks.hit` in a process of its own, and hands on what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.places import BIN, ROOT, SERVER_CORE, pinned
from benchmarks.running import PinnedRedis
from benchmarks.seeding import log_in_ours
from benchmarks.table import OURS


def environment(redis: PinnedRedis, folder: str) -> dict[str, str]:
    """Of a process that makes our calls; `folder` is for its metrics."""
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        # The metrics are shared between processes, as they are in the service.
        "PROMETHEUS_MULTIPROC_DIR": folder,
        "REDIS_URL": redis.url,
        **OURS,
    }


def measure() -> dict[str, Any]:
    """Microseconds by part: `/verify`, a decorated view, and the functions that take most of the latter."""
    with PinnedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        (token,) = log_in_ours(redis, 1)
        command = [*pinned(SERVER_CORE), sys.executable, "-m", "benchmarks.hit", token]
        done = subprocess.run(
            command, env=environment(redis, folder), cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
