"""Redis Cluster: a fault of one part reaches only the users that have their sessions there."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
from redis.crc import key_slot

from tests.conftest import APPID, RING_KEY
from tests.faults.conftest import Progress, Run
from tests.faults.support.clusters import ClusterSet
from tests.faults.support.driver import Load
from tests.faults.support.history import Call
from tests.faults.support.rig import (
    Loaded,
    ObservedService,
    assert_clean,
    assert_limit,
    cached_and_uncached,
    events,
    running,
    slowest,
)
from tests.faults.support.topologies import Node
from tests.support.service import Service, WeChatServer
from wxauth.keys import SigningKey
from wxauth.models import Secret, User
from wxauth.sessions.records import UserHash

READS = ("check", "list", "verify")
LOGOUTS = ("logout", "everywhere", "others")
PASSWORD = "password-of-the-cluster"
KEY = SigningKey(Secret(RING_KEY))
CALLS_A_SECOND = 300

pytestmark = pytest.mark.timed


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSet]:
    with ClusterSet(password=PASSWORD) as started:
        yield started


def slot_of(openid: str) -> int:
    """Return the slot of the user's hash."""
    return key_slot(UserHash.of(KEY, User(APPID, openid)).name.encode())


def refused(calls: Sequence[Call], *operations: str) -> list[Call]:
    return [call for call in calls if call.status == 503 and call.operation in operations]


def refused_of_all(calls: Sequence[Call], *operations: str) -> str:
    asked = [call for call in calls if call.operation in operations]
    return f"{len(refused(asked, *operations))} of {len(asked)}"


def assert_reasons(run: Run, fault: str, service: Service, *expected: str) -> None:
    """Assert the reasons of the 503s. A busy machine may always cause a `timeout`; CROSSSLOT would be an `error`."""
    reasons = {event["reason"] for event in events(service) if event["event"] == "store_unavailable"}
    run.figure(fault, "reasons of the 503", ", ".join(sorted(reasons)) or "-", ", ".join(expected) or "none")
    assert reasons <= {*expected, "timeout"}
    assert "CROSSSLOT" not in service.output()


def assert_elections(run: Run, fault: str, cluster: ClusterSet, before: int, caused: int) -> None:
    """Assert that the test itself caused each election. Another one means that the machine was too slow: the new
    primary may lack what the live one had acknowledged.
    """
    held = cluster.elections() - before
    run.figure(fault, "elections of a new primary", held, caused)
    assert held == caused


def fail_primary(cluster: ClusterSet, primary: Node, stop: bool) -> tuple[float, float]:
    """Kill a primary (or stop it) and bring it back. Return the times of the failure and the promotion."""
    start = time.monotonic()
    if stop:
        primary.stall()
    else:
        primary.kill()
    _, promoted_at = cluster.promoted([cluster.partner(primary)])
    time.sleep(2)
    if stop:
        primary.go_on()
    else:
        primary.start_again()
    cluster.settle()
    return start, promoted_at


def test_lost_primary_refuses_only_users_of_its_slots_until_the_promotion(
    run: Run, progress: Progress, wechat: WeChatServer, cluster: ClusterSet
) -> None:
    """Each loss hits a service with the session cache and one without."""
    chance = random.Random(run.seed)  # noqa: S311 - repeatable
    before, times = cluster.elections(), run.of(1, 6)
    load = partial(Load, seed=run.seed, users=48, rate=CALLS_A_SECOND)
    with cached_and_uncached(cluster.url, wechat, load, WXAUTH_WAIT_REPLICAS="1") as pairs:
        with running(pairs):
            losses = {
                how: [lose(cluster, pairs, chance, stop, progress) for _ in range(times)]
                for how, stop in {"kill -9": False, "SIGSTOP": True}.items()
            }
        for number, each in enumerate(pairs):
            fault = f"cluster: primary lost, {each.cache}"
            for how, found in losses.items():
                report(run, f"{fault} ({how})", each.service, [of_services[number] for of_services in found])
            assert_reasons(run, fault, each.service, "not_replicated", "pool_exhausted", "timeout", "unreachable")
            each.assert_clean(run, "cluster: primary lost")
        assert_elections(run, "cluster: primary lost", cluster, before, 2 * times)


@dataclass(frozen=True)
class Loss:
    """The calls of one service while a primary was lost.

    `dark` are those until the promotion. `strangers` were refused although another primary has their sessions.
    """

    promotion: float
    dark: list[Call]
    calls: list[Call]
    strangers: list[Call]


