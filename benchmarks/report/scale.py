"""The tables of `benchmarks/scale.md`."""

from __future__ import annotations

from benchmarks.report.bars import Results
from benchmarks.report.capacity import GIB, Fleet, Plan
from benchmarks.report.pages import table


def blocks(results: Results) -> dict[str, str]:
    """Return the text of each block of the page."""
    plan = Plan(results)
    run = f"The measured figures are of the run of {results['date']}, commit {results['commit']}.\n"
    return {"run": run, "assumed": _assumed(plan), "measured": _measured(plan), "needed": _needed(plan)}


def _assumed(plan: Plan) -> str:
    it = plan.assumed
    visit = f"{it.checks_per_visit} in {it.visit_seconds:.0f} s"
    node = f"{it.node_bytes / GIB:.0f} GiB, filled to {it.node_fill:.0%}"
    rows = [
        ("users with a live session", f"{it.users:,.0f}"),
        ("users who are active on one day", f"{it.active_share:.0%}"),
        ("checks per active user and day", f"{it.checks_per_day:.0f}"),
        ("checks in one visit", visit),
        ("logins per active user and day, each ends an older session", f"{it.logins_per_day:g}"),
        ("busiest hour / mean", f"{it.peak:g}"),
        ("how busy a core may be", f"{it.busy:.0%}"),
        ("memory of a Redis node", node),
        ("replicas of each primary", f"{it.replicas}"),
        ("**checks per second at the peak**", f"{plan.checks:,.0f}"),
        ("**logins and revocations per second at the peak**", f"{plan.logins:,.0f}"),
    ]
    return table(("", ""), rows)


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
