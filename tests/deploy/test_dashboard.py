"""The dashboard and the alert rules use metrics of `/metrics` only, and the dashboard shows all of them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.error_classes import answered
from tests.support.service import ROOT
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
#: Labels that Prometheus adds to every sample.
BY_PROMETHEUS = {"instance", "job"}


def exposed() -> dict[str, set[str]]:
    """Return the labels of each of our samples. A label appears after the first count."""
    metrics.LOGINS.labels("ok")
    metrics.CHECKS.labels("ok", "redis")
    metrics.ENDED.labels("logout")
    metrics.USERDATA.labels("decrypt", "newest")
    metrics.PUSHES.labels("other")
    metrics.CLIENT_FAILURES.labels("wrong")
    families = text_string_to_metric_families(metrics.exposition().decode())
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("wxauth_")]
    return {sample.name: set(sample.labels) for sample in samples if not sample.name.endswith("_created")}


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bwxauth_\w+", expression))


def labels(expression: str) -> set[str]:
    """Return the labels that the expression groups by or matches."""
    grouped = re.findall(r"\bby \(([\w, ]+)\)", expression)
    return {label for group in grouped for label in group.split(", ")} | set(
        re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    )


@expressions
def test_each_metric_of_an_expression_exists(expression: str) -> None:
    """With its exact name and suffix."""
    assert names(expression)
    assert names(expression) <= exposed().keys()


@expressions
def test_each_label_of_an_expression_exists(expression: str) -> None:
    for name in names(expression):
        assert labels(expression) <= exposed()[name] | BY_PROMETHEUS


def test_the_dashboard_shows_every_metric() -> None:
    """For a histogram the buckets are enough."""
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exposed()}
    shown = {re.sub(r"_(total|bucket)$", "", name) for expression in SHOWN.values() for name in names(expression)}
    assert shown == families


@expressions
def test_each_outcome_of_an_expression_exists(expression: str) -> None:
    """ok, or the code of a problem."""
    matched = re.findall(r'outcome[=!]~?"([^"]+)"', expression)
    outcomes = {outcome for group in matched for outcome in group.split("|")}
    assert outcomes <= {"ok", *(error.code for error in answered())}


@expressions
def test_brackets_and_quotes_of_an_expression_are_balanced(expression: str) -> None:
    assert expression.count('"') % 2 == 0
    for left, right in ("()", "[]", "{}"):
        assert expression.count(left) == expression.count(right)


@expressions
def test_a_counter_is_used_with_rate_or_increase_only(expression: str) -> None:
    """It is reset at each start, so its value alone has no meaning."""
    counters = re.findall(r"(\w+)\((wxauth_\w+_(?:total|bucket))", expression)
    assert {function for function, _ in counters} <= {"rate", "increase"}
    assert len(counters) == len(re.findall(r"wxauth_\w+_(?:total|bucket)", expression))


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_has_a_title_a_description_and_the_datasource_variable(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert {it["datasource"]["uid"] for it in (panel, *panel["targets"])} == {"${datasource}"}


def test_the_datasource_is_a_variable() -> None:
    """The file can be imported without a change."""
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource"}


def test_panels_do_not_overlap() -> None:
    """Each has its own id, and none is wider than the page."""
    places = [panel["gridPos"] for panel in PANELS]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    assert [pair for pair in combinations(places, 2) if overlap(*pair)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def test_there_are_three_alerts() -> None:
    assert list(WATCHED) == ["WxauthLoginsFail", "WxauthRedisBreakerOpen", "WxauthWeChatRefusesOrIsSilent"]


@pytest.mark.parametrize("rule", RULES, ids=WATCHED)
def test_an_alert_has_a_delay_a_severity_a_summary_and_a_description(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[1-9][0-9]*m", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description"} == set(rule["annotations"])
