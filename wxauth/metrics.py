"""The Prometheus metrics of the service. No label contains an identity.

With several workers, each writes files in PROMETHEUS_MULTIPROC_DIR, and any worker can return the sum of all. If that
is no folder to write in, each worker returns its own metrics.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Final

if (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")) is not None and not os.access(folder, os.W_OK | os.X_OK):
    # prometheus_client reads the variable when it is imported. With this folder it would fail then, or later.
    warnings.warn("PROMETHEUS_MULTIPROC_DIR is no folder to write in: the workers share no metrics", stacklevel=1)
    del os.environ["PROMETHEUS_MULTIPROC_DIR"]

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

PREFIX: Final = "wxauth_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

LOGINS: Final = Counter("wxauth_logins", "Logins by outcome: ok, or the code of the problem", ["outcome"])
#: The result is ok or the code of the problem. The source is cache or redis; a forged token counts as redis too.
CHECKS: Final = Counter("wxauth_checks", "Token checks by result and source", ["result", "source"])
ENDED: Final = Counter("wxauth_sessions_ended", "Ended sessions by reason", ["reason"])
USERDATA: Final = Counter("wxauth_userdata", "Opened user data by the matching session_key", ["kind", "key"])
CLIENT_FAILURES: Final = Counter("wxauth_client_failures", "Failed logins of clients: wrong or missing", ["reason"])
PUSHES: Final = Counter("wxauth_pushes", "Push messages of WeChat by event", ["event"])
WECHAT_SECONDS: Final = Histogram("wxauth_wechat_seconds", "Duration of a call to WeChat")
#: Seconds. Redis answers faster than the default buckets can show.
REDIS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
REDIS_SECONDS: Final = Histogram("wxauth_redis_seconds", "Duration of a Redis operation", buckets=REDIS_BUCKETS)
BREAKER_OPEN: Final = Gauge("wxauth_redis_breaker_open", "1 if a breaker is open", multiprocess_mode="livemax")


def exposition() -> bytes:
    """Return all metrics in the Prometheus text format."""
    return generate_latest(_registry())


def counters() -> dict[str, list[dict[str, Any]]]:
    """Return the counters of this package by name: labels and value. They count all workers since the start."""
    found = {family.name: _totals(family) for family in _registry().collect()}
    # With several workers, the files lack a counter that has counted nothing yet.
    names = [it.name for it in REGISTRY.collect() if it.type == "counter" and it.name.startswith(PREFIX)]
    return {name.removeprefix(PREFIX): found.get(name, []) for name in sorted(names)}


def _totals(family: Metric) -> list[dict[str, Any]]:
    totals = [sample for sample in family.samples if sample.name.endswith("_total")]
    return [{"labels": sample.labels, "value": int(sample.value)} for sample in totals]


def _registry() -> CollectorRegistry:
    """Return the metrics of all workers, or those of this one."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None or not Path(folder).is_dir():
        return REGISTRY
    _remove_dead_workers(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no annotations
    return registry


def _remove_dead_workers(folder: Path) -> None:
    """Remove the gauges of killed workers. Without this, an open breaker would be reported without end."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_[0-9]*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no annotations
        except PermissionError:
            continue  # another user's process has the pid now
