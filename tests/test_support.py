"""The servers of the tests leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.servers import Server, wait_until


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list child processes")
def test_stop_ends_a_child_that_the_server_leaves_behind() -> None:
    """The child has its own session, like the processes that honcho starts."""
    with Server(["sh", "-c", "setsid sleep 600 & echo $!; exec sleep 600"]) as server:
        wait_until(lambda: server.output().endswith("\n"), "the child")
        child = int(server.output())
        os.kill(child, 0)
    wait_until(lambda: has_ended(child), "the end of the child")


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