def lose(
    cluster: ClusterSet, pairs: Sequence[Loaded], chance: random.Random, stop: bool, progress: Progress
) -> list[Loss]:
    """Lose a primary once. Return what the callers of each service saw."""
    time.sleep(0.5)
    owners = cluster.owners()
    primary = chance.choice(sorted(cluster.primaries(), key=cluster.nodes.index))
    asked = [len(each.load.calls) for each in pairs]
    start, promotion = fail_primary(cluster, primary, stop)
    losses = []
    for before, each in zip(asked, pairs, strict=True):
        calls = each.load.calls[before:]
        strangers = [call for call in refused(calls, *READS, *LOGOUTS) if owners[slot_of(call.user)] is not primary]
        dark = [call for call in calls if start <= call.start <= promotion]
        losses.append(Loss(promotion, dark, calls, strangers))
    progress(f"cluster: a primary lost, promotion after {promotion - start:.1f} s")
    return losses


def unconfirmed(service: Service, calls: Sequence[Call]) -> list[Call]:
    """Return the calls that were refused because a replica did not confirm the write in time."""
    reasons = {event.get("request_id"): event["reason"] for event in events(service) if "reason" in event}
    return [call for call in calls if reasons.get(call.request_id) == "not_replicated"]


def report(run: Run, fault: str, service: Service, losses: Sequence[Loss]) -> None:
    dark = [call for loss in losses for call in loss.dark]
    later = [call for loss in losses for call in loss.calls if call.start > loss.promotion]
    last = [round(call.end - loss.promotion, 3) for loss in losses for call in refused(loss.calls, *READS)]
    passed = len([call for call in dark if call.passed])
    run.figure(fault, "calls that passed until the promotion", f"{passed} of {len(dark)}", "")
    run.figure(fault, "logins refused until the promotion", refused_of_all(dark, "login"), "")
    run.figure(fault, "logouts refused later, without a replica", refused_of_all(later, *LOGOUTS), "")
    strangers = [call for loss in losses for call in loss.strangers]
    # The lost primary has no part in these: a replica that has just come back from the loss before confirms late.
    late = unconfirmed(service, strangers)
    assert_limit(run, fault, "503 for other slots, their replica was late", len(late), len(losses), "calls")
    assert_limit(run, fault, "503 for other slots, otherwise", len(strangers) - len(late), 0, "calls")
    assert_limit(run, fault, "last 503 for a check after the promotion", max(last, default=0), 1, "s")
    assert_limit(run, fault, "slowest call until the promotion", slowest(dark), 600)


def test_moving_slots_refuses_no_session(
    run: Run, progress: Progress, wechat: WeChatServer, cluster: ClusterSet
) -> None:
    """Move slots under load, with pauses while a slot is in two halves.

    Half of them go to a primary that has slots already, half to one that is new in the cluster.
    """
    fault, count = "cluster: slots moved", run.of(50, 1000)
    before = cluster.elections()
    with ObservedService(cluster.url, wechat) as service:
        load = Load(service.url, wechat, seed=run.seed, users=48, rate=CALLS_A_SECOND)
        load.log_in_all(2)
        service.settle()
        with load:
            time.sleep(0.5)
            start = time.monotonic()
            for target in (cluster.primaries()[0], cluster.join()):
                move(cluster, load, target, count // 2, random.Random(run.seed))  # noqa: S311 - repeatable
                progress(f"{fault}: {count // 2}, {len(load.calls)} calls")
            time.sleep(0.5)
        load.check_all()
        assert_elections(run, fault, cluster, before, 0)
        asked = [call for call in load.calls if call.start > start]
        run.figure(fault, "logins refused", refused_of_all(asked, "login"), "")
        run.figure(fault, "slowest call (ms)", slowest(asked), "")
        assert_reasons(run, fault, service, "slot_moving")
        assert_clean(run, fault, service, load.calls)
        sessions = len(refused(asked, *READS, *LOGOUTS))
        assert_limit(run, fault, f"503 for sessions in {len(asked)} calls", sessions, 0, "calls")


def move(cluster: ClusterSet, load: Load, target: Node, count: int, chance: random.Random) -> None:
    """Move `count` slots to `target`, first those that hold sessions of the load."""
    owners = {slot: node for slot, node in cluster.owners().items() if node is not target}
    used = {slot_of(person.openid) for person in load.people} & owners.keys()
    empty = chance.sample(sorted(owners.keys() - used), count)
    slots = [*chance.sample(sorted(used), min(len(used), count // 2)), *empty][:count]
    for slot in chance.sample(slots, count):
        cluster.move_slot(slot, owners[slot], target, pause=0.005)
