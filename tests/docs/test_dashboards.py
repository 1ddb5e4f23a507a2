"""Grafana's dashboards: dashboard-linter's rules, and that all they name exists; each check finds a planted mistake."""

import copy
import re

import pytest
import yaml

from stack.configuration import PROMETHEUS_FILE
from tests.support.dashboards import references, sdk
from tests.support.dashboards.document import DIRECTORY, NAMES, find, load, panels, variables
from tests.support.dashboards.linter import RULES, lint

PROVISIONING = DIRECTORY.parent / "provisioning"
RECORDED = "what Prometheus makes of several instances has none; it is chosen by node, as references.py checks"
ENGINES = "the engines that carry alerts are scraped by jobs of their own, and one alert may pass through any of them"
EXCLUSIONS = {
    (rule, subject): reason
    for rule in ("target-job-rule", "target-instance-rule")
    for subject, reason in ((r"ALERTS|\w+:\w+:\w+", RECORDED), (r"(prometheus|alertmanager)_\w+", ENGINES))
}
"""Rule and metric, and why the rule does not hold there."""


def excluded(finding):
    return [key for key in EXCLUSIONS if key[0] == finding.rule and re.fullmatch(key[1], finding.subject)]


def broken_rules(dashboard):
    return [(finding.rule, finding.where) for finding in lint(dashboard) if not excluded(finding)]


CHECKS = {
    **dict.fromkeys(RULES, broken_rules),
    "sdk": lambda dashboard: [("sdk", problem) for problem in sdk.problems(dashboard)],
    "references": lambda dashboard: [("references", problem) for problem in references.problems(dashboard)],
}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_in_a_dashboard(name):
    dashboard = load(name)
    assert [found for check in set(CHECKS.values()) for found in check(dashboard)] == []


def test_all_seventeen_rules_are_here_and_every_exclusion_is_needed():
    assert len(RULES) == 17
    used = [key for name in NAMES for finding in lint(load(name)) for key in excluded(finding)]
    assert set(used) == set(EXCLUSIONS)


