"""An estimate of the machines for many users: the figures of one machine, multiplied. Nothing is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from benchmarks.report.bars import Results, median
from wxauth.sessions.cache import MAX_ENTRY_AGE
from wxauth.sessions.revocations import PING_INTERVAL

DAY: Final = 86400
MICROSECONDS: Final = 1e6
GIB: Final = 2**30
#: How many primaries more than the memory needs are tried.
MAX_EXTRA_PRIMARIES: Final = 32


@dataclass(frozen=True, slots=True)
class Assumptions:
    """The traffic and the machines."""

    users: float = 100e6
    active_share: float = 0.4  # of the users, on one day
    checks_per_day: float = 50  # of each active user
    checks_per_visit: int = 20
    visit_seconds: float = 300
    logins_per_day: float = 1  # of each active user; each login ends an older session
    peak: float = 3  # the busiest hour divided by the mean
    pushed_share: float = 0.02  # of all users, who open the mini program because of a push message
    push_seconds: float = 120  # in which they do
    busy: float = 0.6  # how busy a core may be at the peak
    node_bytes: float = 32 * GIB
    node_fill: float = 0.6
    replicas: int = 1  # of each primary
    bus_header: float = 2256  # bytes of a message on the cluster bus of Redis 7, by its source
    message: float = 75  # bytes of a revocation, as a subscriber receives it


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of the run. Times are in microseconds of processor time."""

    hit: float  # a check that the cache answers
    miss: float  # a check that asks Redis
    redis_per_miss: float
    login: float
    redis_per_login: float
    receive: float  # a revocation, for each worker
    publish: float  # a revocation, for Redis
    deliver: float  # a revocation, for Redis and each subscriber
    bytes_per_cached_session: float
    worker_bytes: float
    bytes_per_user: float

    @classmethod
    def read(cls, results: Results) -> Measured:
        channel, memory = results["revocations"], results["memory"]
        return cls(
            hit=median(results, "verify", "processor"),
            miss=median(results, "verify-uncached", "processor"),
            redis_per_miss=median(results, "verify-uncached", "redis"),
            login=median(results, "login", "processor"),
            redis_per_login=median(results, "login", "redis"),
            receive=channel["worker"],
            publish=channel["publish"],
            deliver=channel["deliver"],
            bytes_per_cached_session=(memory["full"] - memory["one"]) / memory["sessions"],
            worker_bytes=memory["one"],
            bytes_per_user=results["bytes"]["verify"]["growth"],
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is needed at the peak."""

    primaries: int
    workers: int
    hit_share: float
    cached_sessions: float  # of each worker
    channel_share_of_worker: float
    channel_share_of_primary: float
    primary_share: float  # how busy the main thread of a primary is
    pings: float  # per second and primary
    copies: float  # revocations that each worker receives per second
    bus: float  # bytes per second on the cluster bus, all nodes together

    @property
    def busiest(self) -> float:
        """Return the load that more workers do not reduce."""
        return max(self.primary_share, self.channel_share_of_worker)


class Plan:
    """The estimate. Rates are per second, at the peak."""

    def __init__(self, results: Results, assumed: Assumptions | None = None) -> None:
        self.assumed = assumed or Assumptions()
        self.measured = Measured.read(results)
        mean = self.assumed.users * self.assumed.active_share / DAY
        self.checks = mean * self.assumed.checks_per_day * self.assumed.peak
        self.logins = self.revocations = mean * self.assumed.logins_per_day * self.assumed.peak
        self.redis_bytes = self.assumed.users * self.measured.bytes_per_user
        self.primaries_for_memory = math.ceil(self.redis_bytes / (self.assumed.node_bytes * self.assumed.node_fill))

    def fleet(self, *, same_worker: bool) -> Fleet:
        """Return the smallest fleet that is not too busy, or the least busy one if all are.

        `same_worker`: the proxy sends each token to the same worker. More primaries do not always help, because
        each worker receives each revocation once from every primary.
        """
        tried = [self._fleet(self.primaries_for_memory + extra, same_worker) for extra in range(MAX_EXTRA_PRIMARIES)]
        enough = (fleet for fleet in tried if fleet.busiest <= self.assumed.busy)
        return next(enough, None) or min(tried, key=lambda fleet: fleet.busiest)

    @property
    def push_logins(self) -> float:
        """Logins per second after a push message to all users."""
        return self.assumed.users * self.assumed.pushed_share / self.assumed.push_seconds

    def workers_for_logins(self, per_second: float) -> int:
        """Return how many workers do nothing but so many logins."""
        return math.ceil(per_second * self.measured.login / MICROSECONDS / self.assumed.busy)

    def revocations_that_fill(self, share: float) -> float:
        """Return the revocations per second that use `share` of every worker."""
        return share * MICROSECONDS / (self.measured.receive * self.primaries_for_memory)

    def _fleet(self, primaries: int, same_worker: bool) -> Fleet:
        copies = self.revocations * primaries
        receiving = copies * self.measured.receive / MICROSECONDS
        workers = self._workers(receiving, same_worker)
        hits = self._hit_share(workers, same_worker)
        channel = self._channel_share(primaries, workers)
        return Fleet(
            primaries=primaries,
            workers=workers,
            hit_share=hits,
            cached_sessions=self._cached_sessions(workers, same_worker),
            channel_share_of_worker=receiving,
            channel_share_of_primary=channel,
            primary_share=channel + self._commands_share(primaries, hits),
            pings=workers / PING_INTERVAL,
            copies=copies,
            bus=self._bus(primaries),
        )

    def _channel_share(self, primaries: int, workers: int) -> float:
        """One primary publishes a revocation. All primaries deliver it to all workers."""
        each = self.measured.publish / primaries + workers * self.measured.deliver
        return self.revocations * each / MICROSECONDS

    def _commands_share(self, primaries: int, hits: float) -> float:
        checks = self.checks * (1 - hits) * self.measured.redis_per_miss
        return (checks + self.logins * self.measured.redis_per_login) / primaries / MICROSECONDS

    def _bus(self, primaries: int) -> float:
        nodes = primaries * (1 + self.assumed.replicas)
        return self.revocations * (nodes - 1) * (self.assumed.bus_header + self.assumed.message)

    def _workers(self, receiving: float, same_worker: bool) -> int:
        workers = 1
        while self._workers_for(self._hit_share(workers, same_worker), receiving) > workers:
            workers += 1
        return workers

    def _workers_for(self, hits: float, receiving: float) -> int:
        check = hits * self.measured.hit + (1 - hits) * self.measured.miss
        work = (self.checks * check + self.logins * self.measured.login) / MICROSECONDS
        return math.ceil(work / max(self.assumed.busy - receiving, 0.01))

    def _hit_share(self, workers: int, same_worker: bool) -> float:
        """Each worker asks Redis at its first check of a visit, and again after MAX_ENTRY_AGE seconds."""
        checks = self.assumed.checks_per_visit / max(self.assumed.visit_seconds / MAX_ENTRY_AGE, 1)
        asked = 1 if same_worker else workers * _seen_by_one(workers, checks)
        return max(1 - asked / checks, 0)

    def _cached_sessions(self, workers: int, same_worker: bool) -> float:
        visitors = self.checks / self.assumed.checks_per_visit * self.assumed.visit_seconds
        return visitors * (1 / workers if same_worker else _seen_by_one(workers, self.assumed.checks_per_visit))


def _seen_by_one(workers: int, checks: float) -> float:
    """Return the probability that a worker receives at least one of the checks."""
    missed: float = (1 - 1 / workers) ** checks
    return 1 - missed
