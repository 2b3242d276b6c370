"""The bars of the issue, as ratios within one run. `make bench` fails if one of them is missed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Results = Mapping[str, Any]

OURS: Final = ("verify", "verify-uncached", "decorator", "decorator-uncached")


@dataclass(frozen=True, slots=True)
class Bar:
    """What must be reached (`at_most`: kept below), and how it is read from the results."""

    what: str
    bound: float
    read: Callable[[Results], float]
    at_most: bool = False

    def holds(self, results: Results) -> bool:
        value = self.read(results)
        return (value <= self.bound) if self.at_most else (value >= self.bound)


def median(results: Results, name: str, figure: str = "a_second") -> float:
    """Of all turns of a contender."""
    return statistics.median(float(turn[figure]) for turn in results["turns"][name])


def ratio(ours: str, theirs: str) -> Callable[[Results], float]:
    """How many times as many requests a second."""
    return lambda results: median(results, ours) / median(results, theirs)


def check_cost(results: Results, size: int) -> float:
    """Microseconds of processor time that a check takes among so many sessions, Redis' own included."""
    return statistics.median(float(turn["processor"] + turn["redis"]) for turn in results["keyspace"][str(size)])


def growth(results: Results) -> float:
    """How much dearer a check is among the most sessions than among the fewest."""
    sizes = sorted(map(int, results["keyspace"]))
    return check_cost(results, sizes[-1]) / check_cost(results, sizes[0])


def bytes_a_user(results: Results) -> float:
    return float(results["bytes"]["verify"]["usage"])


BARS: Final = (
    Bar("`/verify` beside Koa with ioredis", 2, ratio("verify", "koa-ioredis")),
    Bar("`/verify` beside nginx with Lua", 0.8, ratio("verify", "nginx-lua")),
    Bar("`/verify` beside the article's Koa", 20, ratio("verify", "koa-jwt")),
    Bar("decorator beside bare Flask, same server", 0.85, ratio("decorator", "flask")),
    Bar("decorator beside Flask-Session as usually served", 5, ratio("decorator", "flask-session-gunicorn")),
    Bar("decorator beside Flask-JWT-Extended as usually served", 5, ratio("decorator", "flask-jwt-gunicorn")),
    Bar("decorator beside express-session", 2.5, ratio("decorator", "express-session")),
    Bar("decorator, cache off, beside Flask-Session, same server", 1, ratio("decorator-uncached", "flask-session")),
    Bar("bytes in Redis for a logged-in user", 600, bytes_a_user, at_most=True),
    Bar("a check at 1,000,000 sessions beside one at 1,000", 1.1, growth, at_most=True),
)  # fmt: skip


def missed(results: Results) -> list[str]:
    """The bars that do not hold, each with what was measured; and requests that we failed, which make no figure."""
    found = [f"{bar.what}: {bar.read(results):.3g}, bar {bar.bound:g}" for bar in BARS if not bar.holds(results)]
    lost = {name: sum(turn["failed"] for turn in results["turns"][name]) for name in OURS}
    return found + [f"{name}: {count} requests failed" for name, count in lost.items() if count]
