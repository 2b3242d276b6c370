"""The rights that the user in REDIS_URL needs, for ACL SETUSER of Redis 6.2 or newer, and a probe for them."""

from __future__ import annotations

from typing import Final

#: The channel on which the ends of sessions are published.
REVOCATIONS: Final = "wxa:revoked"
#: The commands of the store and of its scripts. A new one needs a line in PROBE_SCRIPT too.
COMMANDS: Final = (
    "del eval evalsha exists expire get hdel hget hgetall hmget hset incr pexpire ping pttl publish set subscribe"
    " time"
)
#: For `doctor`, for `wxauth prune`, for another database than 0, and for WXAUTH_WAIT_REPLICAS, in this order.
MORE_COMMANDS: Final = "info scan select wait"
#: What redis-py and a slot that moves need in a cluster.
CLUSTER_COMMANDS: Final = "asking cluster|slots command"

#: Tries the commands on one key, which is gone afterwards. If one is refused, the key has a TTL.
PROBE_SCRIPT: Final = """
local key = KEYS[1]
redis.call('TIME')
redis.call('SET', key, 0, 'EX', 10)
redis.call('EXPIRE', key, 10)
redis.call('PEXPIRE', key, 10000)
redis.call('PTTL', key)
redis.call('EXISTS', key)
redis.call('GET', key)
redis.call('INCR', key)
redis.call('DEL', key)
redis.call('HSET', key, 'f', '')
redis.call('PEXPIRE', key, 10000)
redis.call('HGET', key, 'f')
redis.call('HMGET', key, 'f')
redis.call('HGETALL', key)
redis.call('HDEL', key, 'f')
redis.call('PUBLISH', 'wxa:revoked', '')
"""


def rights(commands: str) -> str:
    """Return the rights that allow `commands`, for ACL SETUSER."""
    return " ".join(f"+{command}" for command in commands.split())


#: The keys and the channel. Redis 6.2 gives a new user all channels, and refuses `&` before `resetchannels`.
NAMES: Final = f"~wxa:* resetchannels &{REVOCATIONS}"
RIGHTS: Final = f"{NAMES} {rights(COMMANDS)} {rights(MORE_COMMANDS)}"
CLUSTER_RIGHTS: Final = rights(CLUSTER_COMMANDS)
SENTINEL_RIGHTS: Final = rights("sentinel|masters")
