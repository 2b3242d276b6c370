"""The servers of the tests leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers import Server, has_ended, wait_until


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list child processes")
def test_stop_ends_a_child_that_the_server_leaves_behind() -> None:
    """The child has its own session, like the processes that honcho starts."""
    with Server(["sh", "-c", "setsid sleep 600 & echo $!; exec sleep 600"]) as server:
        wait_until(lambda: server.output().endswith("\n"), "the child")
        child = int(server.output())
        wait_until(lambda: not has_ended(child), "the session of the child")
    wait_until(lambda: has_ended(child), "the end of the child")
