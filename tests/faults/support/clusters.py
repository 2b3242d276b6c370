"""Redis Cluster as real processes: three primaries with a replica each. Slots can be moved while it runs."""

from __future__ import annotations

import time
from typing import Final

import redis

from tests.faults.support.topologies import PROMOTION_LIMIT, Node, Topology, text_of
from tests.support.servers import wait_until

SLOTS: Final = 16384


class ClusterSet(Topology):
    """Three primaries with a replica each. When a primary is down, the other slots stay available."""

    OPTIONS: Final = (
        *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-config-file", "nodes.conf"),
        *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
    )

    def __init__(self, *options: str, password: str = "", server: str = "redis-server") -> None:
        self._server = server
        self._options = (*self.OPTIONS, *options)
        super().__init__([])
        self.nodes += [Node(*self._options, password=password, server=server) for _ in range(6)]
        self._partners = {a: b for i in range(3) for a, b in _both_ways(self.nodes[i], self.nodes[i + 3])}

    @property
    def url(self) -> str:
        return f"redis+cluster://{self._login}{','.join(node.place for node in self.nodes[:3])}"

    def _assemble(self) -> None:
        super()._assemble()
        for epoch, node in enumerate(self.nodes, 1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for number in range(3):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3
            self.nodes[number].ask("CLUSTER", "ADDSLOTS", *range(first, last))
        for node in self.nodes[1:]:
            self._introduce(node)
        self._await_acquaintance()
        for number in range(3):
            self.nodes[number + 3].ask("CLUSTER", "REPLICATE", self.id_of(self.nodes[number]))
        self.settle()

    def settle(self) -> None:
        """Wait until each node reports a healthy cluster and each replica is in sync."""
        wait_until(lambda: all(_is_well(node) for node in self.nodes), "a whole cluster", PROMOTION_LIMIT)
        marks = {node: node.replication()["master_repl_offset"] for node in self.primaries()}
        marks = {node: mark for node, mark in marks.items() if node in self._partners}
        wait_until(lambda: all(_is_followed(*mark) for mark in marks.items()), "replicas in step", PROMOTION_LIMIT)

    def join(self) -> Node:
        """Add a primary without slots."""
        node = Node(*self._options, password=self.password, server=self._server)
        self._stack.enter_context(node)
        self._introduce(node)
        self.nodes.append(node)
        self._await_acquaintance()
        self.settle()
        return node

    def partner(self, node: Node) -> Node:
        """Return the replica of a primary, or the primary of a replica."""
        return self._partners[node]

    def elections(self) -> int:
        """Return how many elections replicas have won so far."""
        return sum(node.output().count("Failover election won") for node in self.nodes)

    def id_of(self, node: Node) -> str:
        return text_of(node.ask("CLUSTER", "MYID"))

    def primaries(self) -> list[Node]:
        return [node for node in self.nodes if node.leads()]

    def owners(self) -> dict[int, Node]:
        """Return the primary of each slot, as a live node sees it."""
        by_port = {node.port: node for node in self.nodes}
        view = self.primaries()[0].ask("CLUSTER", "SLOTS")
        return {slot: by_port[int(home[1])] for first, last, home, *_ in view for slot in range(first, last + 1)}

    def move_slot(self, slot: int, source: Node, target: Node, pause: float = 0) -> None:
        """Move a slot like `redis-cli --cluster reshard`, with a `pause` in seconds after each key.

        Other nodes learn of it later: some still redirect to the old primary.
        """
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        login = ("AUTH", self.password) if self.password else ()
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 2000, *login, "KEYS", *keys)
            time.sleep(pause)
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def _introduce(self, node: Node) -> None:
        node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)

    def _await_acquaintance(self) -> None:
        wait_until(lambda: all(_knows(node, len(self.nodes)) for node in self.nodes), "nodes that know one another")


def _both_ways(a: Node, b: Node) -> list[tuple[Node, Node]]:
    return [(a, b), (b, a)]


def _is_well(node: Node) -> bool:
    try:
        whole = "cluster_state:ok" in text_of(node.ask("CLUSTER", "INFO"))
    except (redis.RedisError, OSError):
        return False
    return whole and (node.leads() or node.follows())


def _is_followed(primary: Node, mark: int) -> bool:
    """Return whether the replica has acknowledged all writes up to the offset `mark`."""
    follower = primary.replication().get("slave0", {"offset": -1})
    return int(follower["offset"]) >= mark


def _knows(node: Node, count: int) -> bool:
    lines = text_of(node.ask("CLUSTER", "NODES")).splitlines()
    return len([line for line in lines if "handshake" not in line]) >= count
