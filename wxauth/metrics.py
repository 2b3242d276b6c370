"""The door to `prometheus_client`: what is counted and timed. No label holds an identity.

With several workers each writes to files in PROMETHEUS_MULTIPROC_DIR, and any of them answers for all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

LOGINS: Final = Counter("wxauth_logins", "Logins by outcome: ok, or the problem's code", ["outcome"])
CHECKS: Final = Counter(
    "wxauth_checks",
    "Tokens that were looked at, by result (ok, or a problem's code) and source (cache, redis, or in front of Flask)",
    ["result", "source"],
)
ENDED: Final = Counter("wxauth_sessions_ended", "Sessions that were ended, by reason", ["reason"])
USERDATA: Final = Counter("wxauth_userdata", "User data that was opened or checked, and the session_key that fitted",
                          ["kind", "key"])  # fmt: skip
PUSHES: Final = Counter("wxauth_pushes", "Messages that WeChat pushed, by event", ["event"])
WECHAT_SECONDS: Final = Histogram("wxauth_wechat_seconds", "Time that a login, or another call, spent at WeChat")
REDIS_SECONDS: Final = Histogram(
    "wxauth_redis_seconds",
    "Time that a conversation with Redis took",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
BREAKER_OPEN: Final = Gauge(
    "wxauth_redis_breaker_open", "1 while Redis is held for down by a worker", multiprocess_mode="livemax"
)


def exposition() -> bytes:
    """All of it, in Prometheus' text form."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    _forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no annotations
    return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """A worker that was killed has left its gauges behind, and whoever takes its place knows nothing of them."""
    pids = {found[1] for path in folder.glob("gauge_live*.db") if (found := re.search(r"_(\d+)\.db$", path.name))}
    for pid in pids:
        if not _lives(int(pid)):
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no annotations


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        # Somebody else's process, which has been given the number since, may not be signalled and lives.
        return not isinstance(error, ProcessLookupError)
    return True
