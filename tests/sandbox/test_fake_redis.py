"""The sandbox's Redis: it can be unplugged, comes back by itself, and tells what it holds as a thief would see it."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from wxauth.errors import StoreUnavailable
from wxauth.sandbox.fake_redis import AWAY, MOST_KEYS, FakeRedis
from wxauth.sandbox.trace import SHOWN_BYTES, Note, Trace
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
def door(fake: FakeRedis) -> RedisClient:
    return RedisClient(lambda: fake.client)


def holds(fake: FakeRedis) -> dict[str, Any]:
    found = fake.holds()
    assert found is not None
    return {key["key"]: key for key in found["keys"]}


def notes(trace: Trace) -> list[Note]:
    return trace.of("request") or []


def test_unplugged_it_can_not_be_asked(fake: FakeRedis, door: RedisClient) -> None:
    """The service comes upon a lost connection, as with a real one."""
    door.set("key", 60)
    fake.unplug()
    with pytest.raises(StoreUnavailable):
        door.read("key")


def test_it_comes_back_by_itself(fake: FakeRedis, door: RedisClient, clock: Clock) -> None:
    """After some seconds it answers again, and has lost nothing."""
    door.set("key", 60)
    fake.unplug()
    clock.now += AWAY
    assert door.read("key") is not None


def test_it_comes_back_when_told_to(fake: FakeRedis, door: RedisClient) -> None:
    """Nobody has to wait for it."""
    fake.unplug()
    fake.plug_in()
    assert door.read("key") is None


def test_it_says_when_it_is_back(fake: FakeRedis, clock: Clock) -> None:
    """In seconds, and 0 while it is there."""
    before = fake.back_in
    fake.unplug()
    clock.now += AWAY - 1
    assert (before, fake.back_in) == (0, 1)


def test_nothing_is_seen_of_it_while_it_is_away(fake: FakeRedis) -> None:
    """Unreachable is not the same as empty."""
    empty = fake.holds()
    fake.unplug()
    assert (empty, fake.holds()) == ({"total": 0, "keys": []}, None)


def test_a_key_is_told_by_name_life_size_and_beginning(fake: FakeRedis) -> None:
    """What anybody sees who has stolen Redis; of a long value the beginning alone."""
    fake.client.set("key", bytes(range(100)), ex=60)
    key = holds(fake)["key"]
    assert (key["type"], key["bytes"], key["hex"]) == ("string", 100, bytes(range(SHOWN_BYTES)).hex())
    assert 0 < key["ttl"] <= 60


def test_a_hash_is_told_field_by_field(fake: FakeRedis) -> None:
    """With the size of all of them."""
    fake.client.hset("key", mapping={"a": b"\x01", "b": b"\x02\x03"})
    key = holds(fake)["key"]
    fields = {name: field["hex"] for name, field in key["fields"].items()}
    assert (key["bytes"], fields) == (3, {"a": "01", "b": "0203"})


def test_of_many_keys_some_are_told(fake: FakeRedis) -> None:
    """And how many there are."""
    for number in range(MOST_KEYS + 5):
        fake.client.set(f"key{number}", "")
    found = fake.holds()
    assert found is not None
    assert (found["total"], len(found["keys"])) == (MOST_KEYS + 5, MOST_KEYS)


def test_time_can_run_out(fake: FakeRedis) -> None:
    """A key is let expire at once."""
    fake.client.set("key", "", ex=60)
    fake.expire("key")
    assert holds(fake) == {}


def test_no_time_runs_out_while_it_is_away(fake: FakeRedis) -> None:
    """What can't be reached can't be changed either."""
    fake.unplug()
    with pytest.raises(StoreUnavailable):
        fake.expire("key")


def test_a_round_trip_is_one_note(trace: Trace, door: RedisClient) -> None:
    """What was asked in it, and what came back."""
    door.read("key")
    (note,) = notes(trace)
    assert (note["commands"], note["replies"]) == ([["GET", "key"], ["PTTL", "key"]], [None, -2])


def test_a_note_says_what_redis_holds_then(trace: Trace, door: RedisClient) -> None:
    """As it was after this round trip, whatever comes later."""
    for name in ("one", "two"):
        door.set(name, 60)
    assert [[key["key"] for key in note["holds"]["keys"]] for note in notes(trace)] == [["one"], ["one", "two"]]


def test_a_refusal_is_noted(trace: Trace, fake: FakeRedis, door: RedisClient) -> None:
    """An error that Redis answers is a reply."""
    fake.client.set("key", "no hash")
    with pytest.raises(StoreUnavailable):
        door.at("key").fields("key")
    assert "WRONGTYPE" in notes(trace)[0]["replies"][0]


def test_each_vain_attempt_is_noted(trace: Trace, fake: FakeRedis, door: RedisClient) -> None:
    """The service tries once more over a new connection, and both tries can be seen."""
    fake.unplug()
    with pytest.raises(StoreUnavailable):
        door.read("key")
    found = [(note["error"], note["commands"], note["holds"]) for note in notes(trace)]
    assert found == [("no connection", [], None)] * 2


def test_who_looks_into_it_leaves_no_note(trace: Trace, fake: FakeRedis) -> None:
    """Only what the service asks is noted."""
    fake.holds()
    assert notes(trace) == []


def test_the_client_is_redis_py_s(fake: FakeRedis) -> None:
    """The service meets the library that it meets elsewhere."""
    assert isinstance(fake.client, redis.Redis)
