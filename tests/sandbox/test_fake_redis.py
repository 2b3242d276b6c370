"""The in-memory Redis of the sandbox: stop and start, its content, and the notes in the trace."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from wxauth.errors import StoreUnavailable
from wxauth.sandbox.fake_redis import MAX_KEYS, OUTAGE, FakeRedis
from wxauth.sandbox.trace import MAX_HEX_BYTES, Note, Trace
from wxauth.storage.client import RedisClient


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trace() -> Trace:
    return Trace(lambda: "request")


@pytest.fixture
def fake(trace: Trace, clock: Clock) -> FakeRedis:
    return FakeRedis(trace, clock)


@pytest.fixture
def client(fake: FakeRedis) -> RedisClient:
    return RedisClient(lambda: fake.client)


def keys(fake: FakeRedis) -> dict[str, Any]:
    found = fake.content()
    assert found is not None
    return {key["key"]: key for key in found["keys"]}


def notes(trace: Trace) -> list[Note]:
    return trace.of("request") or []


def test_read_while_stopped_raises_store_unavailable(fake: FakeRedis, client: RedisClient) -> None:
    client.set("key", 60)
    fake.stop()
    with pytest.raises(StoreUnavailable):
        client.read("key")


def test_it_starts_again_after_the_outage_and_keeps_its_data(
    fake: FakeRedis, client: RedisClient, clock: Clock
) -> None:
    client.set("key", 60)
    fake.stop()
    clock.now += OUTAGE
    assert client.read("key") is not None


def test_start_ends_the_outage(fake: FakeRedis, client: RedisClient) -> None:
    fake.stop()
    fake.start()
    assert client.read("key") is None


def test_starts_in_is_the_remaining_outage_in_seconds(fake: FakeRedis, clock: Clock) -> None:
    """0 while it runs."""
    before = fake.starts_in
    fake.stop()
    clock.now += OUTAGE - 1
    assert (before, fake.starts_in) == (0, 1)


def test_content_is_none_while_stopped(fake: FakeRedis) -> None:
    """Unreachable is not the same as empty."""
    empty = fake.content()
    fake.stop()
    assert (empty, fake.content()) == ({"total": 0, "keys": []}, None)


def test_content_of_a_string_has_type_ttl_size_and_first_bytes(fake: FakeRedis) -> None:
    fake.client.set("key", bytes(range(100)), ex=60)
    key = keys(fake)["key"]
    assert (key["type"], key["bytes"], key["hex"]) == ("string", 100, bytes(range(MAX_HEX_BYTES)).hex())
    assert 0 < key["ttl"] <= 60


def test_content_of_a_hash_has_each_field_and_the_total_size(fake: FakeRedis) -> None:
    fake.client.hset("key", mapping={"a": b"\x01", "b": b"\x02\x03"})
    key = keys(fake)["key"]
    fields = {name: field["hex"] for name, field in key["fields"].items()}
    assert (key["bytes"], fields) == (3, {"a": "01", "b": "0203"})


def test_content_lists_up_to_max_keys_and_counts_all(fake: FakeRedis) -> None:
    for number in range(MAX_KEYS + 5):
        fake.client.set(f"key{number}", "")
    found = fake.content()
    assert found is not None
    assert (found["total"], len(found["keys"])) == (MAX_KEYS + 5, MAX_KEYS)


def test_content_has_the_keys_that_live_longest(fake: FakeRedis) -> None:
    """Counters of one minute do not hide the sessions."""
    for number in range(MAX_KEYS):
        fake.client.set(f"counter{number}", "", ex=60)
    fake.client.set("session", "", ex=600)
    assert "session" in keys(fake)


def test_expire_device_code_sets_its_end_to_the_past(fake: FakeRedis) -> None:
    """The other fields stay."""
    fake.client.hset("key", mapping={"ends": "1796022494000000", "client": "playground"})
    fake.expire_device_code("key")
    assert fake.client.hgetall("key") == {b"ends": b"0", b"client": b"playground"}


def test_expire_sets_the_idle_end_of_a_session_to_the_past(fake: FakeRedis) -> None:
    """The first 8 bytes. The rest stays."""
    fake.client.hset("key", "session", b"idle-end, rest")
    fake.expire("key", "session")
    assert fake.client.hget("key", "session") == bytes(8) + b", rest"


def test_expire_while_stopped_raises_store_unavailable(fake: FakeRedis) -> None:
    fake.stop()
    with pytest.raises(StoreUnavailable):
        fake.expire("key", "session")


def test_a_round_trip_is_one_note_with_commands_and_replies(trace: Trace, client: RedisClient) -> None:
    client.read("key")
    (note,) = notes(trace)
    assert (note["commands"], note["replies"]) == ([["GET", "key"]], [None])


def test_a_note_has_the_content_after_its_round_trip(trace: Trace, client: RedisClient) -> None:
    """Later changes are not in it."""
    for name in ("one", "two"):
        client.set(name, 60)
    assert [[key["key"] for key in note["holds"]["keys"]] for note in notes(trace)] == [["one"], ["one", "two"]]


def test_an_error_reply_is_in_the_note(trace: Trace, fake: FakeRedis, client: RedisClient) -> None:
    fake.client.set("key", "no hash")
    with pytest.raises(StoreUnavailable):
        client.ask("key", "HGETALL", "key", parse=list)
    assert "WRONGTYPE" in notes(trace)[-1]["replies"][0]


def test_each_failed_connection_is_a_note(trace: Trace, fake: FakeRedis, client: RedisClient) -> None:
    """The service tries again once, over a new connection."""
    fake.stop()
    with pytest.raises(StoreUnavailable):
        client.read("key")
    found = [(note["error"], note["commands"], note["holds"]) for note in notes(trace)]
    assert found == [("no connection", [], None)] * 2


def test_content_leaves_no_note(trace: Trace, fake: FakeRedis) -> None:
    """Only the commands of the service are recorded."""
    fake.content()
    assert notes(trace) == []


def test_the_client_is_a_redis_py_client(fake: FakeRedis) -> None:
    assert isinstance(fake.client, redis.Redis)
