"""The benchmark's arithmetic, and its committed pages, which must match `results.json`."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks.contenders.table import CONTENDERS, granian
from benchmarks.harness.host import BENCHMARKS
from benchmarks.measure import throughput
from benchmarks.report import bars, capacity, pages, scale, tables


def turns(**rates: list[float]) -> dict[str, Any]:
    """Return results with these requests per second."""
    return {"turns": {name: [{"per_second": rate} for rate in found] for name, found in rates.items()}}


@pytest.fixture
def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / "results.json").read_text())
    return found


def test_ratio_is_the_median_of_the_rounds() -> None:
    """Within a round the machine has one speed. The medians of all rounds would give 3."""
    found = turns(ours=[10, 40, 30], theirs=[5, 10, 20])
    assert bars.ratio("ours", "theirs")(found) == 2


@pytest.mark.parametrize(("value", "text"), [(0.8512, "0.851"), (85.06, "85.1"), (1110.2, "1,110")])
def test_figure_has_no_exponent(value: float, text: str) -> None:
    assert bars.digits(value) == text


@pytest.mark.parametrize(
    ("value", "at_most", "holds"), [(2, False, True), (1.9, False, False), (2, True, True), (2.1, True, False)]
)
def test_bar_holds_when_the_limit_is_reached(value: float, at_most: bool, holds: bool) -> None:
    assert bars.Bar("a bar", 2, lambda _: value, at_most).holds({}) is holds


def test_missed_names_the_bar_with_its_figure_and_failed_requests(committed: dict[str, Any]) -> None:
    committed["bytes"]["verify"]["usage"] = 601
    committed["turns"]["verify"][0]["failed"] = 7
    missed = bars.missed(committed)
    assert "bytes in Redis for a user with one session and one session_key: 601, bar 520" in missed
    assert "verify: 7 requests failed" in missed


def test_growth_counts_the_processor_time_of_redis() -> None:
    """It compares the most sessions with the fewest."""

    def turn(processor: float, redis: float) -> list[dict[str, float]]:
        return [{"processor": processor, "redis": redis}]

    found = {"keyspace": {"1000": turn(80, 20), "1000000": turn(80, 40), "100000": turn(1, 1)}}
    assert bars.growth(found) == 1.2


def test_rounds_give_each_contender_one_turn_in_an_order_from_the_seed() -> None:
    first, second = order = list(throughput.rounds(2, 1))
    assert sorted(map(id, first)) == sorted(map(id, second)) == sorted(map(id, CONTENDERS))
    assert first != second
    assert order == list(throughput.rounds(2, 1))


def test_granian_runs_the_given_application_on_loopback() -> None:
    command = granian("package.module:app")[-1]
    heaps = "MALLOC_ARENA_MAX=1 _RJEM_MALLOC_CONF=narenas:1,lg_tcache_max:10,dirty_decay_ms:100"
    assert command.startswith(f"{heaps} exec python -m wxauth.cli.server package.module:app 127.0.0.1 ")


def test_fill_replaces_each_block_and_keeps_the_text() -> None:
    page = "before\n<!-- table: a -->\nold\n<!-- end -->\nbetween\n<!-- table: b -->\n<!-- end -->\nafter\n"
    filled = pages.fill(page, {"a": "1\n", "b": "2\n"})
    assert filled == (
        "before\n<!-- table: a -->\n\n1\n\n<!-- end -->\nbetween\n<!-- table: b -->\n\n2\n\n<!-- end -->\nafter\n"
    )
    assert pages.fill(filled, {"a": "1\n", "b": "2\n"}) == filled


def test_fill_refuses_an_unknown_block() -> None:
    with pytest.raises(KeyError):
        pages.fill("<!-- table: a -->\n<!-- end -->\n", {})


def test_fleet_is_larger_for_more_users(committed: dict[str, Any]) -> None:
    few, many = (
        capacity.Plan(committed, capacity.Assumptions(users=users)).fleet(same_worker=True) for users in (10e6, 100e6)
    )
    assert few.primaries < many.primaries
    assert few.workers < many.workers


@pytest.mark.parametrize(("name", "blocks"), [("README.md", tables.blocks), ("scale.md", scale.blocks)])
def test_pages_match_the_results(name: str, blocks: Any, committed: dict[str, Any]) -> None:
    """`make bench-report` writes them again. Each page shows all its blocks."""
    page, expected = (BENCHMARKS / name).read_text(), blocks(committed)
    assert pages.block_names(page) == list(expected)
    assert page == pages.fill(page, expected)


def test_readme_shows_all_committed_charts() -> None:
    """The charts need matplotlib, which only the benchmark's environment has."""
    shown = re.findall(r"\(charts/([a-z]+\.svg)\)", (BENCHMARKS / "README.md").read_text())
    assert sorted(shown) == sorted(path.name for path in (BENCHMARKS / "charts").iterdir())
