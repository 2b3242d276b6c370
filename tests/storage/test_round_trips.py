"""Round trips that threads share: who sends, who gets which reply, and what an error or an interruption does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from tests.support.servers import RedisServer, wait_until
from wxauth.storage import round_trips
from wxauth.storage.client import RedisClient, bytes_or_none
from wxauth.storage.connections import connector
from wxauth.storage.round_trips import MAX_OTHERS, Command, SharedRoundTrips


class Interrupted(BaseException):
    """Raised in a thread that waits, like gevent.Timeout."""


THREADS = 40
ERRORS = [redis.ConnectionError(), redis.TimeoutError(), redis.InvalidResponse(), OSError(), Interrupted()]


class FakePool:
    """A pool of one kind of connection, which echoes. Each round trip waits for a permission of the test."""

    def __init__(self) -> None:
        self.sent: list[list[Command]] = []
        self.permissions = threading.Semaphore(0)
        #: Raised by the next round trip, after its permission.
        self.error: BaseException | None = None
        self.released = self.disconnected = 0
        self.has_replies = False

    def get_connection(self) -> FakeConnection:
        return FakeConnection(self)

    def release(self, _: object) -> None:
        self.released += 1


class FakeConnection:
    def __init__(self, pool: FakePool) -> None:
        self._pool = pool
        self._commands: Iterator[Command] = iter(())

    def pack_commands(self, commands: Sequence[Command]) -> Sequence[Command]:
        return commands

    def send_packed_command(self, commands: Sequence[Command]) -> None:
        self._pool.sent.append(list(commands))
        self._commands = iter(commands)
        assert self._pool.permissions.acquire(timeout=10)
        error, self._pool.error = self._pool.error, None
        if error:
            raise error

    def read_response(self) -> Any:
        (name, *_) = next(self._commands)
        if name == "WRONG":
            raise redis.ResponseError("unknown command")
        return name

    def can_read(self) -> bool:
        return self._pool.has_replies

    def disconnect(self) -> None:
        self._pool.disconnected += 1


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def shared(pool: FakePool) -> SharedRoundTrips:
    return SharedRoundTrips(pool, 10)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as executor:
        yield executor


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread stops waiting, however slow the machine is."""
    monkeypatch.setattr(round_trips, "MAX_WAIT", 10)


class Sender:
    """Sends commands, each in a thread of its own."""

    def __init__(self, shared: SharedRoundTrips, pool: FakePool, threads: ThreadPoolExecutor) -> None:
        self._shared = shared
        self._pool = pool
        self._threads = threads

    def start(self, name: str) -> Future[Any]:
        """Send a command that has to wait for Redis."""
        before = len(self._pool.sent)
        future = self._threads.submit(self._shared.send, (name,))
        wait_until(lambda: len(self._pool.sent) > before, "the command to be sent")
        return future

    def gather(self, *names: str) -> list[Future[Any]]:
        """Send commands while another waits for Redis."""
        futures = []
        for count, name in enumerate(names, len(self._shared._gathered) + 1):
            futures.append(self._threads.submit(self._shared.send, (name,)))
            wait_until(partial(self._has_gathered, count), "the command to be gathered")
        return futures

    def _has_gathered(self, count: int) -> bool:
        return len(self._shared._gathered) == count


@pytest.fixture
def sender(shared: SharedRoundTrips, pool: FakePool, threads: ThreadPoolExecutor) -> Sender:
    return Sender(shared, pool, threads)


def failure(future: Future[Any]) -> str:
    return type(future.exception(10)).__name__


@pytest.mark.usefixtures("patient")
def test_commands_that_come_during_a_round_trip_go_together_in_the_next(pool: FakePool, sender: Sender) -> None:
    futures = [sender.start("a"), *sender.gather("b", "c", "d")]
    pool.permissions.release()
    wait_until(lambda: len(pool.sent) == 2, "the second round trip")
    futures += sender.gather("e", "f")
    pool.permissions.release(2)
    assert [future.result(10) for future in futures] == ["a", "b", "c", "d", "e", "f"]
    assert pool.sent == [[("a",)], [("b",), ("c",), ("d",)], [("e",), ("f",)]]
    assert pool.released == 3


