"""Why Redis can't be asked, in one word, and how to hint it. Part of the door to `redis`; it asks Redis nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import redis
from redis.exceptions import AskError, MovedError, RedisClusterException, SlotNotCoveredError, TryAgainError

from ..errors import StoreUnavailable

FAILURES: Final = (redis.RedisError, RedisClusterException, OSError)
#: The slot is on its way, or was when we last looked.
REDIRECTIONS: Final = (MovedError, AskError, TryAgainError, SlotNotCoveredError)
#: The first fit names the reason; the one word is what the log and `/readyz` say.
REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis.exceptions.MaxConnectionsError, "pool_exhausted"),
    (redis.exceptions.BusyLoadingError, "loading"),
    (redis.exceptions.AuthenticationError, "noauth"),
    (redis.exceptions.NoPermissionError, "noperm"),
    (redis.exceptions.ReadOnlyError, "readonly"),
    (redis.exceptions.OutOfMemoryError, "oom"),
    (redis.exceptions.ClusterDownError, "cluster_down"),
    *((kind, "slot_moving") for kind in REDIRECTIONS),
    (redis.exceptions.InvalidResponse, "garbled"),
    (redis.exceptions.TimeoutError, "timeout"),
    (redis.exceptions.ConnectionError, "unreachable"),
    (RedisClusterException, "unreachable"),
    (OSError, "unreachable"),
)
#: What redis-py has no class of its own for; these go first.
REASONS_BY_TEXT: Final[Mapping[str, str]] = {
    "MISCONF": "misconf",
    "NOREPLICAS": "too_few_replicas",
    "max number of clients": "max_clients",
    # redis-py says this where a new connection brings something unasked, which can only be a refusal.
    "Connection not ready": "max_clients",
    "No connection available": "pool_exhausted",
    # Of several nodes, or sentinels, redis-py says that none could be reached, and then why.
    "invalid username-password pair": "noauth",
    "Authentication required": "noauth",
    "AuthenticationError": "noauth",
}
HINTS: Final[Mapping[str, str]] = {
    "noauth": "the user or the password in REDIS_URL is missing or wrong",
    "noperm": "allow the Redis user +@read +@write +@transaction +@connection +info +time +publish +subscribe"
    " ~wxa:* &wxa:feed",
    "readonly": "REDIS_URL names a replica: name the primary, or use redis+sentinel://",
    "oom": "Redis is full: raise its maxmemory",
    "misconf": "Redis can't write to its disk: see its log",
    "max_clients": "Redis turns connections away: raise its maxclients, or lower WEB_CONCURRENCY",
    "loading": "Redis is reading its data: wait",
    "garbled": "these are not the answers to what was asked: something between here and Redis mixes them up",
    "timeout": "Redis does not answer in time: is it overloaded, or far away?",
    "unreachable": "nobody listens at REDIS_URL, the TLS certificate is not to be trusted, or no sentinel knows a"
    " primary of that name",
    "pool_exhausted": "more threads than connections: lower the number of threads of a worker",
    "contention": "many requests change the same user's sessions at once: try again",
    "slot_moving": "the cluster is moving a slot to another node, and takes its time: wait",
    "too_few_replicas": "Redis wants replicas for a write (min-replicas-to-write), and has lost them: see to them",
    "not_replicated": "no replica confirmed the write in time: see WXAUTH_WAIT_REPLICAS",
    "evicting": "set maxmemory-policy to noeviction: any other throws sessions away",
    "too_old": "Redis 4 or newer is needed",
}
#: Those of them under which Redis takes sessions all the same.
DANGERS: Final = ("too_old", "evicting")
OLDEST_REDIS: Final = 4


def unavailable(word: str) -> StoreUnavailable:
    """The error for a reason, with its hint where there is one."""
    return StoreUnavailable(word, HINTS.get(word))


def reason(error: BaseException) -> str:
    """The one word for what redis-py has raised."""
    for text, word in REASONS_BY_TEXT.items():
        if text in str(error):
            return word
    for kind, word in REASONS:
        if isinstance(error, kind):
            return word
    return "error"


def dangers(facts: Mapping[str, str]) -> Iterator[str]:
    """The words of HINTS for what endangers sessions, going by what INFO said."""
    if int(facts["redis_version"].partition(".")[0]) < OLDEST_REDIS:
        yield "too_old"
    if facts.get("maxmemory_policy", "noeviction") != "noeviction":
        yield "evicting"
