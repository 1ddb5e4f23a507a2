"""The 17 rules of dashboard-linter, which is written in Go: github.com/grafana/dashboard-linter, docs/index.md.

As of its commit 4d0844b of June 2026. Where it looks at some types of panel only, these look at all that have queries.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from promql_parser import Call, MatrixSelector, VectorSelector

from tests.support.dashboards.document import (
    RATE_INTERVAL,
    label_values,
    metric,
    panels,
    parsed,
    variables,
    walk,
)
from tests.support.dashboards.ids import IDS

Dashboard = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that does not hold; `subject` is the metric where the rule is about one."""

    rule: str
    where: str
    subject: str = ""


RULES: dict[str, Callable[[Dashboard], Iterator[tuple[str, str]]]] = {}


def lint(dashboard: Dashboard) -> list[Finding]:
    """Return what the rules find."""
    return [Finding(name, *found) for name, rule in RULES.items() for found in rule(dashboard)]


def _rule(name: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        RULES[name] = function
        return function

    return register


def _with_queries(dashboard: Dashboard) -> list[Dashboard]:
    return [panel for panel in panels(dashboard) if panel["type"] not in ("row", "text")]


def _trees(dashboard: Dashboard) -> Iterator[tuple[str, Any]]:
    """Yield each target's place and syntax tree; what cannot be parsed is another rule's."""
    for panel in _with_queries(dashboard):
        for target in panel["targets"]:
            try:
                yield f"{panel['title']} {target['refId']}", parsed(target["expr"], dashboard)
            except ValueError:
                continue


@_rule("template-datasource-rule")
def _template_datasource(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    found = [(each["name"], each["label"], each["query"]) for each in variables(dashboard, "datasource")]
    if found != [("datasource", "Data source", "prometheus")]:
        yield f"data sources {found}", ""


def _template(dashboard: Dashboard, name: str) -> Iterator[tuple[str, str]]:
    found = [each for each in variables(dashboard, "query") if each["name"] == name]
    expected = {"label": name.title(), "multi": True, "allValue": ".+"}
    if not found:
        yield f"no variable {name}", ""
    elif {key: found[0].get(key) for key in expected} != expected or found[0]["datasource"]["uid"] != "${datasource}":
        yield f"variable {name}", ""


@_rule("template-job-rule")
def _template_job(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    yield from _template(dashboard, "job")


@_rule("template-instance-rule")
def _template_instance(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    yield from _template(dashboard, "instance")


@_rule("template-label-promql-rule")
def _template_label(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for variable in variables(dashboard, "query"):
        asked = label_values(variable)
        try:
            understood = asked is not None and isinstance(parsed(asked[0], dashboard), VectorSelector)
        except ValueError:
            understood = False
        if not understood:
            yield f"variable {variable['name']}", ""


@_rule("template-on-time-change-reload-rule")
def _template_reload(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for variable in variables(dashboard, "query"):
        if variable["refresh"] != 2:
            yield f"variable {variable['name']}", ""


@_rule("panel-datasource-rule")
def _panel_datasource(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in _with_queries(dashboard):
        for place in (panel, *panel.get("targets", ())):
            if place["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                yield f"{panel['title']} {place.get('refId', '')}", ""


@_rule("panel-title-description-rule")
def _panel_title(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in _with_queries(dashboard):
        if not panel["title"] or not panel.get("description"):
            yield f"panel {panel['id']} {panel['title']}", ""


@_rule("panel-units-rule")
def _panel_units(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in _with_queries(dashboard):
        if panel["fieldConfig"]["defaults"].get("unit") not in IDS["units"]:
            yield panel["title"], ""


@_rule("panel-no-targets-rule")
def _panel_targets(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in _with_queries(dashboard):
        if not panel["targets"]:
            yield panel["title"], ""


def _loki(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in _with_queries(dashboard):
        for target in panel["targets"]:
            if target["datasource"]["type"] == "loki":
                yield f"{panel['title']} {target['refId']}", ""


@_rule("target-logql-rule")
def _target_logql(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """Find any query of Loki: these dashboards have none, so nothing here can parse one."""
    yield from _loki(dashboard)


@_rule("target-logql-auto-rule")
def _target_logql_auto(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """Find any query of Loki, as above."""
    yield from _loki(dashboard)


@_rule("target-promql-rule")
def _target_promql(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in _with_queries(dashboard):
        for target in panel["targets"]:
            try:
                parsed(target["expr"], dashboard)
            except ValueError as error:
                yield f"{panel['title']} {target['refId']}: {error}", ""


@_rule("target-rate-interval-rule")
def _target_rate_interval(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for where, tree in _trees(dashboard):
        for node, parents in walk(tree):
            if isinstance(node, MatrixSelector) and f"{node.range.total_seconds():.0f}s" != RATE_INTERVAL:
                called = parents[-1].func.name if parents and isinstance(parents[-1], Call) else ""
                if called in ("rate", "irate", ""):
                    yield where, metric(node.vector_selector)


def _matcher(dashboard: Dashboard, label: str) -> Iterator[tuple[str, str]]:
    for where, tree in _trees(dashboard):
        for node, _ in walk(tree):
            if isinstance(node, VectorSelector) and not has_matcher(node, label, f"${label}"):
                yield where, metric(node)


def has_matcher(selector: Any, label: str, value: str) -> bool:
    """Return whether a selector has this matcher by regular expression."""
    return any(
        (each.name, str(each.op), each.value) == (label, "MatchOp.Re", value) for each in selector.matchers.matchers
    )


@_rule("target-job-rule")
def _target_job(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    yield from _matcher(dashboard, "job")


@_rule("target-instance-rule")
def _target_instance(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    yield from _matcher(dashboard, "instance")


@_rule("target-counter-agg-rule")
def _target_counter(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for where, tree in _trees(dashboard):
        for node, parents in walk(tree):
            if isinstance(node, VectorSelector) and metric(node).endswith("_total"):
                call = parents[-2] if len(parents) >= 2 and isinstance(parents[-1], MatrixSelector) else None
                if not isinstance(call, Call) or call.func.name not in ("rate", "irate", "increase"):
                    yield where, metric(node)


@_rule("uneditable-dashboard")
def _uneditable(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    if dashboard.get("editable") is not False:
        yield "dashboard", ""
