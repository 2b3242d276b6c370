"""The breaker: closed it is not to be noticed, open it costs nothing, and it finds its way back by itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wxauth.storage.circuit_breaker import MAX_FAILURES, PROBE_INTERVAL, CircuitBreaker


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def breaker(now: Now) -> CircuitBreaker:
    return CircuitBreaker(now)


@pytest.fixture
def broken(breaker: CircuitBreaker) -> CircuitBreaker:
    """A breaker that has just opened."""
    fail(breaker, MAX_FAILURES)
    return breaker


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_a_new_breaker_admits_everyone(breaker: CircuitBreaker) -> None:
    """Nothing is known to be wrong yet."""
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(100))


def test_a_few_failures_change_nothing(breaker: CircuitBreaker) -> None:
    """One fewer than MAX_FAILURES leaves it closed."""
    fail(breaker, MAX_FAILURES - 1)
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(100))


def test_failures_in_a_row_open_it(broken: CircuitBreaker) -> None:
    """From then on it refuses."""
    assert broken.is_open
    assert not broken.admits()


def test_failures_count_only_in_a_row(breaker: CircuitBreaker) -> None:
    """A success in between begins the count anew."""
    fail(breaker, MAX_FAILURES - 1)
    breaker.succeeded()
    fail(breaker, MAX_FAILURES - 1)
    assert not breaker.is_open


def test_the_first_probe_waits(broken: CircuitBreaker, now: Now) -> None:
    """Whoever has just failed is not asked again at once, but PROBE_INTERVAL later."""
    now.seconds += PROBE_INTERVAL - 0.01
    assert not broken.admits()
    now.seconds += 0.01
    assert broken.admits()


def test_one_probe_at_a_time(broken: CircuitBreaker, now: Now) -> None:
    """However many ask, and however long it was open, one in PROBE_INTERVAL is let through."""
    now.seconds += 100 * PROBE_INTERVAL
    assert [broken.admits() for _ in range(5)] == [True, False, False, False, False]
    now.seconds += PROBE_INTERVAL
    assert [broken.admits() for _ in range(5)] == [True, False, False, False, False]


def test_a_probe_that_succeeds_closes_it(broken: CircuitBreaker, now: Now) -> None:
    """Then everyone is admitted at once, and it takes MAX_FAILURES again to open it."""
    now.seconds += PROBE_INTERVAL
    assert broken.admits()
    broken.succeeded()
    fail(broken, MAX_FAILURES - 1)
    assert not broken.is_open
    assert all(broken.admits() for _ in range(100))


def test_a_probe_that_fails_leaves_it_open(broken: CircuitBreaker, now: Now) -> None:
    """The next one is still PROBE_INTERVAL away."""
    now.seconds += PROBE_INTERVAL
    assert broken.admits()
    broken.failed()
    assert not broken.admits()
    now.seconds += PROBE_INTERVAL
    assert broken.admits()


def test_late_failures_do_not_put_the_probe_off(broken: CircuitBreaker, now: Now) -> None:
    """Calls that began before it opened fail one after the other; the probe comes when it was due all the same."""
    for _ in range(5):
        now.seconds += PROBE_INTERVAL / 5
        broken.failed()
    assert broken.admits()


def test_a_probe_that_never_tells_is_followed_by_another(broken: CircuitBreaker, now: Now) -> None:
    """A thread that dies in the middle of its probe does not leave the breaker open for ever."""
    now.seconds += PROBE_INTERVAL
    assert broken.admits()
    now.seconds += PROBE_INTERVAL
    assert broken.admits()


def test_threads_share_one_probe(broken: CircuitBreaker, now: Now) -> None:
    """Of many threads that ask in the same moment one is let through."""
    now.seconds += PROBE_INTERVAL
    together = threading.Barrier(20)

    def ask(_: int) -> bool:
        together.wait()
        return broken.admits()

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(ask, range(20))) == 1
