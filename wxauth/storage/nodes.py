"""Where a key lies: the nodes of Redis, their connections and their breakers. Part of the door to `redis`.

It learns where the slots of a cluster are, and learns it anew where that turns out to be wrong. What is said on a
connection it does not know.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import redis
from redis.cluster import PRIMARY, ClusterNode, RedisCluster
from redis.exceptions import AskError, ClusterDownError, MovedError
from redis.sentinel import SentinelConnectionPool

from ..errors import StoreUnavailable
from .circuit_breaker import CircuitBreaker
from .connections import AnyClient
from .reasons import FAILURES, reason, unavailable

REFRESH_INTERVAL: Final = 0.1
MASTER_INTERVAL: Final = 0.5
#: How long others wait for whoever connects first.
CONNECTING: Final = 0.3
PROBE: Final = "wxa:{ready}:p"
#: So many that each node of a cluster has one.
CLUSTER_PROBES: Final = [f"wxa:{{ready{number}}}:p" for number in range(100)]


class Nodes:
    """All nodes behind one REDIS_URL. It connects when first asked. Safe to share between threads."""

    def __init__(self, connect: Callable[[], AnyClient]) -> None:
        self._connect = connect
        self.begin_anew()

    def begin_anew(self) -> None:
        """As if nobody had been asked yet: in a forked process nothing of its parent's can be relied on."""
        self._client: AnyClient | None = None
        self._lock = threading.Lock()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._connecting = CircuitBreaker()
        self._refreshing = threading.Lock()
        self._refreshed_at = time.monotonic()

    @property
    def one_is_held_for_down(self) -> bool:
        return any(breaker.is_open for breaker in list(self._breakers.values()))

    @property
    def are_a_cluster(self) -> bool:
        return isinstance(self._connected_or_refused(), RedisCluster)

    def place(self, key: str, asked: AskError | None = None) -> tuple[Any, CircuitBreaker]:
        """The pool of connections to the node that holds `key`, or that was said to, and the breaker of that node."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            self._keep_up_with_master(client.connection_pool)
            return client.connection_pool, self._breakers.setdefault("", CircuitBreaker())
        node = _node_asked(client, asked) if asked else client.get_node_from_key(key)
        return client.get_redis_connection(node).connection_pool, self._breakers.setdefault(
            node.name, CircuitBreaker()
        )

    def pools(self) -> list[tuple[str, Any]]:
        """The nodes that are written to: their names, and pools of connections to them."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            self._keep_up_with_master(client.connection_pool)
            # Of Sentinel's pool the name is the master it has found last, so a new one is another node.
            return [(str(getattr(client.connection_pool, "master_address", "")), client.connection_pool)]
        return [(node.name, client.get_redis_connection(node).connection_pool) for node in client.get_primaries()]

    def probes(self) -> list[str]:
        """A key on each node that is written to."""
        client = self._connected_or_refused()
        if not isinstance(client, RedisCluster):
            return [PROBE]
        homes = client.nodes_manager.slots_cache
        found: dict[str, str] = {}
        for key in CLUSTER_PROBES:
            home = homes.get(client.keyslot(key))
            found.setdefault(home[0].name if home else "nobody", key)
        return list(found.values())

    def look_around(self) -> None:
        """Learn where the slots are now, or who is master."""
        client = self._connected()
        if isinstance(client, RedisCluster):
            # redis-py would also close the connections to the node that it asks.
            client.nodes_manager.initialize(disconnect_startup_nodes_pools=False)
        elif isinstance(client.connection_pool, SentinelConnectionPool):
            # If it is another, the connections to the former are dropped.
            client.connection_pool.get_master_address()

    def suspect(self) -> None:
        """A node is held for down: learn whether another has taken its place, without making anyone wait for it."""
        if isinstance(self._client, RedisCluster):
            self._look_around_soon()

    def learn_from(self, failure: Exception) -> None:
        """Learn where the slots are now, without making anyone wait for it."""
        if isinstance(self._client, RedisCluster):
            if type(failure) is MovedError and failure.slot_id in self._client.nodes_manager.slots_cache:
                self._client.nodes_manager.move_slot(failure)
            elif _may_be_elsewhere(failure):
                self._look_around_soon()

    def _keep_up_with_master(self, pool: Any) -> None:
        """Sentinel's pool asks when it connects; and one that was demoted goes on answering whoever is connected."""
        if isinstance(pool, SentinelConnectionPool) and time.monotonic() > self._refreshed_at + MASTER_INTERVAL:
            self._look_around_soon()

    def _look_around_soon(self) -> None:
        if self._refreshing.acquire(blocking=False):
            try:
                threading.Thread(target=self._refresh, daemon=True).start()
            except RuntimeError:  # no thread is to be had
                self._refreshing.release()

    def _connected_or_refused(self) -> AnyClient:
        try:
            return self._connected()
        except FAILURES as error:
            word = reason(error)
        raise unavailable(word)

    def _connected(self) -> AnyClient:
        if self._client is None:
            if not self._connecting.admits():
                raise unavailable(self._connecting.reason)
            # The first to ask learns where the slots of a cluster are; whoever comes meanwhile waits for that.
            if not self._lock.acquire(timeout=CONNECTING):
                raise unavailable("unreachable")
            try:
                self._client = self._client or self._connect()
            except FAILURES as error:
                self._connecting.failed(reason(error))
                raise
            finally:
                self._lock.release()
        return self._client

    def _refresh(self) -> None:
        """One at a time, and not too often; whoever needs it comes upon the same trouble, and says so."""
        try:
            with contextlib.suppress(*FAILURES, StoreUnavailable):
                time.sleep(max(self._refreshed_at + REFRESH_INTERVAL - time.monotonic(), 0))
                self.look_around()
        finally:
            self._refreshed_at = time.monotonic()
            self._refreshing.release()


def _node_asked(client: RedisCluster, asked: AskError) -> ClusterNode:
    """A primary to which the first of its slots is just on the way stands in no list as yet."""
    nodes: dict[str, ClusterNode] = client.nodes_manager.nodes_cache
    node = ClusterNode(asked.host, asked.port, PRIMARY)
    return nodes.setdefault(node.name, node)


def _may_be_elsewhere(failure: Exception) -> bool:
    """Whether the node said nothing, so that another may have taken over; one that is slow may be gone for good."""
    return isinstance(failure, ClusterDownError) or not isinstance(failure, redis.ResponseError)
