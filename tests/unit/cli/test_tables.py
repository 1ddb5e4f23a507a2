"""What the subcommands print, from readings given to them."""

import io

import pytest
from rich.console import Console

from mempressure.cli import history, packages, status, thresholds, unload
from mempressure.config.thresholds import Thresholds

MIB = 1 << 20
PACKAGE = {
    "package": "pandas",
    "mechanism": "stop",
    "verdict": "stop",
    "source": "process",
    "processes": 1,
    "waiting_calls": 0,
    "memory_bytes": 70 * MIB,
    "freed_bytes": 90 * MIB,
    "loaded_workers": 2,
    "workers": 3,
    "active_calls": 0,
    "idle_seconds": 300.0,
    "worker_idle_seconds": None,
    "keep_loaded": False,
}
ABSENT = PACKAGE | {
    "package": "sympy",
    "loaded_workers": 0,
    "processes": 0,
    "memory_bytes": 0,
    "freed_bytes": None,
    "verdict": None,
}
ROLE = {
    "title": "gunicorn worker",
    "processes": 3,
    "proportional_bytes": 90 * MIB,
    "private_bytes": 80 * MIB,
    "shared_bytes": 10 * MIB,
    "fresh_bytes": 50 * MIB,
    "late_bytes": None,
    "grown_bytes": 30 * MIB,
    "idle_seconds": 300.0,
}
ADVICE = {
    "kind": "share",
    "action": "share what 3 gunicorn workers load before the fork",
    "code": "mempressure run --manage --share -- COMMAND",
    "rest_bytes": 60 * MIB,
    "peak_bytes": 40 * MIB,
}
APP = {
    "app": "shop",
    "workers": [{}, {}, {}],
    "used": 100 * MIB,
    "limit": 200 * MIB,
    "usage_percent": 0.5,
    "roles": [ROLE],
    "advice": [ADVICE],
}
SCOPE = {
    "scope": "app",
    "app": "shop",
    "total": 200 * MIB,
    "used": 180 * MIB,
    "percent": 90.0,
    "memory_pressure_level": "critical",
    "memory_trend": "increasing",
}
FREE = SCOPE | {"app": "free", "total": None, "percent": None, "memory_pressure_level": None}
ALERT = {"level": "emergency", "message": "It is full", "recommendation": "Act.", "action_required": True}
SETTINGS = {
    "thresholds": Thresholds().as_dict(),
    "hysteresis": 0.05,
    "settings": [
        {"name": name, "value": str(value), "origin": "set through the API"}
        for name, value in Thresholds().as_dict().items()
    ]
    + [
        {"name": "MEMPRESSURE_NODE", "value": "n1", "origin": "environment variable MEMPRESSURE_NODE"},
        {"name": "MEMPRESSURE_LEASE", "value": "150", "origin": "default"},
    ],
}


def printed(parts, *, width=80, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    out = Console(file=file, width=width, highlight=False)
    for part in parts:
        out.print(part)
    file.flush()
    return raw.getvalue().decode(encoding)


def inventory(*apps):
    return {"node": "n1", "apps": list(apps), "check_time": 1.0}


def pressure(**changes):
    return {
        "scopes": [SCOPE],
        "current_alerts": [],
        "optimization_suggestions": [],
        "alerts_enabled": True,
    } | changes


def test_packages_as_a_table():
    text = printed(packages.shown(inventory(APP | {"packages": [ABSENT, PACKAGE]}), source="as told"))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "n1: as told"
    assert lines[2] == "shop: 3 workers, 100.0 of 200.0 MiB, 50.0 %"
    assert [line.split() for line in lines[4:]] == [
        ["pandas", "2/3", "1", "70.0", "MiB", "90.0", "MiB", "5", "min", "stop", "stop"],
        ["sympy", "0/3", "0", "-", "-", "-", "stop", "-"],
    ]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"active_calls": 1}, "in use"),
        ({"active_calls": 4, "waiting_calls": 3}, "3 waiting"),
        ({"processes": 12}, " 12 "),
        ({"idle_seconds": None}, " - "),
        ({"idle_seconds": None, "worker_idle_seconds": 120.0}, "worker 2 min"),
        ({"keep_loaded": True}, "stop (kept)"),
        ({"package": "[red]x[/]"}, "[red]x[/]"),
    ],
)
def test_what_else_a_package_can_be(change, shown):
    assert shown in printed(packages.shown(inventory(APP | {"packages": [PACKAGE | change]}), source=""))


