"""On paper: what a hundred million users would take, from the results. `python -m benchmarks.scale` says it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bars import Results, median
from benchmarks.places import HERE
from wxauth.sessions.cache import KEPT_FOR
from wxauth.sessions.revocations import PING_INTERVAL

DAY: Final = 86400
MICROSECONDS: Final = 1e6
#: How many primaries more than memory asks for are tried.
MOST_MORE: Final = 32
GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is taken for granted; everything else is computed."""

    users: float = 100e6
    active_share: float = 0.4  # of them come on a day
    checks_a_day: float = 50  # by each who comes
    checks_a_visit: int = 20  # close together, so that a worker may still have the session at hand
    visit_seconds: float = 300
    logins_a_day: float = 1  # by each who comes: many mini programs log in whenever they are opened
    ends_a_login: float = 1  # the session that it replaces
    peak: float = 3  # how much busier than the mean the busiest hour is
    busy: float = 0.6  # how busy a core may be then
    node_bytes: float = 32 * GIB
    node_fill: float = 0.6
    replicas: int = 1  # of each primary
    bus_header: float = 2256  # bytes of every message on Redis 7's cluster bus, by its source
    message: float = 75  # bytes of one end, as a subscriber gets it


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is needed at the peak where the proxy does, or does not, send a token to the same worker each time."""

    primaries: int
    workers: int
    hit_share: float
    wanted_at_hand: float  # sessions that each worker would have to keep
    feed_share_of_worker: float
    feed_share_of_node: float
    node_share: float  # how busy the busiest thread of a primary is in all
    pings: float  # a second, for each primary
    copies: float  # messages of the feed that each worker gets a second
    bus: float  # bytes a second on the cluster's bus, all nodes together

    @property
    def busiest(self) -> float:
        """The share of a core that is most in demand; a worker's rest can be shared among more workers."""
        return max(self.node_share, self.feed_share_of_worker)


class Plan:
    """The figures. Times are in microseconds, rates a second at the peak."""

    def __init__(self, results: Results, given: Assumptions) -> None:
        self.given = given
        self._results = results
        mean = given.users * given.active_share / DAY
        self.checks = mean * given.checks_a_day * given.peak
        self.logins = mean * given.logins_a_day * given.peak
        self.ends = self.logins * given.ends_a_login
        self.hit, self.miss = median(results, "verify", "processor"), median(results, "verify-uncached", "processor")
        self.redis_a_miss = median(results, "verify-uncached", "redis")
        login = results["login"]["0"]
        self.login, self.redis_a_login = float(login["processor"]), float(login["redis"])
        feed = results["feed"]
        self.on_revoked, self.published, self.told = (
            float(feed["worker"]),
            float(feed["publish"]),
            float(feed["tell"]),
        )
        memory = results["memory"]
        self.bytes_at_hand = float(memory["full"] - memory["warm"]) / memory["sessions"]
        self.worker_bytes = float(memory["warm"])
        self.bytes_a_user = float(results["bytes"]["verify"]["grown"])
        self.redis_bytes = given.users * self.bytes_a_user
        self.for_memory = math.ceil(self.redis_bytes / (given.node_bytes * given.node_fill))

    def fleet(self, *, same_worker: bool) -> Fleet:
        """The least that holds all users and is not too busy; where nothing is enough, what comes nearest to it.

        More primaries make more copies of each end, and those more workers, so there need not be a solution.
        """
        tried = [self._fleet(self.for_memory + more, same_worker) for more in range(MOST_MORE)]
        enough = (fleet for fleet in tried if fleet.busiest <= self.given.busy)
        return next(enough, None) or min(tried, key=lambda fleet: fleet.busiest)

    def _fleet(self, primaries: int, same_worker: bool) -> Fleet:
        # A worker subscribes to every primary, and in a cluster each of them repeats what any of them publishes.
        copies = self.ends * primaries
        nodes = primaries * (1 + self.given.replicas)
        heard = copies * self.on_revoked / MICROSECONDS
        workers, visit = 1, self.given.checks_a_visit
        while self._workers_needed(workers, heard, same_worker) > workers:
            workers += 1
        hits = self._hit_share(workers, same_worker)
        # Each is published once, and told by every primary to every worker.
        told = self.ends * (self.published / primaries + workers * self.told) / MICROSECONDS
        asked = self.checks * (1 - hits) * self.redis_a_miss + self.logins * self.redis_a_login
        return Fleet(
            primaries,
            workers,
            hits,
            self._visitors() * (1 / workers if same_worker else self._seen_by_one(workers, visit)),
            heard,
            told,
            told + asked / primaries / MICROSECONDS,
            workers / PING_INTERVAL,
            copies,
            self.ends * (nodes - 1) * (self.given.bus_header + self.given.message),
        )

    def ends_that_fill(self, share: float) -> float:
        """Ends a second with which the feed takes `share` of every worker."""
        return share * MICROSECONDS / (self.on_revoked * self.for_memory)

    def _workers_needed(self, workers: int, heard: float, same_worker: bool) -> int:
        hits: float = self._hit_share(workers, same_worker)
        check = hits * self.hit + (1 - hits) * self.miss
        shared = (self.checks * check + self.logins * self.login) / MICROSECONDS
        room = self.given.busy - heard
        return math.ceil(shared / max(room, 0.01))

    def _hit_share(self, workers: int, same_worker: bool) -> float:
        """Each worker that sees a visit asks Redis once, and again whenever it has believed a session for long."""
        times = max(self.given.visit_seconds / KEPT_FOR, 1)
        checks = self.given.checks_a_visit / times
        asked = 1 if same_worker else workers * self._seen_by_one(workers, checks)
        return max(1 - asked / checks, 0)

    def _seen_by_one(self, workers: int, checks: float) -> float:
        """The chance that a worker gets at least one of so many checks."""
        missed: float = (1 - 1 / workers) ** checks
        return 1 - missed

    def _visitors(self) -> float:
        return self.checks / self.given.checks_a_visit * self.given.visit_seconds


