"""The benchmark's arithmetic, and its committed files, which must be those of its results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import bars, instructions, report, samples, scale, throughput
from benchmarks.places import HERE
from benchmarks.table import CONTENDERS


def turns(**rates: list[float]) -> dict[str, Any]:
    """Results in which contenders reached these requests a second."""
    return {"turns": {name: [{"a_second": rate} for rate in found] for name, found in rates.items()}}


def test_a_ratio_is_that_of_the_medians() -> None:
    """One lucky round changes nothing."""
    found = turns(ours=[10, 30, 900], theirs=[20, 10, 10])
    assert bars.ratio("ours", "theirs")(found) == 3


@pytest.mark.parametrize(
    ("value", "at_most", "holds"), [(2, False, True), (1.9, False, False), (2, True, True), (2.1, True, False)]
)
def test_a_bar_holds_where_it_is_reached(value: float, at_most: bool, holds: bool) -> None:
    """From below or from above; reached is enough."""
    assert bars.Bar("it", 2, lambda _: value, at_most).holds({}) is holds


@pytest.fixture
def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "results.json").read_text())
    return found


def test_a_bar_that_is_missed_is_named(committed: dict[str, Any]) -> None:
    """With what was measured and what was needed; so are requests of ours that failed."""
    committed["bytes"]["verify"]["usage"] = 601
    committed["turns"]["verify"][0]["failed"] = 7
    missed = bars.missed(committed)
    assert "bytes in Redis for a logged-in user: 601, bar 600" in missed
    assert "verify: 7 requests failed" in missed


def test_a_check_costs_what_redis_takes_too() -> None:
    """The growth is that of both together, from the fewest sessions to the most."""

    def few_or_many(processor: float, redis: float) -> list[dict[str, float]]:
        return [{"processor": processor, "redis": redis}]

    found = {"keyspace": {"1000": few_or_many(80, 20), "1000000": few_or_many(80, 40), "100000": few_or_many(1, 1)}}
    assert bars.growth(found) == 1.2


def test_every_contender_has_one_turn_a_round() -> None:
    """In another order each time, and the same again for the same seed."""
    first, second = order = list(throughput.rounds(2, 1))
    assert sorted(map(id, first)) == sorted(map(id, second)) == sorted(map(id, CONTENDERS))
    assert first != second
    assert order == list(throughput.rounds(2, 1))


def test_a_look_is_counted_for_the_package_on_top() -> None:
    """Whatever called it; what is no Python is the server's."""
    stacks = [
        "_runner (/v/site-packages/granian/wsgi.py:51);wsgi_app (/v/site-packages/flask/app.py:1479) 3",
        f"wsgi_app (/v/site-packages/flask/app.py:1479);resolve ({HERE.parent}/wxauth/cache.py:90) 4",
        "dumps (/usr/lib/python3.11/json/__init__.py:234) 2",
        " 1",
    ]
    assert samples.shares(stacks) == {"wxauth": 0.4, "flask": 0.3, "standard library": 0.2, samples.OUTSIDE: 0.1}


ANNOTATED = """\
-- a line without a meaning --
4,400 (100.0%)  PROGRAM TOTALS
Ir              file:function
3,000 (68.18%)  ???:_PyEval_EvalFrameDefault [/usr/bin/python3.11]
  400 ( 9.09%)  ???:_PyEval_EvalFrameDefault'2 [/usr/bin/python3.11]
  600 (13.64%)  ./malloc/./malloc/malloc.c:malloc [/usr/lib/libc.so.6]
  300 ( 6.82%)  ???:0x00000000004fee40 [/usr/bin/python3.11]
  100 ( 2.27%)  ???:0x000000000053fb50 [/usr/bin/python3.11]
"""


def test_instructions_are_counted_for_each_call() -> None:
    """By function, whatever file and object it is of, and however deep it calls itself."""
    functions = {"_PyEval_EvalFrameDefault": 34, "malloc": 6, instructions.NAMELESS: 4}
    assert instructions.by_function(ANNOTATED.splitlines(), 100) == functions


@pytest.mark.parametrize(("word", "times"), [("PROGRAM TOTALS", 0), ("malloc", 0), ("malloc", 2)])
def test_instructions_that_do_not_add_up_are_no_figure(word: str, times: int) -> None:
    """Another callgrind may print other lines, or some of them twice."""
    lines = [line for line in ANNOTATED.splitlines() for _ in range(times if word in line else 1)]
    with pytest.raises(ValueError, match="callgrind counted"):
        instructions.by_function(lines, 100)


def test_the_pages_are_those_of_the_results(committed: dict[str, Any]) -> None:
    """Whoever edits a sentence writes them anew: `python -m benchmarks --write`."""
    assert (HERE / "README.md").read_text() == report.written(committed)
    assert (HERE / "scale.md").read_text() == scale.written(committed)
