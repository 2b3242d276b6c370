"""The tables of `benchmarks/scale.md`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.report.bars import Results
from benchmarks.report.capacity import GIB, Assumptions, Fleet, Plan
from benchmarks.report.pages import table

#: Users with a live session.
SIZES: Final = (1e6, 10e6, 100e6)


def blocks(results: Results) -> dict[str, str]:
    """Return the text of each block of the page."""
    plans = [Plan(results, Assumptions(users=users)) for users in SIZES]
    run = f"The measured figures are of the run of {results['date']}, commit {results['commit']}.\n"
    return {
        "run": run,
        "assumed": _assumed(plans[-1]),
        "measured": _measured(plans[-1]),
        "sizes": _sizes(plans),
        "needed": _needed(plans[-1]),
    }


def _assumed(plan: Plan) -> str:
    it = plan.assumed
    visit = f"{it.checks_per_visit} in {it.visit_seconds:.0f} s"
    node = f"{it.node_bytes / GIB:.0f} GiB, filled to {it.node_fill:.0%}"
    pushed = f"{it.pushed_share:.0%} in {it.push_seconds:.0f} s"
    rows = [
        ("users who are active on one day", f"{it.active_share:.0%}"),
        ("checks per active user and day", f"{it.checks_per_day:.0f}"),
        ("checks in one visit", visit),
        ("logins per active user and day, each ends an older session", f"{it.logins_per_day:g}"),
        ("busiest hour / mean", f"{it.peak:g}"),
        ("users who open the mini program after a push message to all, each with a login", pushed),
        ("how busy a core may be", f"{it.busy:.0%}"),
        ("memory of a Redis node", node),
        ("replicas of each primary", f"{it.replicas}"),
    ]
    return table(("", ""), rows)


def _sizes(plans: Sequence[Plan]) -> str:
    head = ("users with a live session", *(f"{plan.assumed.users:,.0f}" for plan in plans))
    fleets = [[plan.fleet(same_worker=same).workers for plan in plans] for same in (False, True)]
    rows = [
        ("checks per second at the peak", *(f"{plan.checks:,.0f}" for plan in plans)),
        ("logins and revocations per second at the peak", *(f"{plan.logins:,.0f}" for plan in plans)),
        ("workers at the peak, checks spread over all", *map(str, fleets[0])),
        ("workers at the peak, each token to the same worker", *map(str, fleets[1])),
        (
            "workers that the logins at the peak need alone",
            *(f"{plan.workers_for_logins(plan.logins)}" for plan in plans),
        ),
        ("data in Redis", *(f"{plan.redis_bytes / GIB:,.1f} GiB" for plan in plans)),
        ("primaries of Redis that the memory needs", *(f"{plan.primaries_for_memory}" for plan in plans)),
        ("**logins per second after a push message**", *(f"{plan.push_logins:,.0f}" for plan in plans)),
        ("**workers that these need alone**", *(f"{plan.workers_for_logins(plan.push_logins)}" for plan in plans)),
        (
            "**logins that wait for WeChat, if it takes 200 ms**",
            *(f"{plan.push_logins * 0.2:,.0f}" for plan in plans),
        ),
    ]
    return table(head, rows)


def _measured(plan: Plan) -> str:
    it = plan.measured
    times = [
        ("check answered by the cache", f"{it.hit:.0f}", "0"),
        ("check that asks Redis", f"{it.miss:.0f}", f"{it.redis_per_miss:.0f}"),
        ("login, without WeChat's time", f"{it.login:,.0f}", f"{it.redis_per_login:.0f}"),
        ("revocation, for each worker that receives it", f"{it.receive:.1f}", f"{it.deliver:.2f}"),
        ("revocation, once", "0", f"{it.publish:.0f}"),
    ]
    sizes = [
        ("growth of Redis per logged-in user", f"{it.bytes_per_user:,.0f} bytes"),
        ("worker, per cached session", f"{it.bytes_per_cached_session:,.0f} bytes"),
        ("worker with one session", f"{it.worker_bytes / 2**20:.0f} MiB"),
    ]
    return table(("processor time", "worker, µs", "Redis, µs"), times) + "\n" + table(("memory", ""), sizes)


def _needed(plan: Plan) -> str:
    fleets = plan.fleet(same_worker=False), plan.fleet(same_worker=True)
    columns = list(zip(*(_fleet(plan, fleet) for fleet in fleets), strict=True))
    rows = [(spread[0], spread[1], same[1]) for spread, same in columns]
    return table(("at the peak", "checks spread over all workers", "each token to the same worker"), rows)


def _fleet(plan: Plan, fleet: Fleet) -> list[tuple[str, str]]:
    worker_bytes = plan.measured.worker_bytes + fleet.cached_sessions * plan.measured.bytes_per_cached_session
    return [
        ("data in Redis", f"{plan.redis_bytes / GIB:,.0f} GiB"),
        ("primaries that the memory needs", f"{plan.primaries_for_memory}"),
        ("primaries of the cluster", f"{fleet.primaries}"),
        ("workers, one core each", f"{fleet.workers}"),
        ("checks answered by the cache", f"{fleet.hit_share:.0%}"),
        ("cached sessions of each worker (`WXAUTH_CACHE_SIZE`)", f"{fleet.cached_sessions:,.0f}"),
        ("memory of each worker", f"{worker_bytes / 2**20:,.0f} MiB"),
        ("time of each worker for the revocation channel", f"{fleet.channel_share_of_worker:.1%}"),
        ("how busy each primary is", f"{fleet.primary_share:.1%}"),
        ("time of each primary for the revocation channel", f"{fleet.channel_share_of_primary:.1%}"),
        ("PINGs per second and primary", f"{fleet.pings:,.0f}"),
        ("revocations that each worker receives per second, copies included", f"{fleet.copies:,.0f}"),
        ("the same, MB/s", f"{fleet.copies * plan.assumed.message / 1e6:.2f}"),
        ("revocations on the cluster bus, MB/s in all", f"{fleet.bus / 1e6:,.0f}"),
        ("revocations per second that use 10% of every worker", f"{plan.revocations_that_fill(0.1):,.0f}"),
    ]
