"""The circuit breaker: when it opens, which probes it admits, when it closes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wxauth.storage.circuit_breaker import MAX_FAILURES, PROBE_INTERVAL, CircuitBreaker


class Now:
    """A clock that a test moves."""

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


def test_new_breaker_admits_every_call(breaker: CircuitBreaker) -> None:
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(100))


def test_one_failure_fewer_than_the_limit_leaves_it_closed(breaker: CircuitBreaker) -> None:
    fail(breaker, MAX_FAILURES - 1)
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(100))


def test_call_that_failed_since_a_time_counts_unless_one_succeeded(breaker: CircuitBreaker, now: Now) -> None:
    start = now()
    assert not breaker.has_only_failed_since(start)
    now.seconds += 1
    fail(breaker, 1)
    assert breaker.has_only_failed_since(start)
    assert not breaker.has_only_failed_since(now())
    breaker.succeeded()
    fail(breaker, 1)
    assert not breaker.has_only_failed_since(start)


def test_failures_in_a_row_open_it(broken: CircuitBreaker) -> None:
    assert broken.is_open
    assert not broken.admits()


def test_success_resets_the_count_of_failures(breaker: CircuitBreaker) -> None:
    fail(breaker, MAX_FAILURES - 1)
    breaker.succeeded()
    fail(breaker, MAX_FAILURES - 1)
    assert not breaker.is_open


def test_first_probe_waits_for_the_interval(broken: CircuitBreaker, now: Now) -> None:
    now.seconds += PROBE_INTERVAL - 0.01
    assert not broken.admits()
    now.seconds += 0.01
    assert broken.admits()


def test_one_probe_per_interval_is_admitted(broken: CircuitBreaker, now: Now) -> None:
    now.seconds += 100 * PROBE_INTERVAL
    assert [broken.admits() for _ in range(5)] == [True, False, False, False, False]
    now.seconds += PROBE_INTERVAL
    assert [broken.admits() for _ in range(5)] == [True, False, False, False, False]


def test_successful_probe_closes_it(broken: CircuitBreaker, now: Now) -> None:
    now.seconds += PROBE_INTERVAL
    assert broken.admits()
    broken.succeeded()
    fail(broken, MAX_FAILURES - 1)
    assert not broken.is_open
    assert all(broken.admits() for _ in range(100))


def test_failed_probe_leaves_it_open_for_the_next_interval(broken: CircuitBreaker, now: Now) -> None:
    now.seconds += PROBE_INTERVAL
    assert broken.admits()
    broken.failed()
    assert not broken.admits()
    now.seconds += PROBE_INTERVAL
    assert broken.admits()


def test_late_failures_do_not_delay_the_probe(broken: CircuitBreaker, now: Now) -> None:
    """Calls that began before it opened may fail after that."""
    for _ in range(5):
        now.seconds += PROBE_INTERVAL / 5
        broken.failed()
    assert broken.admits()


def test_probe_without_a_report_is_followed_by_another(broken: CircuitBreaker, now: Now) -> None:
    """A thread may die during its probe."""
    now.seconds += PROBE_INTERVAL
    assert broken.admits()
    now.seconds += PROBE_INTERVAL
    assert broken.admits()


def test_only_one_of_many_threads_gets_the_probe(broken: CircuitBreaker, now: Now) -> None:
    now.seconds += PROBE_INTERVAL
    together = threading.Barrier(20)

    def ask(_: int) -> bool:
        together.wait()
        return broken.admits()

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(ask, range(20))) == 1
