"""Processor time and memory of a process and its children, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
# Indexes into /proc/<pid>/stat after the process name, which may contain spaces and brackets.
PARENT, UTIME, STIME = 1, 11, 12


def tree(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    parents = {int(path.name): int(fields[PARENT]) for path in PROC.glob("[0-9]*") if (fields := _stat(path))}
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


def processor_seconds(pids: Iterable[int]) -> float:
    """Return the user and system time that the processes have used so far."""
    stats = [fields for pid in pids if (fields := _stat(PROC / str(pid)))]
    return sum(int(fields[UTIME]) + int(fields[STIME]) for fields in stats) / TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Return the resident memory of the process (VmRSS)."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _stat(path: Path) -> list[str]:
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # the process has ended
        return []