@pytest.mark.usefixtures("patient")
def test_single_commands_one_after_the_other_are_sent_at_once(pool: FakePool, shared: SharedRoundTrips) -> None:
    pool.permissions.release(2)
    assert [shared.send(("a",)), shared.send(("b",))] == ["a", "b"]
    assert pool.sent == [[("a",)], [("b",)]]


@pytest.mark.usefixtures("patient")
def test_thread_that_gets_an_error_reply_sends_alone(pool: FakePool, sender: Sender) -> None:
    """The error may be that of the command of another thread."""
    first = sender.start("a")
    good, wrong, last = sender.gather("b", "WRONG", "d")
    pool.permissions.release(3)
    assert [first.result(10), good.result(10), last.result(10)] == ["a", "b", "d"]
    assert failure(wrong) == "ResponseError"
    assert pool.sent[2:] == [[("WRONG",)]]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_error_of_a_round_trip_reaches_the_thread_that_sent_it_and_the_others_send_alone(
    error: BaseException, pool: FakePool, sender: Sender
) -> None:
    first = sender.start("a")
    others = sender.gather("b", "c", "d")
    pool.permissions.release()
    assert first.result(10) == "a"
    wait_until(lambda: len(pool.sent) == 2, "the second round trip")
    pool.error = error
    pool.permissions.release(3)
    assert failure(others[0]) == type(error).__name__
    assert [future.result(10) for future in others[1:]] == ["c", "d"]
    assert sorted(pool.sent[2:]) == [[("c",)], [("d",)]]
    assert (pool.disconnected, pool.released) == (1, 4)


@pytest.mark.usefixtures("patient")
def test_thread_sends_a_bounded_number_of_commands_for_others(pool: FakePool, sender: Sender) -> None:
    first = sender.start("first")
    others = sender.gather(*map(str, range(MAX_OTHERS + 2)))
    pool.permissions.release(3)
    assert [future.result(10) for future in (first, *others)] == ["first", *map(str, range(MAX_OTHERS + 2))]
    assert [len(commands) for commands in pool.sent] == [1, MAX_OTHERS + 1, 1]


def test_thread_that_has_waited_too_long_sends_alone(pool: FakePool, sender: Sender) -> None:
    """Otherwise a silent Redis would hold a thread for two timeouts: that of another and its own."""
    futures = [sender.start("a"), sender.start("b"), sender.start("c")]
    assert pool.sent == [[("a",)], [("b",)], [("c",)]]
    pool.permissions.release(3)
    assert [future.result(10) for future in futures] == ["a", "b", "c"]


def test_thread_whose_command_another_has_sent_does_not_wait_longer_for_it(
    pool: FakePool, shared: SharedRoundTrips, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_trips, "MAX_WAIT", 0.2)
    first = sender.start("a")
    second, third = sender.gather("b", "c")
    pool.permissions.release()
    assert first.result(10) == "a"
    wait_until(lambda: len(pool.sent) == 3, "the third thread to send alone")
    assert pool.sent == [[("a",)], [("b",), ("c",)], [("c",)]]
    pool.permissions.release(2)
    assert [second.result(10), third.result(10)] == ["b", "c"]
    assert not shared._is_busy


def test_thread_does_not_wait_for_another_reply_after_the_timeout(pool: FakePool) -> None:
    """Replies that drip in would hold it for one timeout each."""
    pool.permissions.release()
    with pytest.raises(redis.TimeoutError):
        SharedRoundTrips(pool, -1).send(("a",))
    assert (pool.disconnected, pool.released) == (1, 1)


def test_replies_that_are_there_after_the_timeout_are_read(pool: FakePool) -> None:
    """The process was paused, and Redis has answered in time."""
    pool.has_replies = True
    pool.permissions.release()
    assert SharedRoundTrips(pool, -1).send(("a",)) == "a"


