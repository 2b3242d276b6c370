"""The nodes of Redis: where a key lies, their connection pools and their circuit breakers.

It learns the slots of a cluster and the primary behind Sentinel, and learns them again when they change. It does this
in a thread of its own: redis-py does it within the request, which then takes longer than 600 ms.
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

#: Seconds between two looks at the topology.
REFRESH_INTERVAL: Final = 0.1
#: Seconds between two questions to the sentinels who is primary.
PRIMARY_INTERVAL: Final = 0.5
#: Seconds that other threads wait for the first one to connect.
CONNECT_WAIT: Final = 0.3
PROBE: Final = "wxa:{ready}:p"
#: Enough keys that each node of a cluster has one.
CLUSTER_PROBES: Final = [f"wxa:{{ready{number}}}:p" for number in range(100)]


class Nodes:
    """All nodes behind one REDIS_URL. Connects at first use. Safe to share between threads."""

    def __init__(self, connect: Callable[[], AnyClient]) -> None:
        self._connect = connect
        self.reset()

    def reset(self) -> None:
        """Forget everything, as at the start. A forked process must not use the connections of its parent."""
        self._client: AnyClient | None = None
        self._lock = threading.Lock()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._connecting = CircuitBreaker()
        self._refreshing = threading.Lock()
        self._refreshed_at = time.monotonic()

    @property
    def any_breaker_open(self) -> bool:
        """Whether a node is considered down."""
        return any(breaker.is_open for breaker in list(self._breakers.values()))

    @property
    def are_a_cluster(self) -> bool:
        """Whether this is Redis Cluster."""
        return isinstance(self._connected_or_unavailable(), RedisCluster)

    def place(self, key: str, asked: AskError | None = None) -> tuple[Any, CircuitBreaker]:
        """Return the pool and the breaker of the node that holds `key`, or that an ASK reply named."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            self._follow_primary(client.connection_pool)
            return client.connection_pool, self._breakers.setdefault("", CircuitBreaker())
        node = _asked_node(client, asked) if asked else client.get_node_from_key(key)
        pool = client.get_redis_connection(node).connection_pool
        return pool, self._breakers.setdefault(node.name, CircuitBreaker())

    def pools(self) -> list[tuple[str, Any]]:
        """Return the name and the pool of each node that takes writes."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            self._follow_primary(client.connection_pool)
            # Sentinel's pool is named after the primary found last, so a new primary is a new name.
            return [(str(getattr(client.connection_pool, "master_address", "")), client.connection_pool)]
        return [(node.name, client.get_redis_connection(node).connection_pool) for node in client.get_primaries()]

    def probes(self) -> list[str]:
        """Return one key on each node that takes writes."""
        client = self._connected_or_unavailable()
        if not isinstance(client, RedisCluster):
            return [PROBE]
        slots = client.nodes_manager.slots_cache
        found: dict[str, str] = {}
        for key in CLUSTER_PROBES:
            nodes = slots.get(client.keyslot(key))
            found.setdefault(nodes[0].name if nodes else "uncovered", key)
        return list(found.values())

    def refresh(self) -> None:
        """Learn where the slots are, or which node is primary."""
        client = self._connected()
        if isinstance(client, RedisCluster):
            # By default redis-py would also close the connections to the node that it asks.
            client.nodes_manager.initialize(disconnect_startup_nodes_pools=False)
        elif isinstance(client.connection_pool, SentinelConnectionPool):
            # If the primary has changed, redis-py drops the connections to the old one.
            client.connection_pool.get_master_address()

    def suspect(self) -> None:
        """A node is considered down: look in the background whether another took its place."""
        if isinstance(self._client, RedisCluster):
            self._refresh_soon()

    def learn_from(self, failure: Exception) -> None:
        """Learn from an error where the slots are, in the background."""
        if isinstance(self._client, RedisCluster):
            if type(failure) is MovedError and failure.slot_id in self._client.nodes_manager.slots_cache:
                self._client.nodes_manager.move_slot(failure)
            elif _may_be_elsewhere(failure):
                self._refresh_soon()

    def _follow_primary(self, pool: Any) -> None:
        """Ask the sentinels now and then: their pool asks only when it connects, and a demoted primary answers on."""
        if isinstance(pool, SentinelConnectionPool) and time.monotonic() > self._refreshed_at + PRIMARY_INTERVAL:
            self._refresh_soon()

    def _refresh_soon(self) -> None:
        if self._refreshing.acquire(blocking=False):
            try:
                threading.Thread(target=self._refresh, daemon=True).start()
            except RuntimeError:  # no thread is available
                self._refreshing.release()

    def _connected_or_unavailable(self) -> AnyClient:
        try:
            return self._connected()
        except FAILURES as error:
            word = reason(error)
        raise unavailable(word)

    def _connected(self) -> AnyClient:
        if self._client is None:
            if not self._connecting.admits():
                raise unavailable(self._connecting.reason)
            # The first thread asks a cluster for its slots; the others wait for it.
            if not self._lock.acquire(timeout=CONNECT_WAIT):
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
        """Refresh, one thread at a time and not too often. A request that needs the node reports the failure."""
        try:
            with contextlib.suppress(*FAILURES, StoreUnavailable):
                time.sleep(max(self._refreshed_at + REFRESH_INTERVAL - time.monotonic(), 0))
                self.refresh()
        finally:
            self._refreshed_at = time.monotonic()
            self._refreshing.release()


def _asked_node(client: RedisCluster, asked: AskError) -> ClusterNode:
    """Return the node of an ASK reply. A primary that gets its first slot is in no list yet."""
    nodes: dict[str, ClusterNode] = client.nodes_manager.nodes_cache
    node = ClusterNode(asked.host, asked.port, PRIMARY)
    return nodes.setdefault(node.name, node)


def _may_be_elsewhere(failure: Exception) -> bool:
    """Return whether another node may have taken over: this one did not answer."""
    return isinstance(failure, ClusterDownError) or not isinstance(failure, redis.ResponseError)
