"""The semaphore of the connection pool and of the logins: the thread that has waited longest is the next."""

from __future__ import annotations

from collections.abc import Sized
from concurrent.futures import ThreadPoolExecutor
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


@pytest.mark.parametrize("is_given", [False, True], ids=["while it waits", "as the semaphore is given to it"])
def test_wait_that_is_interrupted_holds_nothing(monkeypatch: pytest.MonkeyPatch, is_given: bool) -> None:
    class InterruptedLock:
        def acquire(self, timeout: float | None = None) -> None:
            if timeout is not None:
                if is_given:
                    semaphore.release()
                raise Interrupted

        def release(self) -> None:
            """The thread would wake."""

    semaphore = FairSemaphore()
    with monkeypatch.context() as patched:
        patched.setattr("threading.Lock", InterruptedLock)
        with pytest.raises(Interrupted):
            semaphore.acquire(1)
    if not is_given:
        semaphore.release()
    assert semaphore.acquire(0)


def _has(found: Sized, count: int) -> bool:
    return len(found) == count