def interrupt(monkeypatch: pytest.MonkeyPatch, wait: Callable[[], None]) -> None:
    """Let the waits of the next commands end with Interrupted, after `wait`."""

    def acquire(timeout: float | None = None) -> None:
        if timeout is not None:
            wait()
            raise Interrupted

    lock = SimpleNamespace(acquire=acquire, release=lambda: None)
    monkeypatch.setattr(round_trips, "threading", SimpleNamespace(Lock=lambda: lock))


def test_interrupted_thread_withdraws_its_command(
    pool: FakePool, shared: SharedRoundTrips, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sender.start("a")
    interrupt(monkeypatch, lambda: None)
    with pytest.raises(Interrupted):
        shared.send(("b",))
    monkeypatch.undo()
    pool.permissions.release(2)
    assert first.result(10) == "a"
    assert shared.send(("c",)) == "c"
    assert pool.sent == [[("a",)], [("c",)]]
    assert not shared._is_busy


def test_interrupted_thread_that_has_the_turn_passes_it_on(
    pool: FakePool, shared: SharedRoundTrips, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every later command would wait for a thread that is gone."""
    first = sender.start("a")

    def wait_for_the_turn() -> None:
        pool.permissions.release()
        assert first.result(10) == "a"

    interrupt(monkeypatch, wait_for_the_turn)
    with pytest.raises(Interrupted):
        shared.send(("b",))
    monkeypatch.undo()
    pool.permissions.release()
    started = sender.start("c")
    assert started.result(10) == "c"
    assert not shared._is_busy


@pytest.fixture
def counted(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RedisClient, list[int]]]:
    """A client, and the numbers of commands in its round trips."""
    # A connection for each of the threads, and time enough on a machine that is busy with other tests.
    client = RedisClient(connector(redis_server.url, "verify", connections=THREADS, timeout=10))
    sizes, send = list[int](), round_trips.round_trip

    def counting(pool: Any, commands: Sequence[Command], **options: Any) -> list[Any]:
        sizes.append(len(commands))
        return send(pool, commands, **options)

    monkeypatch.setattr(round_trips, "round_trip", counting)
    yield client, sizes
    for _, pool in client.pools():
        pool.disconnect()


def ask_all(client: RedisClient, threads: ThreadPoolExecutor, together: bool) -> list[bool]:
    """Ask from all threads. Return whether each got the reply to its own command."""

    def ask(number: int) -> bool:
        text = str(number)
        reply = client.ask("k", "ECHO", text, parse=bytes_or_none, together=together)
        return reply == text.encode()

    return list(threads.map(ask, range(5000)))


def test_threads_at_a_real_server_share_round_trips_and_get_their_own_replies(
    counted: tuple[RedisClient, list[int]], threads: ThreadPoolExecutor
) -> None:
    client, sizes = counted
    assert all(ask_all(client, threads, together=True))
    assert max(sizes) > 1
    assert sum(sizes) >= 5000 > len(sizes)


def test_threads_that_do_not_ask_together_share_nothing(
    counted: tuple[RedisClient, list[int]], threads: ThreadPoolExecutor
) -> None:
    client, sizes = counted
    assert all(ask_all(client, threads, together=False))
    assert sizes == []


def test_connections_that_are_lost_fail_no_thread(
    counted: tuple[RedisClient, list[int]], redis_server: RedisServer, threads: ThreadPoolExecutor
) -> None:
    """The client tries once more, so no command may lose two connections."""
    client, _ = counted
    asking, over, kills = set[int](), threading.Event(), list[int]()

    def ask(number: int) -> bool:
        asking.add(number)
        try:
            return client.ask("k", "ECHO", str(number), parse=bytes_or_none, together=True) == str(number).encode()
        finally:
            asking.remove(number)

    def kill() -> None:
        with redis_server.client() as killer:
            while not over.wait(0.05):
                kills.append(cast(int, killer.client_kill_filter(_type="normal", skipme=True)))
                hit = asking.copy()
                wait_until(partial(asking.isdisjoint, hit), "each command that lost a connection is done")

    killing = threads.submit(kill)
    try:
        assert all(threads.map(ask, range(5000)))
    finally:
        over.set()
    killing.result(10)
    assert sum(kills) > 0
