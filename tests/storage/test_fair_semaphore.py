"""The semaphore of the connection pool and of the logins: the thread that has waited longest is the next."""

from __future__ import annotations

from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from tests.support.servers import wait_until
from wxauth.storage.fair_semaphore import FairSemaphore


def test_semaphore_that_is_free_is_held_by_as_many_threads_as_it_counts() -> None:
    semaphore = FairSemaphore(2)
    assert [semaphore.acquire(0), semaphore.acquire(0), semaphore.acquire(0)] == [True, True, False]
    semaphore.release()
    assert [semaphore.acquire(0), semaphore.acquire(0)] == [True, False]


def test_threads_that_wait_get_the_semaphore_in_the_order_in_which_they_came() -> None:
    semaphore, order = FairSemaphore(), list[int]()

    def wait(number: int) -> None:
        assert semaphore.acquire(10)
        order.append(number)

    with ThreadPoolExecutor() as pool:
        for number in range(4):
            pool.submit(wait, number)
            wait_until(partial(_has, semaphore.waiting, number + 1), "the thread to wait")
        for number in range(4):
            semaphore.release()
            wait_until(partial(_has, order, number + 1), "the next thread")
    assert order == [0, 1, 2, 3]


def test_new_thread_does_not_overtake_one_that_waits() -> None:
    semaphore = FairSemaphore()
    with ThreadPoolExecutor() as pool:
        served = pool.submit(semaphore.acquire, 10)
        wait_until(partial(_has, semaphore.waiting, 1), "the thread to wait")
        semaphore.release()
        # The thread may not run yet, but the semaphore is its own.
        assert not semaphore.acquire(0)
        assert served.result(10)


def test_thread_that_stops_waiting_leaves_the_semaphore_to_the_next() -> None:
    semaphore = FairSemaphore()
    assert not semaphore.acquire(0.01)
    assert not semaphore.waiting
    semaphore.release()
    assert semaphore.acquire(0)


class Interrupted(Exception):
    """Raised in a thread that waits, like gevent.Timeout."""


@dataclass
class FakeLock:
    """What a thread waits on. `wait` takes the place of the wait."""

    wait: Callable[[], bool]

    def acquire(self, timeout: float | None = None) -> bool:
        return True if timeout is None else self.wait()

    def release(self) -> None:
        """The thread would wake."""


Waits = Callable[[Callable[[], bool]], bool]


@pytest.fixture
def semaphore() -> FairSemaphore:
    return FairSemaphore()


@pytest.fixture
def waits(semaphore: FairSemaphore, monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Acquire the semaphore. The given function takes the place of the wait."""

    def acquire(wait: Callable[[], bool]) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr("threading.Lock", lambda: FakeLock(wait))
            return semaphore.acquire(1)

    return acquire


def test_semaphore_that_is_given_as_the_time_ends_is_held(semaphore: FairSemaphore, waits: Waits) -> None:
    def is_given_too_late() -> bool:
        semaphore.release()
        return False

    assert waits(is_given_too_late)
    assert not semaphore.acquire(0)


def interrupted() -> bool:
    raise Interrupted


def test_wait_that_is_interrupted_leaves_the_semaphore_to_the_next(semaphore: FairSemaphore, waits: Waits) -> None:
    with pytest.raises(Interrupted):
        waits(interrupted)
    assert not semaphore.waiting


def test_wait_that_is_interrupted_as_the_semaphore_is_given_frees_it(semaphore: FairSemaphore, waits: Waits) -> None:
    def is_given_and_interrupted() -> bool:
        semaphore.release()
        raise Interrupted

    with pytest.raises(Interrupted):
        waits(is_given_and_interrupted)
    assert semaphore.acquire(0)


def _has(found: Sized, count: int) -> bool:
    return len(found) == count