def written(results: Results, given: Assumptions | None = None) -> str:
    """`scale.md`."""
    plan = Plan(results, given or Assumptions())
    given = plan.given
    spread, same = plan.fleet(same_worker=False), plan.fleet(same_worker=True)
    return f"""\
# A hundred million users, on paper

Computed by `python -m benchmarks.scale` from [results.json](results.json); written anew by each `make bench`.
Nothing of this was run at that size: the figures of one machine are multiplied.

## What is assumed

| | |
|---|---|
| users with a live session | {given.users:,.0f} |
| of them active on a day | {given.active_share:.0%} |
| checks by each on that day, in visits of {given.checks_a_visit} within {given.visit_seconds:.0f} s | \
{given.checks_a_day:.0f} |
| logins by each on that day, each ending an older session | {given.logins_a_day:g} |
| the busiest hour beside the mean | {given.peak:g} times |
| a core may be busy | {given.busy:.0%} |
| a Redis node has | {given.node_bytes / GIB:.0f} GiB, filled to {given.node_fill:.0%}; \
{given.replicas} replica each |

So at the peak: **{plan.checks:,.0f} checks, {plan.logins:,.0f} logins and {plan.ends:,.0f} ends of sessions a
second**.

## What was measured

| | worker, µs | Redis, µs |
|---|---:|---:|
| a check from the cache | {plan.hit:.0f} | 0 |
| a check that asks Redis | {plan.miss:.0f} | {plan.redis_a_miss:.0f} |
| a login, without WeChat's time | {plan.login:.0f} | {plan.redis_a_login:.0f} |
| an end, for each worker that hears it | {plan.on_revoked:.1f} | {plan.told:.2f} |
| an end, once | 0 | {plan.published:.0f} |

A logged-in user grows Redis by {plan.bytes_a_user:,.0f} bytes; a session at hand takes {plan.bytes_at_hand:,.0f}
bytes of a worker, which has {plan.worker_bytes / 2**20:.0f} MiB without any.

## What it takes

| | checks spread over all workers | each token to the same worker |
|---|---:|---:|
| primaries of Redis Cluster, with as many replicas | {spread.primaries} | {same.primaries} |
| workers, one core each | {spread.workers} | {same.workers} |
| checks answered from the cache | {spread.hit_share:.0%} | {same.hit_share:.0%} |
| sessions that a worker would have to keep (`WXAUTH_CACHE_SIZE`) | {spread.wanted_at_hand:,.0f} | \
{same.wanted_at_hand:,.0f} |
| memory of a worker then | {_mib(plan, spread)} | {_mib(plan, same)} |
| the feed's share of each worker | {spread.feed_share_of_worker:.1%} | {same.feed_share_of_worker:.1%} |
| how busy a primary is | {spread.node_share:.1%} | {same.node_share:.1%} |
| of that, telling ends to workers | {spread.feed_share_of_node:.1%} | {same.feed_share_of_node:.1%} |
| PINGs a second to each primary | {spread.pings:,.0f} | {same.pings:,.0f} |
| ends that each worker hears a second, copies included | {spread.copies:,.0f} | {same.copies:,.0f} |
| the same in MB/s | {spread.copies * given.message / 1e6:.2f} | {same.copies * given.message / 1e6:.2f} |
| the feed on the cluster's bus, MB/s in all | {spread.bus / 1e6:,.0f} | {same.bus / 1e6:,.0f} |

- **Redis Cluster**: {plan.redis_bytes / GIB:,.0f} GiB, which takes {plan.for_memory} primaries for memory alone;
  where more stand above, their one thread would be too busy with fewer. A primary, or the feed's share of a worker,
  above {given.busy:.0%} means that no number of them is enough.
- **The feed**: each end is a PUBLISH, which a cluster hands on to every node over its bus, with
  {given.bus_header:.0f} bytes of header for an id of 22. Each worker hears every end once from each primary, because
  only a PONG of the node that published proves that nothing is missing.
- "Each token to the same worker" is one line in the proxy in front (`hash $http_authorization consistent` in nginx).

## Where it bends first

1. **The feed, with the number of primaries times the rate of ends.** {plan.ends_that_fill(0.1):,.0f} ends a second
   would take a tenth of every worker, however many there are: {plan.ends_that_fill(0.1) / plan.ends:.1f} times what
   is assumed here. Sharded pub/sub (SPUBLISH, Redis 7) would take the factor of {plan.for_memory} and the bus away:
   every end would be told once, by the node that holds its slot, whose PONG is the one that counts. It is not built:
   within the transaction of a logout it needs a channel of the user's own slot, so each worker would subscribe to
   16,384 channels; and a channel for each primary, told after the transaction, would make a logout depend on a
   second command.
2. **The cache's default of {results["memory"]["sessions"]:,} sessions**, which is for a service of a few workers: see
   what each would have to keep. Too small a cache is no danger, but each check then costs {plan.miss / plan.hit:.1f}
   times as much.
3. **Checks spread over many workers**: each of them asks Redis for itself, and again after {KEPT_FOR:.0f} s, so the
   share of hits falls as workers are added.
4. **Memory of Redis**: {plan.bytes_a_user:,.0f} bytes a user, of which most is Redis' own for two keys. It grows with
   users, not with traffic, and more primaries make 1 worse.
5. WeChat's own quota for `jscode2session` comes long before {plan.logins:,.0f} logins a second are reached; it has to
   be asked for.

Not considered: the proxy in front, logs and metrics of so many workers, a cluster in several regions, and what a
failover at that size does to the share of hits (all workers begin with an empty cache at once: the primaries would be
{plan.checks * plan.redis_a_miss / same.primaries / MICROSECONDS:.0%} busy, and the workers short by a factor of
{plan.miss / plan.hit:.1f} for as long as that takes).
"""


def _mib(plan: Plan, fleet: Fleet) -> str:
    return f"{(plan.worker_bytes + fleet.wanted_at_hand * plan.bytes_at_hand) / 2**20:,.0f} MiB"


if __name__ == "__main__":
    print(written(json.loads(Path(HERE / "results.json").read_text())))
