"""What a dashboard names and has to exist: ids of Grafana's, variables, metrics, columns, panels, other dashboards."""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import yaml
from prometheus_client.metrics_core import Metric
from promql_parser import VectorSelector

from mempressure.config.thresholds import THRESHOLD_NAMES
from mempressure_actuator.metrics import Metrics
from mempressure_exporter.metrics import FAMILIES
from stack.configuration import RULES_FILE
from tests.support.dashboards import document
from tests.support.dashboards.document import (
    annotations,
    load,
    metric,
    panels,
    parsed,
    queries,
    used_variables,
    variables,
    walk,
)
from tests.support.dashboards.ids import IDS
from tests.support.dashboards.linter import has_matcher

PANELS = {"stat", "timeseries", "table", "bargauge", "row"}
BUILT_IN = {"__all", "__rate_interval", "__range", "__url_time_range", "__field", "__value"}
OF_ENGINES = re.compile(r"up|scrape_\w+|process_\w+|prometheus_\w+|alertmanager_\w+|ALERTS")
"""Metrics of the engines and of prometheus-client; that they exist is the end-to-end test's to see."""


def problems(dashboard: dict[str, Any]) -> list[str]:
    """Return every name in a dashboard that nothing answers to, and every panel that stands in another's way."""
    checks = (_ids, _grid, _variables, _metrics, _nodes, _overrides, _marked_panels, _links, _no_values)
    return [problem for check in checks for problem in check(dashboard)]


def _ids(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        if panel["type"] not in PANELS:
            yield f"panel type {panel['type']}"
        for kind, name in _names_in(panel):
            if name not in IDS[kind]:
                yield f"{panel['title']}: {name} is none of Grafana's {kind}"


def _names_in(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the kind of each of Grafana's names in a panel, and the name."""
    configuration = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
    properties = [*configuration["defaults"].items()]
    for override in configuration["overrides"]:
        yield "matchers", override["matcher"]["id"]
        properties += [(each["id"], each["value"]) for each in override["properties"]]
    for key, value in properties:
        if key == "unit":
            yield "units", value
        if key == "color":
            yield "colorModes", value["mode"]
    options = panel.get("options", {})
    for name in (*options.get("reduceOptions", {}).get("calcs", ()), *options.get("legend", {}).get("calcs", ())):
        yield "reducers", name
    for transformation in panel.get("transformations", ()):
        yield "transformers", transformation["id"]


def _grid(dashboard: dict[str, Any]) -> Iterator[str]:
    counts = Counter(panel["id"] for panel in panels(dashboard))
    yield from (f"{count} panels have the id {number}" for number, count in counts.items() if count > 1)
    for group in (dashboard["panels"], *(panel.get("panels", ()) for panel in dashboard["panels"])):
        for panel in group:
            if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24:
                yield f"{panel['title']} is wider than the grid's 24 columns"
        yield from (
            f"{one['title']} lies over {two['title']}" for one, two in combinations(group, 2) if _overlap(one, two)
        )


def _overlap(one: dict[str, Any], two: dict[str, Any]) -> bool:
    left, right = one["gridPos"], two["gridPos"]
    return all(
        left[start] < right[start] + right[size] and right[start] < left[start] + left[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def _variables(dashboard: dict[str, Any]) -> Iterator[str]:
    known = {variable["name"] for variable in variables(dashboard)} | BUILT_IN
    for place in (dashboard["panels"], dashboard["templating"]["list"], annotations(dashboard)):
        yield from (f"variable {name} is not defined" for name in sorted(used_variables(str(place)) - known))


@functools.cache
def recorded() -> set[str]:
    """Return the names of the series that the rules record."""
    rules = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]
    return {rule["record"] for rule in rules if "record" in rule}


@functools.cache
def _exposed() -> set[str]:
    """Return the names of the series of the exporter and the actuator."""
    families: list[Metric] = list(Metrics(node="n1", leases=lambda: 0, queue_length=lambda: 0).registry.collect())
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}
    of_actuator = {family.name + suffix for family in families for suffix in suffixes[family.type]}
    return of_actuator | {family.name for family in FAMILIES}


def _selectors(dashboard: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    asked = [(query.where, query.expr) for query in queries(dashboard)]
    for variable in variables(dashboard, "query"):
        values = document.label_values(variable)
        asked += [(f"variable {variable['name']}", values[0])] if values else []
    for where, expr in asked:
        try:
            nodes = [node for node, _ in walk(parsed(expr, dashboard))]
        except ValueError:
            continue  # the linter's rule finds it
        yield from ((where, node) for node in nodes if isinstance(node, VectorSelector))


def _metrics(dashboard: dict[str, Any]) -> Iterator[str]:
    known = _exposed() | recorded()
    for where, selector in _selectors(dashboard):
        pattern = re.compile(metric(selector))
        if not OF_ENGINES.fullmatch(metric(selector)) and not any(pattern.fullmatch(name) for name in known):
            yield f"{where}: nothing exposes or records {metric(selector)}"


def _nodes(dashboard: dict[str, Any]) -> Iterator[str]:
    """What Prometheus makes has no instance: the variable `node`, which follows the instances, chooses there."""
    for where, selector in _selectors(dashboard):
        if (metric(selector) == "ALERTS" or ":" in metric(selector)) and not has_matcher(selector, "node", "$node"):
            yield f"{where}: {metric(selector)} is not chosen by node"


def _overrides(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        names = [target.get("legendFormat", "") for target in panel.get("targets", ())]
        for transformation in panel.get("transformations", ()):
            names += transformation["options"].get("renameByName", {}).values()
        # A label's values are not known here; those of the thresholds are.
        names += THRESHOLD_NAMES if "{{threshold}}" in names else []
        names += [f"alert {level}" for level in ("warning", "medium", "high", "emergency")]
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            matcher, wanted = override["matcher"]["id"], override["matcher"]["options"]
            pattern = wanted.strip("/") if matcher == "byRegexp" else re.escape(wanted)
            found = [name for name in names if (re.search if matcher == "byRegexp" else re.fullmatch)(pattern, name)]
            if not found:
                yield f"{panel['title']}: an override is for {wanted}, which nothing there is called"


def _marked_panels(dashboard: dict[str, Any]) -> Iterator[str]:
    graphs = {panel["id"] for panel in panels(dashboard) if panel["type"] == "timeseries"}
    for annotation in annotations(dashboard):
        if not set(annotation["filter"]["ids"]) <= graphs or not annotation["filter"]["ids"]:
            yield f"{annotation['name']} marks panels that are no graphs"


def _links(dashboard: dict[str, Any]) -> Iterator[str]:
    known = {load(name)["uid"] for name in document.NAMES}
    for uid in re.findall(r"'/d/([\w-]+)", str(dashboard)):
        if uid not in known:
            yield f"a link leads to {uid}, which is none of the dashboards"


def _no_values(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        if "targets" in panel and not panel["fieldConfig"]["defaults"].get("noValue"):
            yield f"{panel['title']} does not say what is missing when it has no data"
