"""The bars: what a run must reach. Most are ratios, so they do not depend on the machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Results = Mapping[str, Any]

OURS: Final = ("verify", "verify-uncached", "decorator", "decorator-uncached", "login")


@dataclass(frozen=True, slots=True)
class Bar:
    """A lower limit for a figure, or an upper limit where `at_most` is true."""

    title: str
    limit: float
    read: Callable[[Results], float]
    at_most: bool = False

    def holds(self, results: Results) -> bool:
        value = self.read(results)
        return (value <= self.limit) if self.at_most else (value >= self.limit)


def median(results: Results, name: str, figure: str = "per_second") -> float:
    """Return the median of a figure over all turns of a contender."""
    return statistics.median(float(turn[figure]) for turn in results["turns"][name])


def ratio(ours: str, theirs: str) -> Callable[[Results], float]:
    """Return a function that divides our requests per second by theirs in each round, and returns the median."""
    return lambda results: statistics.median(
        our["per_second"] / their["per_second"]
        for our, their in zip(results["turns"][ours], results["turns"][theirs], strict=True)
    )


def check_cost(results: Results, size: int) -> float:
    """Return the processor time of a check among `size` sessions in microseconds, that of Redis included."""
    return statistics.median(float(turn["processor"] + turn["redis"]) for turn in results["keyspace"][str(size)])


def growth(results: Results) -> float:
    """Return the cost of a check among the most sessions, divided by the cost among the fewest."""
    sizes = sorted(map(int, results["keyspace"]))
    return check_cost(results, sizes[-1]) / check_cost(results, sizes[0])


def of_storm(figure: str) -> Callable[[Results], float]:
    """Return a function that reads a figure of the storm."""
    return lambda results: float(results["storm"][figure])


def worker_mebibytes(results: Results) -> float:
    """Return the memory of a worker with a full session cache."""
    return float(results["memory"]["full"]) / 2**20


def bytes_per_user(results: Results) -> float:
    return float(results["bytes"]["verify"]["usage"])


BARS: Final = (
    Bar("`/verify` / Koa with ioredis", 2, ratio("verify", "koa-ioredis")),
    Bar("`/verify` / nginx with Lua", 0.8, ratio("verify", "nginx-lua")),
    Bar("`/verify` / Koa with jsonwebtoken", 20, ratio("verify", "koa-jwt")),
    Bar("`@login_required` / bare Flask, both on Granian", 0.85, ratio("decorator", "flask")),
    Bar("`@login_required` / Flask-Session on gunicorn", 4.5, ratio("decorator", "flask-session-gunicorn")),
    Bar("`@login_required` / Flask-JWT-Extended on gunicorn", 5, ratio("decorator", "flask-jwt-gunicorn")),
    Bar("`@login_required`, cache off / Flask-Session, both on Granian", 1,
        ratio("decorator-uncached", "flask-session")),
    Bar("`/verify`, cache off / Koa with ioredis", 0.3, ratio("verify-uncached", "koa-ioredis")),
    Bar("login / Flask view of eight lines, both on Granian", 0.9, ratio("login", "flask-login")),
    Bar("storm: refused logins", 0, of_storm("refused"), at_most=True),
    Bar("storm: logins per second", 600, of_storm("per_second")),
    Bar("storm: p95 of a check, ms", 60, of_storm("check_p95"), at_most=True),
    Bar("memory of a worker, MiB", 90, worker_mebibytes, at_most=True),
    Bar("bytes in Redis for a user with one session and one session_key", 520, bytes_per_user, at_most=True),
    Bar("cost of a check at 1,000,000 sessions / at 1,000", 1.1, growth, at_most=True),
)  # fmt: skip


def digits(value: float) -> str:
    """Return three digits of a small figure, and all of a large one: 0.851, 1,110."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def missed(results: Results) -> list[str]:
    """Return a line for each bar that is missed, and for each of our contenders that failed requests."""
    lines = [f"{bar.title}: {digits(bar.read(results))}, bar {bar.limit:g}" for bar in BARS if not bar.holds(results)]
    failed = {name: sum(turn["failed"] for turn in results["turns"][name]) for name in OURS}
    return lines + [f"{name}: {count} requests failed" for name, count in failed.items() if count]
