import pytest

from mempressure.config.thresholds import Thresholds
from mempressure_actuator.blackbox.report import Evidence, Kill, crossings, make_report
from mempressure_actuator.inbox.leases import Lease

NOW = 1000.0
RISING = ((990.0, 0.5), (995.0, 0.82), (999.0, 0.97))


def lease(opened=996.0, app="shop", level="high", expires=1100.0):
    return Lease(scope="app", app=app, level=level, fingerprint="f", starts_at=1, opened=opened, expires=expires)


def cycle(*actions, started=997.0, app="shop", scope="app", skips=()):
    return {
        "id": "1",
        "scope": scope,
        "app": app,
        "trigger": "webhook",
        "strategy": "high",
        "started": started,
        "ended": started + 1,
        "outcome": "futile",
        "usage_after": 0.9,
        "actions": list(actions),
        "skips": [{"app": app, "package": "pandas", "reason": reason} for reason in skips],
    }


def action(result="done", *, reclaimed=10, mechanism="stop", skipped=(), errors=()):
    return {
        "mechanism": mechanism,
        "packages": ["pandas"],
        "result": result,
        "reclaimed_bytes": reclaimed,
        "started": 997.1,
        "duration_seconds": 0.2,
        "skipped": list(skipped),
        "errors": list(errors),
    }


def report(usages=RISING, leases=(), cycles=(), scope="app", app="shop"):
    evidence = Evidence(usages=usages, held={"x": 1}, leases=leases, cycles=cycles, thresholds=Thresholds())
    return make_report(Kill(scope=scope, app=app, cgroup="/c", count=1, detected=NOW), evidence)


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        ({"usages": ()}, ["nothing was measured before"]),
        ({"usages": ((800.0, 0.99),)}, ["nothing was measured before"]),  # too long ago
        ({"usages": ((999.0, 0.5),)}, ["usage was 0.50 when it was last measured, 1.0 s before: it rose faster"]),
        ({}, ["unload_packages was entered 5.0 s before, and no alert had arrived"]),
        ({"leases": [lease()]}, ["an alert had arrived 4.0 s before, and no cycle found anything"]),
        ({"leases": [lease(app="till")]}, ["unload_packages was entered 5.0 s before, and no alert had arrived"]),
        (
            {"leases": [lease()], "cycles": [cycle(action(), action(reclaimed=5))]},
            [
                "2 actions gave back 15 bytes, and more than that was allocated",
                "unload_packages was entered 5.0 s before",
            ],
        ),
        (
            {"cycles": [cycle(action("skipped", skipped=["worker 7: is in use"]), skips=["is kept loaded"])]},
            ["left alone: worker 7: is in use", "left alone: pandas is kept loaded", "unload_packages was entered"],
        ),
        ({"cycles": [cycle(action("failed", errors=["no agent"]))]}, ["left alone: no agent", "unload_packages was"]),
        (
            {"cycles": [cycle(action("dry_run", skipped=["dry run"]))]},
            ["actions were not carried out: it is a dry run", "unload_packages was entered"],
        ),
        ({"cycles": [cycle(action(), app="till")]}, ["unload_packages was entered 5.0 s before, and no alert"]),
        ({"cycles": [cycle(action(), app="", scope="host")]}, ["1 actions gave back 10 bytes", "unload_packages was"]),
        ({"cycles": [cycle(action(), started=100.0)]}, ["unload_packages was entered 5.0 s before, and no alert"]),
    ],
)
def test_why_it_came_too_late(evidence, why):
    found = report(**evidence)["why"]
    assert len(found) == len(why)
    assert all(line.startswith(start) for line, start in zip(found, why, strict=True)), found


def test_the_timeline_is_in_order():
    found = report(leases=[lease()], cycles=[cycle(action())])
    assert [(event["time"], event["what"]) for event in found["timeline"]] == [
        (995.0, "warning was entered"),
        (995.0, "unload_packages was entered"),
        (996.0, "alert of level high arrived"),
        (997.0, "cycle began: webhook, high"),
        (pytest.approx(997.3), "stop pandas: done, 10 bytes"),
        (998.0, "cycle ended: futile, usage 0.9000"),
        (999.0, "aggressive_unload was entered"),
        (999.0, "emergency was entered"),
        (999.0, "last reading: usage 0.9700"),
        (1000.0, "the kill was found"),
    ]
    assert (found["kills"], found["last_looked"], found["held"]) == (1, 999.0, {"x": 1})
    assert [tried["id"] for tried in found["tried"]] == ["1"]


@pytest.mark.parametrize(
    ("usages", "entered"),
    [
        ([(1.0, 0.5)], {}),
        ([(1.0, 0.81), (2.0, 0.78), (3.0, 0.82)], {"warning": 1.0, "unload_packages": 1.0}),
        ([(1.0, 0.81), (2.0, 0.70), (3.0, 0.82)], {"warning": 1.0, "unload_packages": 3.0}),
        ([(1.0, 0.81), (2.0, 0.40)], {}),
    ],
)
def test_a_crossing_counts_from_where_it_was_not_left_since(usages, entered):
    assert crossings(usages, Thresholds()) == entered
