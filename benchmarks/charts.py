"""The charts: SVG, drawn from the results alone, so that the same results give the same files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.bars import Results, check_cost, median
from benchmarks.table import CONTENDERS, Contender

OURS: Final = "#07a35a"
THEIRS: Final = "#8a94a3"


def draw(results: Results, folder: Path) -> list[str]:
    """The names of the files that were written."""
    mpl.rcParams.update({"svg.hashsalt": "wxauth", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "rates.svg": _bars(results, "a_second", "requests a second on one core (more is better)"),
        "processor.svg": _bars(results, "processor", "processor time a request, µs (less is better)"),
        "latency.svg": _bars(results, "p99", "99 of 100 answered within, ms, at 32 connections (less is better)"),
        "bytes.svg": _bytes(results),
        "keyspace.svg": _keyspace(results),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, metadata={"Date": None})
    return list(figures)


def _bars(results: Results, figure: str, label: str) -> Any:
    measured = [contender for contender in CONTENDERS if results["turns"].get(contender.name)]
    ordered = sorted(measured, key=lambda contender: median(results, contender.name, figure))
    values = [median(results, contender.name, figure) for contender in ordered]
    spread = [_spread(results, contender, figure) for contender in ordered]
    return _horizontal(
        [it.title.replace("`", "") for it in ordered], values, label, [_is_ours(it.name) for it in ordered], spread
    )


def _spread(results: Results, contender: Contender, figure: str) -> tuple[float, float]:
    """How far the least and the most of the rounds lie from the median."""
    values = [turn[figure] for turn in results["turns"][contender.name]]
    middle = statistics.median(values)
    return middle - min(values), max(values) - middle


def _bytes(results: Results) -> Any:
    titles = {contender.name: contender.title for contender in CONTENDERS} | {"verify": "wxauth"}
    ordered = sorted(results["bytes"], key=lambda name: float(results["bytes"][name]["usage"]))
    values = [results["bytes"][name]["usage"] for name in ordered]
    label = "bytes in Redis for a logged-in user (MEMORY USAGE)"
    return _horizontal([titles[name] for name in ordered], values, label, [_is_ours(name) for name in ordered])


def _keyspace(results: Results) -> Any:
    sizes = sorted(map(int, results["keyspace"]))
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(sizes, [check_cost(results, size) for size in sizes], marker="o", color=OURS)
    axes.set(xscale="log", ylim=(0, None), xlabel="sessions in Redis")
    axes.set_ylabel("processor time a check, cache off,\nRedis included, µs")
    return figure


def _horizontal(
    names: Sequence[str],
    values: Sequence[float],
    label: str,
    ours: Sequence[bool],
    spread: Sequence[tuple[float, float]] | None = None,
) -> Any:
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    errors = list(zip(*spread, strict=True)) if spread else None
    drawn = axes.barh(names, values, xerr=errors, color=[OURS if own else THEIRS for own in ours])
    axes.bar_label(drawn, labels=[f" {value:,.0f}" if value >= 10 else f" {value:.2g}" for value in values])
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _is_ours(name: str) -> bool:
    return name.startswith(("verify", "decorator"))
