"""The charts, as SVG. The same results give the same files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.contenders.table import CONTENDERS, Contender
from benchmarks.report.bars import Results, check_cost
from benchmarks.report.tables import contender_title

OUR_COLOR: Final = "#07a35a"
OTHER_COLOR: Final = "#8a94a3"
#: Without these two settings, SVG files hold random ids and glyphs as paths.
REPRODUCIBLE: Final = {"svg.hashsalt": "wxauth", "svg.fonttype": "none", "font.size": 9}


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of a chart. `spread` is the distance to the lowest and to the highest round."""

    title: str
    value: float
    ours: bool
    spread: tuple[float, float] = (0, 0)


def draw(results: Results, folder: Path) -> list[str]:
    """Write the charts and return the names of the files."""
    mpl.rcParams.update(REPRODUCIBLE)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "rates.svg": _turns(results, "per_second", "requests per second on one core (more is better)"),
        "processor.svg": _turns(results, "processor", "processor time per request, µs (less is better)"),
        "latency.svg": _turns(results, "p99", "99th percentile of latency, ms, at 32 connections (less is better)"),
        "bytes.svg": _bytes(results),
        "keyspace.svg": _keyspace(results),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, metadata={"Date": None})
    return list(figures)


def _turns(results: Results, figure: str, label: str) -> Figure:
    measured = [it for it in CONTENDERS if results["turns"].get(it.name) and not it.is_login]
    return _bar_chart([_turns_row(results, contender, figure) for contender in measured], label)


def _turns_row(results: Results, contender: Contender, figure: str) -> Row:
    values = [turn[figure] for turn in results["turns"][contender.name]]
    middle = statistics.median(values)
    spread = middle - min(values), max(values) - middle
    return Row(contender.title.replace("`", ""), middle, _is_ours(contender.name), spread)


def _bytes(results: Results) -> Figure:
    rows = [Row(contender_title(name), found["usage"], _is_ours(name)) for name, found in results["bytes"].items()]
    return _bar_chart(rows, "bytes in Redis per logged-in user (MEMORY USAGE)")


def _bar_chart(rows: Sequence[Row], label: str) -> Figure:
    rows = sorted(rows, key=lambda row: row.value)
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = [OUR_COLOR if row.ours else OTHER_COLOR for row in rows]
    errors = list(zip(*(row.spread for row in rows), strict=True)) if any(any(row.spread) for row in rows) else None
    bars = axes.barh([row.title for row in rows], [row.value for row in rows], xerr=errors, color=colors)
    axes.bar_label(bars, labels=[f" {row.value:,.0f}" if row.value >= 10 else f" {row.value:.2g}" for row in rows])
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _keyspace(results: Results) -> Figure:
    sizes = sorted(map(int, results["keyspace"]))
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(sizes, [check_cost(results, size) for size in sizes], marker="o", color=OUR_COLOR)
    axes.set(xscale="log", ylim=(0, None), xlabel="sessions in Redis")
    axes.set_ylabel("processor time per check, cache off,\nRedis included, µs")
    return figure


def _is_ours(name: str) -> bool:
    return name.startswith(("verify", "decorator"))
