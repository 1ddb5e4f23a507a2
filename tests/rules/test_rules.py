"""The rules, asked through promtool; and proof that the promtool tests notice when a rule loses what it promises."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.decide.alerts import Alert
from tests.rules.excerpt import excerpt
from tests.support.engines import run_tool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "rules/memory_pressure.yml"
RULE_TESTS = sorted((ROOT / "tests/rules").glob("*_test.yml"))
RUNBOOKS = "https://github.com/mempressure/mempressure/blob/main/docs/runbooks/"
LEVEL_ALERTS = {f"MemoryPressure{level.capitalize()}": level for level in ALERT_LEVELS.values()}
SEVERITIES = {"warning": "info", "medium": "warning", "high": "critical", "emergency": "critical"}
DEADBAND = re.compile(r' or scope:\S+ >= on \(node\) group_left \(\) \S+, edge="exit"\} and on [^{]+ALERTS\{[^}]+\}')


def rules(key):
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if key in rule]


def alerts():
    return rules("alert")


def literals(expression):
    """Return the numbers of an expression, without those in strings and durations."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    return [float(number) for number in re.findall(r"(?<![\w:.])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b", bare)]


def run_changed(folder, change, *, tests):
    """Run promtool's `tests` on a copy of the rules that they ask for, `change(rule)` applied to each."""
    document = excerpt(*LEVEL_ALERTS, "MemoryPressureThresholdsMissing", "MemoryPressureHeartbeat", "Watchdog")
    every = [rule for group in document["groups"] for rule in group["rules"]]
    for rule in every:
        rule["expr"] = " ".join(rule["expr"].split())
    before = yaml.safe_dump(document)
    for rule in every:
        change(rule)
    assert yaml.safe_dump(document) != before, "the change found nothing to change: bring it in line with the rules"
    (folder / "rules").mkdir()
    (folder / "rules/memory_pressure.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    checked = run_tool("promtool", "check", "rules", folder / "rules/memory_pressure.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (folder / "tests/rules").mkdir(parents=True)
    copies = [shutil.copy(ROOT / f"tests/rules/{name}_test.yml", folder / "tests/rules") for name in tests]
    return run_tool("promtool", "test", "rules", *copies)


def changing(pattern, replacement, *, alert=None):
    def change(rule):
        if alert in {None, rule.get("alert")}:
            rule["expr"] = re.sub(pattern, replacement, rule["expr"])

    return change


def test_the_rules_are_valid():
    done = run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_pass(path):
    assert set(yaml.safe_load(path.read_text())) == {"rule_files", "evaluation_interval", "tests"}
    # promtool 2.42 would take a minute for a test that names no interval.
    assert all("interval" in test for test in yaml.safe_load(path.read_text())["tests"])
    done = run_tool("promtool", "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", LEVEL_ALERTS)
@pytest.mark.parametrize(
    ("pattern", "replacement", "second"),
    [
        pytest.param(DEADBAND, "", "2s", id="no deadband, so not held in the band"),
        pytest.param(r'>=(.*?edge="enter")', r">\1", "1s", id="above enter instead of at or above"),
        pytest.param(r'(enter.*)>=(.*?edge="exit")', r"\1>\2", "3s", id="above exit instead of at or above"),
        pytest.param(r'edge="exit"', 'edge="enter"', "2s", id="left below enter"),
        pytest.param(r" and on [^)]+\) ALERTS\{[^}]+\}", "", "5s", id="in the band without having entered"),
    ],
)
def test_the_life_of_an_alert_is_tested(tmp_path, alert, pattern, replacement, second):
    done = run_changed(tmp_path, changing(pattern, replacement, alert=alert), tests=["memory_pressure"])
    assert done.returncode != 0
    assert re.search(rf"{alert}\S+ time: {second}", done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.parametrize("alert", LEVEL_ALERTS)
@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        pytest.param(r" unless on \(node\) node:mempressure_alerts_enabled:max == 0", "", id="not silenced"),
        pytest.param(r"on \(node, scope, app\)", "on (node)", id="held by another scope"),
        pytest.param(r"on \(node, scope, app\)", "on (scope, app)", id="held by another node"),
        pytest.param(r'alertname="\w+"', 'alertname="Watchdog"', id="held by another alert"),
    ],
)
def test_what_holds_and_silences_an_alert_is_tested(tmp_path, alert, pattern, replacement):
    done = run_changed(
        tmp_path, changing(pattern, replacement, alert=alert), tests=["memory_pressure", "scopes", "settings"]
    )
    assert done.returncode != 0
    assert alert in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("pattern", "replacement", "tests"),
    [
        pytest.param(r"last_over_time\((\w+)\[30s\]\)", r"\1", "gaps", id="gaps are not bridged"),
        pytest.param(r"\[30s\]", "[20s]", "gaps", id="short gaps only"),
        pytest.param(r"\[30s\]", "[5m]", "gaps", id="long gaps too"),
        pytest.param(r"^.*? or on \(job, instance\) ", "", "nodes", id="two names of a node for 30 s"),
        pytest.param("min by", "max by", "nodes", id="the higher of two thresholds"),
        pytest.param("^max by", "min by", "nodes", id="the lower of two usages"),
        pytest.param(r"abs\(", "(", "liveness", id="a clock that runs ahead"),
        pytest.param("< 30", "< 60", "liveness", id="heartbeat of old samples"),
        pytest.param(r" unless on \(node\) ALERTS.*", "", "liveness", id="heartbeat without thresholds"),
        pytest.param("== 8", "> 0", "liveness", id="one threshold missing"),
    ],
)
def test_what_the_alerts_rest_on_is_tested(tmp_path, pattern, replacement, tests):
    done = run_changed(tmp_path, changing(pattern, replacement), tests=[tests])
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr


