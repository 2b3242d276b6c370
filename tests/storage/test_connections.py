"""The pool: few connections for many threads, and the open ones first."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial

import pytest
import redis

from tests.faults.support.clusters import ClusterSet
from tests.faults.support.topologies import SentinelSet
from tests.support.listener import Listener
from tests.support.servers import RedisServer, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

#: All of them together take less than the time that one may wait.
THREADS, TIMES = 8, 10


def failures(action: Callable[[], object]) -> list[Exception]:
    """Return the errors of THREADS threads, each of which does `action` TIMES times."""
    raised: list[Exception] = []

    def repeat() -> None:
        for _ in range(TIMES):
            try:
                action()
            except Exception as error:
                raised.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def client_of(server: RedisServer, connections: int) -> RedisClient:
    return RedisClient(connector(server.url, "verify", connections))


def open_connections(client: RedisClient) -> int:
    return sum(connection.is_connected for _, pool in client.pools() for connection in pool._connections)


def test_more_threads_than_connections_wait_for_one(redis_server: RedisServer) -> None:
    client = client_of(redis_server, 2)
    assert failures(lambda: client.read("k")) == []
    assert open_connections(client) == 2


class TalkativeRedis(Listener):
    """A Redis that says more than it is asked for."""

    def _serve(self, sock: socket.socket) -> None:
        while sock.recv(4096):
            sock.sendall(b"+PONG\r\n$5\r\nOTHER\r\n")


def test_a_connection_with_unread_data_is_not_used_even_if_it_is_a_new_one() -> None:
    with TalkativeRedis() as server:
        client = RedisClient(connector(f"redis://{server.host}", "verify", 2))
        with pytest.raises(StoreUnavailable):
            client.read("k")


def test_connection_goes_to_the_thread_that_has_waited_longest(redis_server: RedisServer) -> None:
    """A thread that asks again at once, as under load, comes last."""
    pool = client_of(redis_server, 1).pools()[0][1]
    connection, turns = pool.get_connection(), pool.pool.turns
    served: list[int] = []

    def take(number: int) -> None:
        taken = pool.get_connection()
        served.append(number)
        pool.release(taken)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(THREADS)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(partial(lambda number: len(turns.waiting) > number, number), "a thread that waits")
    pool.release(connection)
    take(THREADS)
    assert served == list(range(THREADS + 1))


def test_thread_that_gives_up_leaves_its_place_to_the_next(redis_server: RedisServer) -> None:
    pool = client_of(redis_server, 1).pools()[0][1]
    connection = pool.get_connection()
    with pytest.raises(redis.ConnectionError, match="No connection available"):
        pool.get_connection()
    pool.release(connection)
    assert pool.get_connection() is connection


def is_accepted(client: RedisClient) -> bool:
    try:
        client.read("k")
    except StoreUnavailable:
        return False
    return True


def test_threads_wait_for_an_open_connection_if_redis_accepts_no_more() -> None:
    with RedisServer("--maxclients", "1") as server:
        client = client_of(server, 8)
        # The connection that asked whether the server is ready may still be there.
        wait_until(lambda: is_accepted(client), "the first connection")
        assert failures(lambda: client.read("k")) == []
        assert open_connections(client) == 1


def test_refusal_of_the_first_connection_raises_and_opens_no_breaker() -> None:
    with RedisServer("--maxclients", "1") as server, server.client() as admin:
        admin.ping()
        client = client_of(server, 2)
        for _ in range(10):
            with pytest.raises(StoreUnavailable, match="max_clients"):
                client.read("k")
        admin.config_set("maxclients", 10)
        assert client.read("k") is None


def test_open_connections_are_handed_out_before_closed_ones(redis_server: RedisServer) -> None:
    """The connection that could not be opened was released last."""
    pool = client_of(redis_server, 3).pools()[0][1]
    first, last = pool.get_connection(), pool.get_connection()
    pool.release(first)
    last.disconnect()
    pool.release(last)
    assert pool.get_connection() is first


def test_thread_that_takes_a_connection_waits_until_it_is_closed(redis_server: RedisServer) -> None:
    """Otherwise the connection is closed while the thread uses it."""
    pool = client_of(redis_server, 1).pools()[0][1]
    connection = pool.get_connection()
    pool.release(connection)
    thread, close, waits = threading.Thread(target=pool.get_connection), connection.disconnect, []

    def close_slowly() -> None:
        thread.start()
        thread.join(0.05)
        waits.append(thread.is_alive())
        close()

    connection.disconnect = close_slowly
    pool.disconnect(inuse_connections=False)
    thread.join()
    connection.disconnect = close
    assert waits == [True]


def test_each_primary_of_a_cluster_has_a_pool_of_its_own(cluster_set: ClusterSet) -> None:
    client = RedisClient(connector(cluster_set.url, "verify", 2))
    probes = client.probes()
    assert failures(lambda: [client.read(key) for key in probes]) == []
    assert open_connections(client) == 2 * len(probes)


def test_threads_wait_for_a_connection_to_the_primary(sentinel_set: SentinelSet) -> None:
    client = RedisClient(connector(sentinel_set.url, "verify", 2))
    assert failures(lambda: client.read("k")) == []
    assert open_connections(client) == 2


def test_connection_to_a_former_primary_is_closed_and_kept(sentinel_set: SentinelSet) -> None:
    """The next thread opens it to the new primary."""
    pool = RedisClient(connector(sentinel_set.url, "verify", 1)).pools()[0][1]
    connection = pool.get_connection()
    pool.proxy.master_address = ("127.0.0.1", 1)
    pool.release(connection)
    assert not connection.is_connected
    assert pool.get_connection() is connection
    assert (connection.is_connected, pool._connections) == (True, [connection])