def test_there_are_three_dashboards_with_names_of_their_own():
    dashboards = [load(name) for name in NAMES]
    assert [each["uid"] for each in dashboards] == [
        f"mempressure-{name}" for name in ("actuator", "overview", "packages")
    ]
    assert len({each["title"] for each in dashboards}) == 3
    assert all(each["schemaVersion"] >= 36 for each in dashboards)


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_begins_with_stalls_ends_in_collapsed_rows_and_says_what_is_missing(name):
    dashboard = load(name)
    top = [panel for panel in dashboard["panels"] if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in top} == {"stat"}
    assert (top[0]["title"], top[-1]["title"]) == ("Memory stalls", "Data")
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    assert dashboard["panels"][-len(rows) :] == rows
    assert all(row["collapsed"] and row["panels"] for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_missing_has_its_words(name):
    panel = find(load(name), "Data")
    (target,), (mapping,) = panel["targets"], panel["fieldConfig"]["defaults"]["mappings"]
    causes = target["expr"].count("absent(")
    assert [int(value) for value in mapping["options"]] == list(range(causes + 1))
    words = [option["text"] for option in mapping["options"].values()]
    assert words[0] == "All there"
    assert len(set(words)) == len(words)


def test_thresholds_are_drawn_dashed_from_their_series_and_their_numbers_are_nowhere():
    panel = find(load("overview"), "Usage against the thresholds")
    dashed = [
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "custom.lineStyle" and each["value"]["fill"] == "dash"
    ]
    assert dashed == list(references.THRESHOLD_NAMES)
    for name in NAMES:
        steps = re.findall(r"'value': (0\.\d+)", str(load(name)))
        assert steps == [], "a number between 0 and 1 would be a threshold's"


def test_provisioning_names_the_data_source_that_the_dashboards_choose():
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    for name in NAMES:
        (variable,) = variables(load(name), "datasource")
        assert variable["current"] == {"text": source["name"], "value": source["uid"]}
    interval = yaml.safe_load(PROMETHEUS_FILE.read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_provisioning_finds_the_dashboards_where_compose_mounts_them():
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "mempressure.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"] == {"path": "/var/lib/grafana/dashboards"}
    assert provider["allowUiUpdates"] is False


def usage(dashboard):
    return find(dashboard, "Usage against the thresholds")


def first(dashboard, panel_type):
    return next(panel for panel in panels(dashboard) if panel["type"] == panel_type)


def variable(dashboard, name):
    return next(each for each in variables(dashboard) if each["name"] == name)


def target(dashboard):
    return find(dashboard, "Memory stalls")["targets"][0]


def defaults(dashboard):
    return usage(dashboard)["fieldConfig"]["defaults"]


def expression(text):
    return lambda dashboard: target(dashboard).update(expr=text)


SELECTED = '{job=~"$job", instance=~"$instance"}'

MISTAKES = {
    "no data source variable": ("template-datasource-rule", lambda d: variables(d)[0].update(label="Source")),
    "job is not multi": ("template-job-rule", lambda d: variable(d, "job").update(multi=False)),
    "instance matches nothing": ("template-instance-rule", lambda d: variable(d, "instance").pop("allValue")),
    "label_values misspelt": (
        "template-label-promql-rule",
        lambda d: variable(d, "app")["query"].update(query="label_value(mempressure_app_workers, app)"),
    ),
    "no reload on time change": ("template-on-time-change-reload-rule", lambda d: variable(d, "app").update(refresh=1)),
    "another data source": ("panel-datasource-rule", lambda d: usage(d)["datasource"].update(uid="gone")),
    "a target's other data source": ("panel-datasource-rule", lambda d: target(d)["datasource"].update(uid="gone")),
    "no description": ("panel-title-description-rule", lambda d: usage(d).update(description="")),
    "unknown unit": ("panel-units-rule", lambda d: defaults(d).update(unit="bogus")),
    "no targets": ("panel-no-targets-rule", lambda d: usage(d).update(targets=[])),
    "a query of Loki": ("target-logql-rule", lambda d: target(d)["datasource"].update(type="loki")),
    "a range of Loki's": ("target-logql-auto-rule", lambda d: target(d)["datasource"].update(type="loki")),
    "no PromQL": ("target-promql-rule", expression("rate((")),
    "a fixed range": (
        "target-rate-interval-rule",
        expression(f"rate(mempressure_host_pressure_waiting_seconds_total{SELECTED}[5m])"),
    ),
    "no job": ("target-job-rule", expression('mempressure_host_swap_used_ratio{instance=~"$instance"}')),
    "no instance": ("target-instance-rule", expression('mempressure_host_swap_used_ratio{job=~"$job"}')),
    "a bare counter": ("target-counter-agg-rule", expression(f"mempressure_series_dropped_total{SELECTED}")),
    "editable": ("uneditable-dashboard", lambda d: d.update(editable=True)),
    "unknown key of the dashboard": ("sdk", lambda d: d.update(tittle="x")),
    "unknown option": ("sdk", lambda d: first(d, "stat")["options"].update(colourMode="value")),
    "unknown style": ("sdk", lambda d: defaults(d)["custom"].update(drawStyle="zigzag")),
    "misspelt custom key": ("sdk", lambda d: defaults(d)["custom"].update(lineWdith=2)),
    "unknown colour mode of a stat": ("sdk", lambda d: first(d, "stat")["options"].update(colorMode="rainbow")),
    "a number as text": ("sdk", lambda d: d.update(schemaVersion="39")),
    "unknown format": ("sdk", lambda d: target(d).update(format="tabel")),
    "unknown mapping": (
        "sdk",
        lambda d: find(d, "Level")["fieldConfig"]["defaults"]["mappings"][0].update(type="vlaue"),
    ),
    "unknown kind of variable": ("sdk", lambda d: variable(d, "job").update(type="qery")),
    "a threshold as text": (
        "sdk",
        lambda d: find(d, "Level")["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(value="1"),
    ),
    "unknown panel": ("references", lambda d: usage(d).update(type="timeserie")),
    "unknown reducer": ("references", lambda d: first(d, "stat")["options"]["reduceOptions"].update(calcs=["lastest"])),
    "unknown reducer of a legend": ("references", lambda d: usage(d)["options"]["legend"].update(calcs=["lastest"])),
    "unknown transformer": ("references", lambda d: first(d, "table")["transformations"][0].update(id="mergee")),
    "unknown matcher": (
        "references",
        lambda d: usage(d)["fieldConfig"]["overrides"][0]["matcher"].update(id="byNamee"),
    ),
    "unknown colour": ("references", lambda d: defaults(d)["color"].update(mode="rainbow")),
    "unknown unit of an override": (
        "references",
        lambda d: first(d, "table")["fieldConfig"]["overrides"][0]["properties"][0].update(id="unit", value="bogus"),
    ),
    "an override for nothing": (
        "references",
        lambda d: first(d, "table")["fieldConfig"]["overrides"][0]["matcher"].update(options="Usde"),
    ),
    "one id twice": ("references", lambda d: usage(d).update(id=1)),
    "too wide": ("references", lambda d: usage(d)["gridPos"].update(w=30)),
    "one over the other": ("references", lambda d: usage(d)["gridPos"].update(y=0)),
    "unknown variable": ("references", expression('mempressure_host_swap_used_ratio{job=~"$jobs"}')),
    "unknown metric": ("references", expression(f"mempressure_host_swap_used{SELECTED}")),
    "unknown metric of a variable": (
        "references",
        lambda d: variable(d, "app")["query"].update(query="label_values(mempressure_apps_workers, app)"),
    ),
    "a record without its node": ("references", expression("max(scope:mempressure_used:ratio)")),
    "marks on no graph": ("references", lambda d: d["annotations"]["list"][1]["filter"].update(ids=[1])),
    "a link to nowhere": ("references", lambda d: d["links"][0].update(url="/d/mempressure-packags")),
    "silence without data": ("references", lambda d: defaults(d).pop("noValue")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake):
    check, plant = MISTAKES[mistake]
    dashboard = copy.deepcopy(load("overview"))
    plant(dashboard)
    assert check in [name for name, _ in CHECKS[check](dashboard)]


def test_every_rule_has_its_planted_mistake():
    assert set(RULES) <= {check for check, _ in MISTAKES.values()}
