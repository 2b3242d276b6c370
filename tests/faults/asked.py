"""What Redis was asked, counted by Redis itself."""

from __future__ import annotations

from collections import Counter

import redis

#: What a worker, or this test, says of its own accord.
OF_OUR_OWN = ("info", "ping", "publish", "subscribe", "unsubscribe", "client", "hello", "auth", "select", "config")


def commands(client: redis.Redis) -> Counter[str]:
    """How often it was asked what, on behalf of callers."""
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    asked = {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}
    return Counter({name: calls for name, calls in asked.items() if not name.startswith(OF_OUR_OWN)})
