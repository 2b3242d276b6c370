"""The dashboard and the alert rules name what `/metrics` tells, and nothing else; the dashboard shows all of it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.error_classes import answered
from tests.service import ROOT
from wxauth import metrics

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]

SHOWN = {f"{panel['title']} {it['refId']}": it["expr"] for panel in PANELS for it in panel["targets"]}
WATCHED = {rule["alert"]: rule["expr"] for rule in RULES}
EXPRESSIONS = SHOWN | WATCHED
expressions = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)

COLUMNS = 24
#: What Prometheus adds to every sample.
BY_PROMETHEUS = {"instance", "job"}


def exposed() -> dict[str, set[str]]:
    """Each sample of ours that `/metrics` tells, and its labels, which appear once something was counted."""
    metrics.LOGINS.labels("ok")
    metrics.CHECKS.labels("ok", "redis")
    metrics.ENDED.labels("logout")
    metrics.USERDATA.labels("decrypt", "newest")
    metrics.PUSHES.labels("other")
    families = text_string_to_metric_families(metrics.exposition().decode())
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("wxauth_")]
    return {sample.name: set(sample.labels) for sample in samples if not sample.name.endswith("_created")}


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bwxauth_\w+", expression))


def labels(expression: str) -> set[str]:
    """Those that are grouped by or matched."""
    grouped = re.findall(r"\bby \(([\w, ]+)\)", expression)
    return {label for group in grouped for label in group.split(", ")} | set(
        re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    )


@expressions
def test_every_metric_that_is_named_is_told(expression: str) -> None:
    """Under exactly this name, suffix and all."""
    assert names(expression)
    assert names(expression) <= exposed().keys()


@expressions
def test_every_label_that_is_named_is_told(expression: str) -> None:
    """By each of the metrics that the expression is about."""
    for name in names(expression):
        assert labels(expression) <= exposed()[name] | BY_PROMETHEUS


def test_every_metric_is_shown() -> None:
    """Of a histogram the buckets are enough."""
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exposed()}
    shown = {re.sub(r"_(total|bucket)$", "", name) for expression in SHOWN.values() for name in names(expression)}
    assert shown == families


@expressions
def test_every_outcome_that_is_named_can_happen(expression: str) -> None:
    """ok, or the code of a problem."""
    matched = re.findall(r'outcome[=!]~?"([^"]+)"', expression)
    outcomes = {outcome for group in matched for outcome in group.split("|")}
    assert outcomes <= {"ok", *(error.code for error in answered())}


@expressions
def test_every_expression_closes_what_it_opens(expression: str) -> None:
    """Brackets, braces and quotes stand in pairs."""
    assert expression.count('"') % 2 == 0
    for left, right in ("()", "[]", "{}"):
        assert expression.count(left) == expression.count(right)


@expressions
def test_a_counter_is_never_shown_bare(expression: str) -> None:
    """It starts at nothing whenever a machine does, so only its growth tells anything."""
    counters = re.findall(r"(\w+)\((wxauth_\w+_(?:total|bucket))", expression)
    assert {function for function, _ in counters} <= {"rate", "increase"}
    assert len(counters) == len(re.findall(r"wxauth_\w+_(?:total|bucket)", expression))


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """A title, a sentence, and the Prometheus that the viewer has chosen."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert {it["datasource"]["uid"] for it in (panel, *panel["targets"])} == {"${datasource}"}


def test_the_viewer_chooses_the_prometheus() -> None:
    """So the file can be imported anywhere, without a line of it changed."""
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource"}


def test_no_panel_lies_on_another() -> None:
    """Each has an id and a place of its own, within the width of the page."""
    places = [panel["gridPos"] for panel in PANELS]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    assert [pair for pair in combinations(places, 2) if overlap(*pair)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def test_there_are_three_alerts() -> None:
    """Logins that fail, Redis held for down, WeChat refusing or silent."""
    assert list(WATCHED) == ["WxauthLoginsFail", "WxauthRedisBreakerOpen", "WxauthWeChatRefusesOrIsSilent"]


@pytest.mark.parametrize("rule", RULES, ids=WATCHED)
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """It waits a while, says how grave it is, what has happened, and what to do."""
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[1-9][0-9]*m", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description"} == set(rule["annotations"])
