"""Real servers on ::1: alone, behind a sentinel, as a cluster, and as the second host of a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.support.clusters import SLOTS, ClusterSet
from tests.faults.support.topologies import SERVICE, Node, SentinelNode
from tests.support.servers import free_port, wait_until
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector, login_and_hosts

#: The tests' own clients use IPv4.
BIND = ("--bind", "127.0.0.1", "::1")


def is_reached(url: str) -> bool:
    return RedisClient(connector(url, "verify")).health() == "ok"


@contextmanager
def sentinel_of(primary: Node) -> Iterator[SentinelNode]:
    """Start a sentinel on ::1 that names ::1."""
    sentinel = SentinelNode(primary, 1, "")
    settings = sentinel.folder / "sentinel.conf"
    text = settings.read_text().replace("bind 127.0.0.1", "bind 127.0.0.1 ::1")
    settings.write_text(text.replace(f"{SERVICE} 127.0.0.1", f"{SERVICE} ::1"))
    with sentinel:
        yield sentinel


def test_single_server_is_reached() -> None:
    with Node(*BIND, password="right") as server:
        assert is_reached(f"redis://:right@[::1]:{server.port}/0")


@pytest.mark.parametrize("form", ["[::1]:{port}", "127.0.0.1:{dead},[::1]:{port}", "[::1]:{dead},[::1]:{port}"])
def test_primary_behind_a_sentinel_is_reached(form: str) -> None:
    with Node(*BIND) as primary, sentinel_of(primary) as sentinel:
        hosts = form.format(port=sentinel.port, dead=free_port())
        assert is_reached(f"redis+sentinel://{hosts}/{SERVICE}/0")


@pytest.mark.parametrize("form", ["[::1]:{port}", "127.0.0.1:{dead},[::1]:{port}", "[::1]:{dead},[::1]:{port}"])
def test_cluster_is_reached(form: str) -> None:
    announced = ("--cluster-announce-ip", "::1")
    with Node(*ClusterSet.OPTIONS, *BIND, *announced) as node:
        node.ask("CLUSTER", "ADDSLOTS", *range(SLOTS))
        wait_until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), "a cluster")
        assert is_reached(f"redis+cluster://{form.format(port=node.port, dead=free_port())}")


@pytest.mark.parametrize(
    ("authority", "hosts"),
    [
        ("[::1]", [("::1", 6379)]),
        (
            "user:p%40ss@[fd00::2]:7000,host,[::ffff:10.0.0.1]:1",
            [("fd00::2", 7000), ("host", 6379), ("::ffff:10.0.0.1", 1)],
        ),
    ],
)
def test_hosts_have_no_brackets(authority: str, hosts: list[tuple[str, int]]) -> None:
    assert login_and_hosts(authority)[1] == hosts
