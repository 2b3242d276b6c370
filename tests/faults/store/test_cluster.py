"""Redis Cluster: what befalls a part of it is felt by those alone whose sessions lie there."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from redis.crc import key_slot

from tests.conftest import APPID, RING_KEY
from tests.faults.support.clusters import ClusterSet
from tests.faults.conftest import Progress, Run, cache_on_and_off
from tests.faults.support.driver import Load
from tests.faults.support.history import Call
from tests.faults.support.rig import ObservedService, assert_clean, bar, bounds_of, events, slowest
from tests.faults.support.topologies import Node
from tests.service import Service, WeChatServer
from wxauth.keys import SigningKey
from wxauth.models import Secret, User

READS = ("check", "list", "verify")
LOGOUTS = ("logout", "everywhere", "others")
PASSWORD = "password-of-the-cluster"
KEY = SigningKey(Secret(RING_KEY))


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSet]:
    with ClusterSet(password=PASSWORD) as started:
        yield started


def slot_of(openid: str) -> int:
    """Where all that belongs to this user lies."""
    return key_slot(KEY.tag(User(APPID, openid)).encode())


def refused(calls: Sequence[Call], *operations: str) -> list[Call]:
    return [call for call in calls if call.status == 503 and call.operation in operations]


def counted(calls: Sequence[Call], *operations: str) -> str:
    asked = [call for call in calls if call.operation in operations]
    return f"{len(refused(asked, *operations))} of {len(asked)}"


def assert_causes(run: Run, fault: str, service: Service, *expected: str) -> None:
    """A machine that is busy with something else may always make for a `timeout`; CROSSSLOT would be an `error`."""
    reasons = {event["reason"] for event in events(service) if event["event"] == "store_unavailable"}
    run.figure(fault, "reasons of the 503", ", ".join(sorted(reasons)) or "-", ", ".join(expected) or "none")
    assert reasons <= {*expected, "timeout"}
    assert "CROSSSLOT" not in service.output()


def assert_elections(run: Run, fault: str, cluster: ClusterSet, before: int, asked_for: int) -> None:
    """One that nobody asked for may forget what the live primary had acknowledged: then the machine was too slow."""
    held = cluster.elections() - before
    run.figure(fault, "elections of a new primary", held, asked_for)
    assert held == asked_for


def lose(cluster: ClusterSet, primary: Node, hang: bool) -> tuple[float, float]:
    """Kill a primary (or stop it), and bring it back as a replica: the moments of its end and of the promotion."""
    start = time.monotonic()
    if hang:
        primary.stall()
    else:
        primary.kill()
    _, promoted_at = cluster.promoted([cluster.partner(primary)])
    time.sleep(2)
    if hang:
        primary.go_on()
    else:
        primary.start_again()
    cluster.settle()
    return start, promoted_at


@cache_on_and_off
def test_a_primary_is_lost(
    run: Run, progress: Progress, wechat: WeChatServer, cluster: ClusterSet, cache: str
) -> None:
    """Only those whose slots it held are asked to wait, and only until its replica has taken over."""
    chance = random.Random(run.seed)  # noqa: S311 - the same again is the point
    before, kept = cluster.elections(), f"{cache} kept"
    with ObservedService(cluster.url, wechat, WXAUTH_WAIT_REPLICAS="1", WXAUTH_CACHE_SIZE=cache) as service:
        load = Load(service.url, wechat, seed=run.seed, users=48, rate=300)
        load.log_in_all()
        service.settle()
        with load:
            for how, hang in {"kill -9": False, "SIGSTOP": True}.items():
                losses = [loss(cluster, load, chance, hang, progress) for _ in range(run.of(1, 6))]
                report(run, f"cluster: primary lost ({how}), {kept}", losses)
        load.check_all()
        assert_elections(run, f"cluster: primaries lost, {kept}", cluster, before, 2 * run.of(1, 6))
        assert_causes(run, f"cluster: primaries lost, {kept}", service, "not_replicated", "timeout", "unreachable")
        assert_clean(run, f"cluster: primaries lost, {kept}", service, load.calls, bounds_of(cache))


@dataclass(frozen=True)
class Loss:
    """What the callers heard: `meanwhile` until the promotion, `calls` to the end of the trouble.

    `strangers` were refused though their sessions lie elsewhere.
    """

    promotion: float
    meanwhile: list[Call]
    calls: list[Call]
    strangers: list[Call]


def loss(cluster: ClusterSet, load: Load, chance: random.Random, hang: bool, progress: Progress) -> Loss:
    time.sleep(0.5)
    owners = cluster.owners()
    primary = chance.choice(sorted(cluster.primaries(), key=cluster.nodes.index))
    asked = len(load.calls)
    start, promotion = lose(cluster, primary, hang)
    calls = load.calls[asked:]
    strangers = [call for call in refused(calls, *READS, *LOGOUTS) if owners[slot_of(call.user)] is not primary]
    progress(f"cluster: a primary lost, promotion after {promotion - start:.1f} s, {len(load.calls)} calls")
    meanwhile = [call for call in calls if start <= call.start <= promotion]
    return Loss(promotion, meanwhile, calls, strangers)


def report(run: Run, fault: str, losses: Sequence[Loss]) -> None:
    meanwhile = [call for loss in losses for call in loss.meanwhile]
    later = [call for loss in losses for call in loss.calls if call.start > loss.promotion]
    last = [round(call.end - loss.promotion, 3) for loss in losses for call in refused(loss.calls, *READS)]
    passed = len([call for call in meanwhile if call.passed])
    run.figure(fault, "calls that passed until the promotion", f"{passed} of {len(meanwhile)}", "")
    run.figure(fault, "logins refused until the promotion", counted(meanwhile, "login"), "")
    run.figure(fault, "logouts refused later, for want of a replica", counted(later, *LOGOUTS), "")
    assert_limit(run, fault, "503 for sessions elsewhere", sum(len(loss.strangers) for loss in losses), 0, "calls")
    assert_limit(run, fault, "last 503 for a check after the promotion", max(last, default=0), 1, "s")
    assert_limit(run, fault, "slowest call until the promotion", slowest(meanwhile), 600)


def test_slots_are_moved(run: Run, progress: Progress, wechat: WeChatServer, cluster: ClusterSet) -> None:
    """Slots change hands under load, each of them for a while in two halves, and nobody is asked to wait.

    Half of them go to a primary that holds others already, half to one that is new in the cluster.
    """
    fault, count = "cluster: slots moved", run.of(50, 1000)
    before = cluster.elections()
    with ObservedService(cluster.url, wechat) as service:
        load = Load(service.url, wechat, seed=run.seed, users=48, rate=300)
        load.log_in_all(2)
        service.settle()
        with load:
            time.sleep(0.5)
            start = time.monotonic()
            for target in (cluster.primaries()[0], cluster.join()):
                move(cluster, load, target, count // 2, random.Random(run.seed))  # noqa: S311 - the same again
                progress(f"{fault}: {count // 2}, {len(load.calls)} calls")
            time.sleep(0.5)
        load.check_all()
        assert_elections(run, fault, cluster, before, 0)
        asked = [call for call in load.calls if call.start > start]
        run.figure(fault, "logins refused", counted(asked, "login"), "")
        run.figure(fault, "slowest call (ms)", slowest(asked), "")
        assert_causes(run, fault, service, "contention", "slot_moving")
        assert_clean(run, fault, service, load.calls)
        assert_limit(run, fault, f"503 for sessions in {len(asked)} calls", len(refused(asked, *READS, *LOGOUTS)), 0, "calls")


def move(cluster: ClusterSet, load: Load, target: Node, count: int, chance: random.Random) -> None:
    """Move so many slots to `target`, those first in which somebody's sessions lie."""
    owners = {slot: node for slot, node in cluster.owners().items() if node is not target}
    inhabited = {slot_of(person.openid) for person in load.people} & owners.keys()
    empty = chance.sample(sorted(owners.keys() - inhabited), count)
    slots = [*chance.sample(sorted(inhabited), min(len(inhabited), count // 2)), *empty][:count]
    for slot in chance.sample(slots, count):
        cluster.move_slot(slot, owners[slot], target, pause=0.005)
