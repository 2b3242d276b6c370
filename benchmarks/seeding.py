"""Users who are logged in before a figure is taken: the header line that each of them sends from then on."""

from __future__ import annotations

import http.client
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import redis

from benchmarks.identity import SECRET, visitor
from benchmarks.running import ContenderServer
from benchmarks.table import Seeding
from tests.servers import RedisServer
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionPolicy, SessionStore
from wxauth.settings import Settings
from wxauth.storage.client import RedisClient
from wxauth.storage.wire import Command, Reader

LIMITS: Final = SessionPolicy(Settings.idle_ttl, Settings.max_ttl, Settings.max_sessions)
BATCH: Final = 1000


class _Nobody(Reader):
    """What is read of a user who has never been here."""

    def __init__(self) -> None:
        super().__init__(lambda conversation: None)

    def fields(self, key: str) -> dict[bytes, bytes]:
        return {}

    def fields_and_mark(self, key: str, mark: str) -> tuple[dict[bytes, bytes], bool]:
        return {}, False

    def present(self, keys: Sequence[str]) -> set[str]:
        return set()


class _Notes(RedisClient):
    """Takes the commands of a login down, for a pipeline; they are those that a worker would have carried out."""

    def __init__(self) -> None:
        super().__init__(redis.Redis)
        self.commands: list[Command] = []

    def read(self, key: str) -> None:
        return None

    def transact(
        self, keys: Sequence[str], plan: Callable[[Reader], Iterable[Command]], *, confirmed: bool = False
    ) -> None:
        self.commands += plan(_Nobody())


def log_in_ours(server: RedisServer, count: int) -> list[str]:
    """`count` users as SessionStore logs them in, through pipelines; their tokens."""
    notes = _Notes()
    store = SessionStore(notes, KeyRing([Secret(SECRET)]), LIMITS)
    tokens = []
    with server.client() as client:
        for number in range(count):
            user = visitor(number)
            identity = Identity(User(user.appid, user.openid), Secret(user.session_key), user.unionid)
            tokens.append(store.create(identity, "a phone")[0].reveal())
            if len(notes.commands) >= BATCH:
                carry_out(client, notes.commands)
        carry_out(client, notes.commands)
    return tokens


def carry_out(client: redis.Redis, commands: list[Command]) -> None:
    """All of `commands`, which is empty then."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no annotations here
    pipeline.execute()
    commands.clear()


def copy_ours(server: RedisServer, count: int) -> None:
    """`count` times what a login leaves in Redis, under other names: they fill the keyspace and open to nobody."""
    with server.client() as client:
        record = next(client.scan_iter("wxa:*:s:*", count=BATCH))
        user = next(client.scan_iter("wxa:*:u:*", count=BATCH))
        lengths = [len(client.get(record) or b"")] + [len(value) for value in client.hgetall(user).values()]
        commands: list[Command] = []
        for _ in range(count):
            commands += _copy(lengths)
            if len(commands) >= BATCH:
                carry_out(client, commands)
        carry_out(client, commands)


def _copy(lengths: Sequence[int]) -> Iterator[Command]:
    record, entry, keys = (os.urandom(length) for length in lengths)
    tag, id, name = secrets.token_urlsafe(3), secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    yield ("SET", f"wxa:{{{tag}}}:s:{id}", record, "EX", LIMITS.idle_ttl)
    yield ("HSET", f"wxa:{{{tag}}}:u:{name}", id, entry, "k", keys)
    yield ("EXPIRE", f"wxa:{{{tag}}}:u:{name}", LIMITS.max_ttl)


def bearer(tokens: Iterable[str]) -> list[str]:
    return [f"Authorization: Bearer {token}" for token in tokens]


def _ours(server: ContenderServer, count: int) -> list[str]:
    return bearer(log_in_ours(server.redis, count))


def _over_http(server: ContenderServer, count: int) -> list[str]:
    """At the contender's own `/login`, which answers with a token or a cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    return [_log_in(connection, number) for number in range(count)]


def _log_in(connection: http.client.HTTPConnection, number: int) -> str:
    connection.request("POST", f"/login?user={number}")
    response = connection.getresponse()
    body = json.loads(response.read())
    cookie = response.getheader("Set-Cookie")
    return f"Cookie: {cookie.partition(';')[0]}" if cookie else f"Authorization: Bearer {body['token']}"


def _plain(server: ContenderServer, count: int) -> list[str]:
    """A text that nginx can take apart, under the token."""
    tokens = [secrets.token_hex(32) for _ in range(count)]
    with server.redis.client() as client:
        for number, token in enumerate(tokens):
            user = visitor(number)
            client.set(f"token:{token}", f"{user.appid} {user.openid} {user.unionid}", ex=LIMITS.idle_ttl)
    return bearer(tokens)


WAYS: Final[Mapping[Seeding, Callable[[ContenderServer, int], list[str]]]] = {
    "ours": _ours,
    "http": _over_http,
    "plain": _plain,
    "none": lambda server, count: [],
}


def log_in(server: ContenderServer, count: int) -> list[str]:
    """`count` users of this contender, as header lines; none where it has no users."""
    return WAYS[server.contender.seeding](server, count)
