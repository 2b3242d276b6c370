"""The tables of `benchmarks/README.md`."""

from __future__ import annotations

import statistics
from typing import Final

from benchmarks.contenders.table import BY_NAME, CONTENDERS, GRANIAN_THREADS, GUNICORN_THREADS, Contender
from benchmarks.harness.load import CONNECTIONS
from benchmarks.measure.throughput import SESSIONS, WARM_UP_SECONDS
from benchmarks.report.bars import BARS, Bar, Results, check_cost, digits, median
from benchmarks.report.pages import table

REQUEST_COLUMNS: Final = (
    "", "requests/s", "±", "processor, µs", "core", "Redis, µs", "p50, ms", "p99, ms", "failed", "start, s",
)  # fmt: skip
STORM_COLUMNS: Final = (
    "logins", "logins/s", "refused", "login p50, ms", "login p95, ms", "check p50, ms", "check p95, ms", "worker",
)  # fmt: skip


def blocks(results: Results) -> dict[str, str]:
    """Return the text of each block of the README."""
    return {
        "run": _run(results),
        "setup": _setup(results),
        "bars": table(("bar", "limit", "measured", ""), [_bar(bar, results) for bar in BARS]),
        "requests": _requests(results, logins=False),
        "logins": _requests(results, logins=True),
        "storm": _storm(results),
        "bytes": _bytes(results),
        "keyspace": _keyspace(results),
        "memory": _memory(results),
        "machine": table(("", ""), list(results["machine"].items())),
    }


def _run(results: Results) -> str:
    command = f"make bench ROUNDS={results['rounds']} SECONDS={results['seconds']} SEED={results['seed']}"
    return f"All figures are of one run: {results['date']}, commit {results['commit']}, `{command}`.\n"


def _setup(results: Results) -> str:
    rows = [
        ("users with a session", f"{SESSIONS:,}"),
        ("connections of wrk, all keep-alive", f"{CONNECTIONS}"),
        ("rounds, each with one turn of every contender", f"{results['rounds']}"),
        ("load before a turn that is not measured, s", f"{WARM_UP_SECONDS}"),
        ("measured load of a turn, s", f"{results['seconds']}"),
        ("threads of Granian for Flask applications", f"{GRANIAN_THREADS}"),
        ("threads of gunicorn (gthread)", f"{GUNICORN_THREADS}"),
    ]
    return table(("", ""), rows)


def _bar(bar: Bar, results: Results) -> tuple[str, ...]:
    sign = "≤" if bar.at_most else "≥"
    verdict = "holds" if bar.holds(results) else "**missed**"
    return bar.title, f"{sign} {bar.limit:g}", digits(bar.read(results)), verdict


def _requests(results: Results, *, logins: bool) -> str:
    measured = [it for it in CONTENDERS if results["turns"].get(it.name) and it.is_login == logins]
    return table(REQUEST_COLUMNS, [_request_row(results, contender) for contender in measured])


def _request_row(results: Results, contender: Contender) -> tuple[str, ...]:
    turns = results["turns"][contender.name]
    rate, processor = median(results, contender.name), median(results, contender.name, "processor")
    others = [f"{median(results, contender.name, figure):.1f}" for figure in ("redis", "p50", "p99")]
    failed, started = sum(turn["failed"] for turn in turns), median(results, contender.name, "started_in")
    core = f"{processor * rate / 1e6:.0%}"
    spread = f"{_half_range([turn['per_second'] for turn in turns]):.0%}"
    return (contender.title, f"{rate:,.0f}", spread, f"{processor:.1f}", core, *others, f"{failed}", f"{started:.2f}")


def _half_range(rates: list[float]) -> float:
    """Return half of the distance from the lowest to the highest, as a share of the median."""
    return (max(rates) - min(rates)) / 2 / statistics.median(rates)


def _storm(results: Results) -> str:
    it = results["storm"]
    milliseconds = (f"{it[name]:,.0f}" for name in ("login_p50", "login_p95", "check_p50", "check_p95"))
    row = (f"{it['count']:,}", f"{it['per_second']:,.0f}", f"{it['refused']}", *milliseconds)
    return table(STORM_COLUMNS, [(*row, f"{it['worker_bytes'] / 2**20:.0f} MiB")])


def _bytes(results: Results) -> str:
    rows = [
        (contender_title(name), f"{found['keys']:.0f}", f"{found['usage']:,.0f}", f"{found['growth']:,.0f}")
        for name, found in results["bytes"].items()
    ]
    return table(("", "keys", "MEMORY USAGE", "growth of the data set"), rows)


def contender_title(name: str) -> str:
    """Return the title of a contender where `/verify` and `@login_required` share a row."""
    return "wxauth" if name == "verify" else BY_NAME[name].title


def _keyspace(results: Results) -> str:
    sizes = sorted(map(int, results["keyspace"]))
    rows = [(f"{size:,}", f"{check_cost(results, size):.1f}", f"{_rate(results, size):,.0f}") for size in sizes]
    return table(("sessions", "processor and Redis, µs", "requests/s"), rows)


def _rate(results: Results, size: int) -> float:
    return statistics.median(float(turn["per_second"]) for turn in results["keyspace"][str(size)])


def _memory(results: Results) -> str:
    memory = results["memory"]
    rows = [
        ("1", f"{memory['one'] / 2**20:.0f} MiB"),
        (f"{memory['sessions']:,}", f"{memory['full'] / 2**20:.0f} MiB"),
    ]
    return table(("cached sessions", "resident memory of the worker"), rows)
