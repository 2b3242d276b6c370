"""Why Redis cannot be asked: one word for each reason, and a hint how to fix it. Asks Redis nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import redis
from redis.exceptions import AskError, MovedError, RedisClusterException, SlotNotCoveredError, TryAgainError

from ..errors import StoreUnavailable
from .acl import CLUSTER_RIGHTS, RIGHTS, SENTINEL_RIGHTS

FAILURES: Final = (redis.RedisError, RedisClusterException, OSError)
#: The slot is moving to another node, or has moved.
REDIRECTIONS: Final = (MovedError, AskError, TryAgainError, SlotNotCoveredError)
#: The first match gives the reason: one word, for the log and `/readyz`.
REASONS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (redis.exceptions.MaxConnectionsError, "pool_exhausted"),
    (redis.exceptions.BusyLoadingError, "loading"),
    (redis.exceptions.AuthenticationError, "noauth"),
    (redis.exceptions.NoPermissionError, "noperm"),
    (redis.exceptions.ReadOnlyError, "readonly"),
    (redis.exceptions.OutOfMemoryError, "oom"),
    (redis.exceptions.ClusterDownError, "cluster_down"),
    (REDIRECTIONS, "slot_moving"),
    (redis.exceptions.InvalidResponse, "garbled"),
    (redis.exceptions.TimeoutError, "timeout"),
    ((redis.exceptions.ConnectionError, RedisClusterException, OSError), "unreachable"),
)
#: Errors without a class of their own in redis-py. They are matched first.
REASONS_BY_TEXT: Final[Mapping[str, str]] = {
    "MISCONF": "misconf",
    "NOREPLICAS": "too_few_replicas",
    # Up to 6.2, an error within a script has no code of its own.
    "-OOM command not allowed": "oom",
    "-READONLY You can't write": "readonly",
    # The command, the key or the channel is forbidden within a script: Redis up to 7.0, and the others.
    "The user executing the script can't": "noperm",
    "ACL failure in script": "noperm",
    "max number of clients": "max_clients",
    # redis-py says this when a new connection delivers unrequested data, which can only be a refusal.
    "Connection not ready": "max_clients",
    "No connection available": "pool_exhausted",
    # For several nodes or sentinels, redis-py says that none was reached, and then why.
    "invalid username-password pair": "noauth",
    "Authentication required": "noauth",
    "AuthenticationError": "noauth",
}
HINTS: Final[Mapping[str, str]] = {
    "noauth": "the user or the password in REDIS_URL is missing or wrong",
    "noperm": f"allow the Redis user {RIGHTS}; in a cluster also {CLUSTER_RIGHTS}; at sentinels {SENTINEL_RIGHTS}",
    "readonly": "REDIS_URL names a replica: name the primary, or use redis+sentinel://",
    "oom": "Redis is full: raise its maxmemory",
    "misconf": "Redis cannot write to its disk: see its log",
    "max_clients": "Redis refuses connections: raise its maxclients, or lower WXAUTH_REDIS_CONNECTIONS",
    "loading": "Redis is loading its data: wait",
    "garbled": "the replies do not fit the commands: check the proxies between this server and Redis",
    "timeout": "Redis does not answer in time: check its load and its distance, or raise WXAUTH_REDIS_TIMEOUT",
    "unreachable": "check that Redis listens at REDIS_URL, that its TLS certificate is trusted, and that the"
    " sentinels know the name of the primary",
    "pool_exhausted": "all connections are in use: raise WXAUTH_REDIS_CONNECTIONS, or check the load of Redis",
    "cluster_down": "a part of the cluster has no primary: see CLUSTER INFO",
    "slot_moving": "the cluster is moving a slot to another node: wait",
    "too_few_replicas": "Redis needs replicas for a write (min-replicas-to-write) and has too few: check them",
    "not_replicated": "no replica confirmed the write in time: see WXAUTH_WAIT_REPLICAS",
    "evicting": "set maxmemory-policy to noeviction: every other policy deletes sessions",
    "too_old": "Redis 5 or newer is needed",
}
#: The same hints in Chinese.
CHINESE_HINTS: Final[Mapping[str, str]] = {
    "noauth": "REDIS_URL 中缺少用户名或密码，或其中有误",
    "noperm": "该 Redis 用户的权限不足：按 SECURITY.md 列出的权限授权",
    "readonly": "REDIS_URL 指向了从节点：改为主节点，或使用 redis+sentinel://",
    "oom": "Redis 内存已满：调大 maxmemory",
    "misconf": "Redis 无法写入磁盘：查看 Redis 的日志",
    "max_clients": "Redis 拒绝新连接：调大 maxclients，或调小 WXAUTH_REDIS_CONNECTIONS",
    "loading": "Redis 正在加载数据：请等待",
    "garbled": "返回的内容与命令不符：检查本服务与 Redis 之间的代理",
    "timeout": "Redis 没有及时响应：检查 Redis 的负载和网络延迟，或调大 WXAUTH_REDIS_TIMEOUT",
    "unreachable": "检查 Redis 是否在 REDIS_URL 上监听、TLS 证书是否受信任、哨兵是否监控了这个名称的主节点",
    "pool_exhausted": "连接已全部占用：调大 WXAUTH_REDIS_CONNECTIONS，或检查 Redis 的负载",
    "cluster_down": "集群的一部分没有主节点：查看 CLUSTER INFO",
    "slot_moving": "集群正在迁移槽：请等待",
    "too_few_replicas": "Redis 的写入需要从节点（min-replicas-to-write），目前数量不足：检查从节点",
    "not_replicated": "没有从节点及时确认写入：参见 WXAUTH_WAIT_REPLICAS",
    "evicting": "把 maxmemory-policy 设为 noeviction：其他策略会删除会话",
    "too_old": "需要 Redis 5 或更高版本",
}
#: The reasons that endanger sessions while Redis still keeps them.
DANGERS: Final = ("too_old", "evicting")
OLDEST_REDIS: Final = 5


def unavailable(word: str) -> StoreUnavailable:
    """Return the error for a reason, with its hint."""
    return StoreUnavailable(word, HINTS.get(word))


def reason(error: BaseException) -> str:
    """Return the one word for an error of redis-py."""
    if isinstance(error, RedisClusterException) and _is_caused_by_a_right(error):
        return "noperm"
    for text, word in REASONS_BY_TEXT.items():
        if text in str(error):
            return word
    for kind, word in REASONS:
        if isinstance(error, kind):
            return word
    return "error"


def _is_caused_by_a_right(error: BaseException) -> bool:
    """Whether a missing right is the cause. redis-py calls a node that refuses CLUSTER SLOTS no cluster."""
    cause = error.__cause__ or error.__context__
    is_right = isinstance(cause, redis.exceptions.NoPermissionError)
    return is_right or (cause is not None and _is_caused_by_a_right(cause))


def dangers(facts: Mapping[str, str]) -> Iterator[str]:
    """Yield the reasons that endanger sessions, from what INFO said."""
    if int(facts.get("redis_version", "0").partition(".")[0]) < OLDEST_REDIS:
        yield "too_old"
    if facts.get("maxmemory_policy", "noeviction") != "noeviction":
        yield "evicting"
