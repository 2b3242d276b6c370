"""Log test users in before a measurement. The result is the header line that each user sends afterwards."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import redis

from benchmarks.contenders.table import OURS, SeedMethod
from benchmarks.contenders.users import FakeUser, fake_user
from benchmarks.harness.servers import ContenderServer
from tests.support.servers import RedisServer
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.services import redis_client, session_store

#: Commands in one pipeline.
BATCH: Final = 1000
#: The user whose keys `add_copies` copies. No test user has this number.
COPIED_USER: Final = 10**9


def log_in(server: ContenderServer, count: int) -> list[str]:
    """Log `count` users in and return their header lines. A contender without users gets an empty list."""
    return METHODS[server.contender.seeding](server, count)


def log_in_to_wxauth(server: RedisServer, count: int) -> list[str]:
    """Create `count` sessions, one for each user, with the service's own SessionStore."""
    store = _session_store(server)
    return bearer(_create(store, fake_user(number)) for number in range(count))


def add_copies(server: RedisServer, count: int) -> None:
    """Fill Redis with `count` copies of the keys of one logged-in user, under random names of the same length.

    Redis must be empty before. The copies have the size and the TTL of the original, but no token opens them.
    """
    _create(_session_store(server), fake_user(COPIED_USER))
    with server.client() as client:
        originals = [key.decode() for key in client.keys("wxa:*")]
        for first in range(0, count, BATCH):
            _copy(client, originals, min(BATCH, count - first))


def _session_store(server: RedisServer) -> SessionStore:
    settings = Settings.from_env({**OURS, "REDIS_URL": server.url})
    return session_store(settings, redis_client(settings))


def _create(store: SessionStore, user: FakeUser) -> str:
    """Create a session and return its token."""
    identity = Identity(User(user.appid, user.openid), Secret(user.session_key), user.unionid)
    token, _ = store.create(identity)
    return token.reveal()


def _copy(client: redis.Redis, keys: Sequence[str], times: int) -> None:
    pipeline = client.pipeline(transaction=False)
    for _ in range(times):
        for key in keys:
            pipeline.copy(key, f"wxa:{secrets.token_hex(len(key))}"[: len(key)])
    pipeline.execute()


def bearer(tokens: Iterable[str]) -> list[str]:
    return [f"Authorization: Bearer {token}" for token in tokens]


def _wxauth(server: ContenderServer, count: int) -> list[str]:
    return log_in_to_wxauth(server.redis, count)


def _http(server: ContenderServer, count: int) -> list[str]:
    """Use the contender's own `/login`, which answers with a token or a cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    return [_post_login(connection, number) for number in range(count)]


def _post_login(connection: http.client.HTTPConnection, number: int) -> str:
    connection.request("POST", f"/login?user={number}")
    response = connection.getresponse()
    body = json.loads(response.read())
    cookie = response.getheader("Set-Cookie")
    return f"Cookie: {cookie.partition(';')[0]}" if cookie else f"Authorization: Bearer {body['token']}"


def _redis(server: ContenderServer, count: int) -> list[str]:
    """Write the text that the Lua code of nginx reads to the key of each token."""
    tokens = [secrets.token_hex(32) for _ in range(count)]
    with server.redis.client() as client:
        for number, token in enumerate(tokens):
            user = fake_user(number)
            client.set(f"token:{token}", f"{user.appid} {user.openid} {user.unionid}", ex=Settings.idle_ttl)
    return bearer(tokens)


def _none(server: ContenderServer, count: int) -> list[str]:
    return []


METHODS: Final[Mapping[SeedMethod, Callable[[ContenderServer, int], list[str]]]] = {
    "wxauth": _wxauth,
    "http": _http,
    "redis": _redis,
    "none": _none,
}