def test_no_app_and_an_app_without_packages():
    assert "No application publishes" in printed(packages.shown(inventory(), source=""))
    assert "No application x publishes" in printed(packages.shown(inventory(), source="", app="x"))
    one = APP | {"workers": [{}], "limit": None, "usage_percent": None, "packages": []}
    text = printed(packages.shown(inventory(one), source=""))
    assert "shop: 1 worker, 100.0 MiB\n" in text
    assert "It has declared no package." in text


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_whatever_the_names(width):
    long = "a_very_long_name_of_something_" * 5
    app = APP | {"app": long, "packages": [PACKAGE | {"package": long, "keep_loaded": True}]}
    told = pressure(scopes=[SCOPE | {"app": long}], current_alerts=[ALERT | {"message": long}])
    text = printed(status.shown(told, inventory(app), SETTINGS, source="x"), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "".join(text.split()).count("something_") >= 15


def test_status_leads_an_app_with_its_roles_and_ends_it_with_advice():
    text = printed(status.shown(pressure(), inventory(APP | {"packages": [PACKAGE]}), SETTINGS, source="x"))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    start = lines.index("shop: 3 workers, 100.0 of 200.0 MiB, 50.0 %")
    assert lines[start + 1 : start + 10] == [
        "role, MiB n PSS private shared fresh late grown idle",
        "gunicorn worker 3 90.0 80.0 10.0 50.0 - 30.0 5 min",
        "",
        "package loaded in n memory frees idle mechanism verdict",
        "pandas 2/3 1 70.0 MiB 90.0 MiB 5 min stop stop",
        "",
        "What to do, and MiB that it is expected to give back:",
        "60 at rest, 40 at the peak: share what 3 gunicorn workers load before the fork",
        "mempressure run --manage --share -- COMMAND",
    ]


def test_status_shows_usage_level_alerts_and_where_settings_came_from():
    told = pressure(scopes=[SCOPE, FREE], current_alerts=[ALERT], alerts_enabled=False)
    text = printed(status.shown(told, inventory(), SETTINGS, source="x"))
    assert f"app shop  {'█' * 13}░  90.0 %  180.0 of 200.0 MiB  critical  increasing" in text
    assert "180.0 MiB           no limit" in text
    assert "emergency: It is full. Act.\n" in text
    assert "Alerts are turned off." in text
    assert "warning                60.0 %      55.0 %   set through the API\n" in text
    assert "MEMPRESSURE_NODE=n1  environment\n" in text
    assert "MEMPRESSURE_LEASE" not in text
    assert "1 other settings have their defaults" in text
    text = printed(status.shown(told, inventory(), SETTINGS, source="x", every_setting=True))
    assert "MEMPRESSURE_LEASE=150  default\n" in text
    assert "have their defaults" not in text


def test_a_terminal_without_blocks_gets_a_bar_all_the_same():
    text = printed(status.shown(pressure(), inventory(), SETTINGS, source="x"), encoding="ascii")
    assert f"{'#' * 13}-" in text


def test_many_suggestions_are_cut():
    many = [{"message": f"m{number}", "recommendation": "do"} for number in range(7)]
    text = printed(status.shown(pressure(optimization_suggestions=many), inventory(), SETTINGS, source="x"))
    assert "- m4. do.\n- and 2 more suggestions" in text


def test_thresholds_say_where_they_are_entered_and_left():
    assert thresholds.lines(SETTINGS)[1] == "warning                60.0 %      55.0 %   set through the API"


RESULT = {
    "app": "shop",
    "package": "pandas",
    "mechanism": "stop",
    "reclaimed_bytes": 70 * MIB,
    "workers": 1,
    "skipped_reason": None,
    "skipped": [],
    "errors": [],
}


@pytest.mark.parametrize(
    ("change", "expected", "left_alone"),
    [
        ({}, ["shop: pandas was unloaded by stop in 1 worker, 70.0 MiB given back"], False),
        ({"workers": 2, "errors": ["e"]}, ["... in 2 workers, 70.0 MiB given back", "  and: e"], True),
        (
            {"workers": 0, "skipped_reason": "in use", "skipped": ["in use", "other"]},
            ["shop: pandas was not unloaded: in use", "  and: other"],
            True,
        ),
        ({"workers": 0, "skipped_reason": "is not loaded"}, ["shop: pandas was not unloaded: is not loaded"], True),
    ],
)
def test_what_became_of_an_unload(change, expected, left_alone):
    told = unload.lines(RESULT | change)
    assert len(told) == len(expected)
    assert all(line.endswith(part.removeprefix("...")) for line, part in zip(told, expected, strict=True))
    assert unload.left_alone(RESULT | change) is left_alone


def test_a_cycle_with_what_was_done():
    action = {
        "app": "shop",
        "mechanism": "recycle",
        "packages": ["sympy", "pandas"],
        "reason": "unused for 11 s",
        "result": "done",
        "reclaimed_bytes": 70 * MIB,
        "workers": 2,
        "skipped": ["busy"],
        "errors": [],
        "notes": [],
        "duration_seconds": 1.5,
    }
    cycle = {
        "scope": "app",
        "app": "shop",
        "trigger": "webhook",
        "strategy": "high",
        "started": 0.0,
        "usage_before": 0.9,
        "usage_after": 0.5,
        "outcome": "relieved",
        "actions": [action, action | {"mechanism": "trim", "packages": [], "workers": 0, "result": "skipped"}],
    }
    dry = action | {"result": "dry_run", "workers": 0, "skipped": ["dry run"], "expected_bytes": 30 * MIB}
    custom = {"app": "", "mechanism": "custom", "packages": ["page"], "reason": "http at level high", "workers": 1}
    notes = ["worker 7: drop gave back 12.0 MiB", "worker 8: on_pressure callback drop failed: ValueError: no"]
    calls = {"mechanism": "callbacks", "packages": [], "reason": "at level high", "notes": notes, "skipped": []}
    cycle["actions"] += [dry, action | custom | {"skipped": []}, action | calls]
    lines = printed(history.shown(cycle)).splitlines()
    text = " ".join(" ".join(lines).split())
    assert "callbacks in shop: done in 2 workers, 70.0 MiB back in 1.5 s (at level high) worker 7: drop" in text
    assert [line for line in lines if line.startswith("    worker ")] == [f"    {note}" for note in notes]
    assert "recycle sympy, pandas in shop: dry run, 30.0 MiB expected in 1.5 s (unused for 11 s) custom" in text
    assert "custom page: done in 1.5 s (http at level high)" in text
    assert "app shop 90.0 % -> 50.0 % relieved webhook, high" in text
    assert "recycle sympy, pandas in shop: done in 2 workers, 70.0 MiB back in 1.5 s (unused for 11 s): busy" in text
    assert "trim in shop: skipped in 1.5 s" in text


def test_a_kill_with_why_nothing_helped():
    numbers = {"started": 0.0, "usage_before": 0.95, "usage_after": 0.95, "actions": []}
    said = {"scope": "app", "app": "shop", "trigger": "oom_kill", "strategy": "", "outcome": "reported", "reason": ""}
    skips = [{"app": "shop", "package": "", "reason": "no alert had arrived"}]
    text = " ".join(printed(history.shown(numbers | said | {"skips": skips})).split())
    assert "app shop 95.0 % -> 95.0 % reported oom_kill no alert had arrived" in text


def test_a_cycle_that_did_nothing_says_why():
    cycle = {
        "scope": "host",
        "app": "",
        "trigger": "webhook",
        "strategy": "",
        "started": 0.0,
        "usage_before": 0.7,
        "usage_after": 0.7,
        "outcome": "skipped",
        "reason": "every loaded package is left alone",
        "actions": [],
        "skips": [{"app": "shop", "package": "pandas", "reason": "is in use"}],
    }
    text = " ".join(printed(history.shown(cycle)).split())
    assert "host 70.0 % -> 70.0 % skipped webhook every loaded package is left alone pandas in shop: is in use" in text