def test_no_number_of_a_threshold_is_in_the_rules():
    for rule in alerts():
        if rule["alert"] in LEVEL_ALERTS:
            assert literals(rule["expr"]) == [0], "the switch is the only number"
    for rule in [*alerts(), *rules("record")]:
        assert not [number for number in literals(rule["expr"]) if 0 < number < 1], rule
        assert not re.search(r"\b0?\.\d|\d\s*%", " ".join(rule.get("annotations", {}).values())), rule


def test_literals_are_found():
    expression = 'a{b="0.7"} >= 0.8 or last_over_time(c:d2[30s]) > 1e3 unless on (node) e_5:f6 == 0'
    assert literals(expression) == [0.8, 1000, 0]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_tells_people_what_they_need(rule):
    labels, annotations = rule["labels"], rule["annotations"]
    wanted = {"summary", "description", "dashboard", "runbook_url"}
    level = LEVEL_ALERTS.get(rule["alert"])
    of_a_scope = level or rule["alert"] in {"MemoryPressureStalling", "MemoryPressureExhaustionPredicted"}
    assert set(annotations) - {"recommendation"} == (wanted | {"unloaded"} if of_a_scope else wanted)
    assert ("recommendation" in annotations) == bool(level)
    assert labels.get("level") == level
    assert labels["severity"] == (SEVERITIES[level] if level else labels["severity"])
    page = (ROOT / f"docs/runbooks/{rule['alert']}.md").read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_a_page_names_metrics_records_and_alerts_that_there_are(rule):
    page = (ROOT / f"docs/runbooks/{rule['alert']}.md").read_text()
    made = {rule["record"] for rule in rules("record")}
    assert set(re.findall(r"\b[a-z]+:mempressure_\w+:\w+", page)) <= made
    documented = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("metrics", "actuator"))
    bare = re.sub(r"[a-z]+:mempressure_\w+:\w+", "", page)
    for name in re.findall(r"\bmempressure_\w+", bare):
        assert f"`{name}`" in documented, name
    for name in re.findall(r"\bMemoryPressure\w+", page):
        assert name in {rule["alert"] for rule in alerts()}


def test_the_alerts_recommend_what_the_library_does():
    for rule in alerts():
        if level := LEVEL_ALERTS.get(rule["alert"]):
            ours = Alert(level=level, usage=1.0, timestamp=0.0, scope="host", app="")
            assert rule["annotations"]["recommendation"] == ours.recommendation


def test_the_level_alerts_answer_at_once():
    for rule in alerts():
        if rule["alert"] in LEVEL_ALERTS:
            assert not {"for", "keep_firing_for"} & set(rule), "the library has neither"


def test_every_runbook_belongs_to_an_alert():
    assert {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")} == {rule["alert"] for rule in alerts()}


def test_the_alerts_are_evaluated_as_often_as_the_server_evaluates():
    alerting, dashboards = yaml.safe_load(RULES.read_text())["groups"]
    assert "interval" not in alerting, "the server's evaluation_interval holds"
    assert not any("alert" in rule for rule in dashboards["rules"])


def test_every_alert_and_record_is_documented():
    page = (ROOT / "docs/alerts-and-suggestions.md").read_text()
    for rule in [*alerts(), *rules("record")]:
        assert f"`{rule.get('alert') or rule['record']}`" in page, rule
    severities = dict(re.findall(r"^\| \[`(\w+)`\]\(runbooks/\w+\.md\) \| (\w+) \|", page, re.MULTILINE))
    assert severities == {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}


def test_every_alert_leads_to_a_dashboard_that_there_is():
    boards = [json.loads(path.read_text()) for path in (ROOT / "grafana/dashboards").glob("*.json")]
    paths = {f"/d/{board['uid']}" for board in boards}
    assert {rule["annotations"]["dashboard"] for rule in alerts()} <= paths
    # The variables that deploy/alertmanager/slack.tmpl puts into its links.
    for board in boards:
        assert {"node", "app"} <= {variable["name"] for variable in board["templating"]["list"]}
