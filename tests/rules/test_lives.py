"""Every alert at six moments of its life, asked through promtool; and that each moment notices when a rule changes."""

import re

import pytest
import yaml

from tests.rules.excerpt import RULES, excerpt
from tests.rules.lives import FIRING, LIVES, MOMENTS
from tests.support.engines import run_tool

GOOD_WHILE_THEY_FIRE = {
    "MemoryPressureHeartbeat": "fires in the good case and has no band; tests/rules/liveness_test.yml has its life",
    "Watchdog": "always fires: it has no life",
}


def run(folder, alert, content, moments=MOMENTS):
    """Run promtool on moments of one alert."""
    rules = folder / "rules.yml"
    rules.write_text(yaml.safe_dump(content, sort_keys=False))
    life = LIVES[alert]
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{life.seconds}s",
        "tests": [life.test(alert, moment) for moment in moments],
    }
    path = folder / "lives_test.yml"
    path.write_text(yaml.safe_dump(test, width=9999))
    return run_tool("promtool", "test", "rules", path)


def test_every_alert_has_its_six_moments():
    content = yaml.safe_load(RULES.read_text())
    alerts = {rule["alert"] for group in content["groups"] for rule in group["rules"] if "alert" in rule}
    assert set(LIVES) == alerts - set(GOOD_WHILE_THEY_FIRE)
    assert set(GOOD_WHILE_THEY_FIRE) <= alerts
    for alert, life in LIVES.items():
        assert tuple(life.moments) == MOMENTS, alert
        assert [moment for moment in MOMENTS[:-1] if life.fires(moment)] == list(FIRING), alert


@pytest.mark.parametrize("alert", LIVES)
def test_at_six_moments(tmp_path, alert):
    done = run(tmp_path, alert, excerpt(alert))
    assert done.returncode == 0, done.stdout + done.stderr


BAND = r" or [^|]*?ALERTS\{alertname=\"MemoryPressure\w+\", alertstate=\"firing\"\}"
HELD = r" and on \([^)]*\) ALERTS\{alertname=\"MemoryPressure\w+\", alertstate=\"firing\"\}"
CHANGES = {
    "MemoryPressureStalling": [
        (">= 6 / 60", ">= 3 / 60", "not yet"),
        (">= 6 / 60", ">= 9 / 60", "fires"),
        (BAND, "", "holds in the band"),
        (HELD, "", "never entered"),
        (">= 3 / 60", ">= 1 / 60", "resolves"),
    ],
    "MemoryPressureExhaustionPredicted": [
        ("for 2m", "for 1m", "not yet"),
        ("< 900", "< 700", "fires"),
        ("< 1800", "< 1000", "holds in the band"),
        (HELD, "", "never entered"),
        ("< 1800", "< 9000", "resolves"),
    ],
    "MemoryPressureThresholdsMissing": [
        ("== 8", "> 8", "not yet"),
        ("== 8", ">= 7", "fires"),
        ("== 8", "== 6", "never entered"),
    ],
    "MemoryPressureExporterDown": [
        ("for 30s", "for 29s", "not yet"),
        ("== 0 or min_over_time", "> 1 or min_over_time", "fires"),
        (r"min_over_time\(up(\{[^}]*\})\[30s\]\)", r"up\1", "holds in the band"),
        (HELD, "", "never entered"),
        (r"\[30s\]", "[2m]", "resolves"),
        (r" or absent\(.*?\)", "", "data missing"),
    ],
    "MemoryPressureActuatorDown": [
        ("for 30s", "for 29s", "not yet"),
        ("for 30s", "for 31s", "fires"),
        (r"min_over_time\(up(\{[^}]*\})\[30s\]\)", r"up\1", "holds in the band"),
        (HELD, "", "never entered"),
        (r"\[30s\]", "[2m]", "resolves"),
        (r" or absent\(.*?\)", "", "data missing"),
    ],
    "MemoryPressureDataStale": [
        (">= 30", ">= 29", "not yet"),
        (">= 30", ">= 31", "fires"),
        (">= 15", ">= 29", "holds in the band"),
        (HELD, "", "never entered"),
        (">= 15", ">= 5", "resolves"),
        (r" or max by.*?(?= for )", "", "data missing"),
    ],
    "MemoryPressureActionFailed": [
        (">= 3", ">= 2", "not yet"),
        (">= 3", ">= 4", "fires"),
        (BAND, "", "holds in the band"),
        (HELD, "", "never entered"),
        (">= 1", ">= 0", "resolves"),
    ],
    "MemoryPressureNotificationsFailing": [
        ("for 3m", "for 2m", "not yet"),
        ("> 0 or", "> 9 or", "fires"),
        (r"\[5m\]", "[1m]", "holds in the band"),
        (HELD, "", "never entered"),
        (r"\[5m\]", "[9m]", "resolves"),
    ],
}


def changed(pattern, replacement, *, alert):
    """Return the rules with one alert's expression and `for`, written after it, changed."""
    content = excerpt(alert)
    (rule,) = (rule for rule in content["groups"][0]["rules"] if rule.get("alert") == alert)
    before = " ".join(rule["expr"].split()) + f" for {rule.get('for', '0s')}"
    after = re.sub(pattern, replacement, before)
    assert after != before, f"{pattern!r} is not in {before}: bring it in line with the rules"
    rule["expr"], _, rule["for"] = after.rpartition(" for ")
    return content


@pytest.mark.parametrize(
    ("alert", "pattern", "replacement", "moment"),
    [
        pytest.param(alert, *change, id=f"{alert}: {change[2]}")
        for alert, changes in CHANGES.items()
        for change in changes
    ],
)
def test_a_moment_notices(tmp_path, alert, pattern, replacement, moment):
    done = run(tmp_path, alert, changed(pattern, replacement, alert=alert), [moment])
    assert done.returncode != 0
    assert "exp:" in done.stdout + done.stderr, "it is this moment that differs, not a rule that cannot be loaded"
