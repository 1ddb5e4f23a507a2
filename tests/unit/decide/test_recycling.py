"""Which workers are replaced: those that are idle as a whole, and busy ones that have grown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.act.mechanisms import mechanisms
from mempressure.config.thresholds import Thresholds
from mempressure.decide.eligibility import Experience, Rules, choose_strategy
from mempressure.decide.plan import Target, identity, make_plan
from mempressure.decide.quarantine import judged
from mempressure.state.fresh import expected_bytes
from mempressure.state.node import AppReading
from mempressure.state.records import PackageState, WorkerState
from tests.support.builders.package_states import isolated

NOW = 10_000.0
MIB = float(1 << 20)
KEY = ("shop", "", "recycle")


def package(name="numpy", *, idle=5000.0, how="recycle", **options):
    last_used = -1.0 if idle is None else NOW - idle
    source = "process" if how == "stop" else "import"
    defaults = {"timeout": 60.0, "loaded": 1.0, "memory_bytes": 5 * MIB}
    return PackageState(name=name, mechanism=how, source=source, last_used=last_used, **(defaults | options))


def worker(*packages, pid=1, idle=1000.0, mib=90, fresh=60, **options):
    """A worker that has been without work for `idle` seconds (None: unknown) and holds `mib` of `fresh` MiB."""
    defaults = {
        "started": 0.0,
        "supervisor": "gunicorn",
        "trim_refused": "no trim in this test",
        "idle_timeout": 60.0,
        "last_work": -1.0 if idle is None else NOW - idle,
        "private_bytes": mib * MIB,
        "baseline_bytes": -1.0 if fresh is None else fresh * MIB,
    }
    return WorkerState(
        app="shop", pid=pid, start_ticks=pid, pid_namespace="ns", packages=list(packages), **(defaults | options)
    )


def fresh(pid=9):
    """A worker that is as large as when it began to serve."""
    return worker(pid=pid, mib=60)


def reading(*workers):
    return AppReading("shop", 1000, Path("/none"), workers, None)


def plan(*workers, usage=0.86, quarantine=None, **options):
    rules = Rules(thresholds=Thresholds(), keep_loaded=lambda app, name, declared: declared, **options)
    strategy = choose_strategy(usage, rules.thresholds)
    known = Experience(quarantine=quarantine or {})
    return make_plan(
        [reading(*workers)],
        mechanisms=mechanisms(),
        usage=usage,
        strategy=strategy,
        rules=rules,
        now=NOW,
        experience=known,
    )


def recycled(made):
    return [action.targets[0].worker.pid for action in made.actions if action.mechanism == "recycle"]


def reasons(made):
    return [(skip.package, skip.reason) for skip in made.skips]


@pytest.mark.parametrize(
    ("usage", "idle", "is_candidate"),
    [(0.82, 59.9, False), (0.82, 60.0, True), (0.86, 29.9, False), (0.86, 30.0, True), (0.96, 30.0, True)],
)
def test_a_worker_without_packages_is_replaced_once_it_is_idle_as_the_strategy_asks(usage, idle, is_candidate):
    made = plan(worker(idle=idle), fresh(), usage=usage, recycle_from="normal")
    assert recycled(made) == ([1] if is_candidate else [])
    if is_candidate:
        [action] = made.actions
        needed = choose_strategy(usage, Thresholds()).idle_seconds(60.0)
        assert (action.packages, action.expected_bytes) == ((), 30 * MIB)
        assert action.targets[0] == Target(action.targets[0].worker, None, idle_seconds=needed)
        assert f"without work for {idle:.0f} s" in action.reason
        assert made.skips == ()


@pytest.mark.parametrize(
    ("busy", "reason"),
    [
        ({"idle": 5.0}, "was at work 5.0 s ago, idle is 30 s; it has grown by 20.0 MiB, which is below 32.0 MiB"),
        ({"active_work": 2.0}, "has 2 requests or tasks under way; it has grown by 20.0 MiB"),
        ({"idle": None}, "cannot tell whether it is idle; it has grown by 20.0 MiB"),
        ({"idle_timeout": -1.0}, "cannot tell whether it is idle"),
        ({"recycle_refused": "granian"}, "granian"),
        ({"supervisor": ""}, "no supervisor"),
        ({"started": NOW - 59}, "lives for less than 60 s"),
    ],
)
def test_a_worker_that_stays_says_why(busy, reason):
    made = plan(worker(mib=80, **busy), fresh())
    assert recycled(made) == []
    [(name, said)] = reasons(made)
    assert (name, said[:10]) == ("", "worker 1: ")
    assert said.removeprefix("worker 1: ").startswith(reason)


def test_a_clock_that_was_set_back_makes_no_worker_busy():
    assert recycled(plan(worker(idle=-3600.0), fresh())) == [1]
    assert recycled(plan(worker(idle=-5.0), fresh())) == []


@pytest.mark.parametrize("mib", [63, 60, 40])
def test_a_worker_that_is_no_larger_than_a_fresh_one_is_neither_replaced_nor_mentioned(mib):
    made = plan(worker(mib=mib), fresh(), usage=0.99)
    assert (made.actions, made.skips) == ((), ())


def test_where_no_fresh_worker_was_measured_one_without_packages_is_left_alone():
    made = plan(worker(fresh=None), worker(pid=2, fresh=None))
    assert (made.actions, made.skips) == ((), ())


def test_a_fresh_worker_is_one_of_the_same_supervisor():
    child = worker(pid=2, mib=10, fresh=10, supervisor_pid=7)
    made = plan(worker(mib=70, fresh=60, supervisor_pid=6), child)
    assert [action.expected_bytes for action in made.actions] == [10 * MIB]


@pytest.mark.parametrize("idle", [None, 1.0])
@pytest.mark.parametrize("how", ["recycle", "stop"])
def test_what_is_known_of_a_package_s_use_does_not_matter_in_an_idle_worker(idle, how):
    made = plan(worker(package(idle=idle, how=how)), fresh())
    [action] = [action for action in made.actions if action.mechanism == "recycle"]
    # What it gives back is the worker's, not the package's alone.
    assert action.expected_bytes == 30 * MIB
    assert action.targets[0].idle_seconds == 30.0


@pytest.mark.parametrize(
    ("held", "usage", "reason"),
    [
        (package(active_calls=1.0), 0.96, "numpy is in use"),
        (package(how="stop", active_calls=1.0), 0.96, "numpy is in use"),
        (package(keep_loaded=True), 0.82, "numpy is kept loaded by preference"),
        (package(keep_loaded=True), 0.86, ""),
        (package(timeout=3600.0, idle=None), 0.86, "numpy"),  # it is to be kept for longer than the worker was idle
        (package(timeout=3600.0, idle=1e4), 0.86, ""),
    ],
)
def test_what_keeps_an_idle_worker(held, usage, reason):
    made = plan(worker(held), fresh(), usage=usage, recycle_from="normal")
    assert recycled(made) == ([] if reason else [1])
    assert any(reason in said for _, said in reasons(made)) or not reason


def test_a_busy_worker_is_replaced_still_where_all_that_is_tracked_is_idle():
    [action] = plan(worker(package(), idle=1.0, active_work=1.0), fresh()).actions
    assert (action.packages, action.expected_bytes) == (("numpy",), 30 * MIB)
    assert action.targets[0] == Target(action.targets[0].worker, {"numpy": 30.0})


def test_without_a_baseline_the_packages_are_what_is_expected():
    [action] = plan(worker(package(), fresh=None), worker(pid=2, fresh=None)).actions
    assert action.expected_bytes == 5 * MIB


@pytest.mark.parametrize(
    ("fresh_mib", "mib", "late", "options", "is_candidate"),
    [
        (60, 92, -1, {}, True),  # 32 MiB, the least
        (60, 91, -1, {}, False),
        (100, 150, -1, {}, True),  # half of a fresh one
        (100, 149, -1, {}, False),
        (60, 400, 300, {}, True),
        (60, 400, 310, {}, False),  # a successor imports the same again
        (60, 75, -1, {"recycle_growth": 15 * MIB}, True),
        (60, 74, -1, {"recycle_growth": 15 * MIB}, False),
        (60, 1e6, -1, {"recycle_growth": 0}, False),
        (60, 92, -1, {"packages": [package(idle=1.0)]}, True),
        (60, 91, -1, {"packages": [isolated(size=500 * MIB, last_used=NOW)]}, False),  # which end by themselves
    ],
)
def test_a_busy_worker_is_replaced_where_it_has_grown_much(fresh_mib, mib, late, options, is_candidate):
    growth = {"recycle_growth": options["recycle_growth"]} if "recycle_growth" in options else {}
    held = options.get("packages", [])
    busy = worker(*held, idle=0.1, active_work=3.0, mib=mib, fresh=fresh_mib, late_bytes=late * MIB)
    made = plan(busy, worker(pid=9, mib=fresh_mib, fresh=fresh_mib), **growth)
    assert recycled(made) == ([1] if is_candidate else [])
    if is_candidate:
        [action] = made.actions
        assert action.targets[0] == Target(busy, None)
        assert action.expected_bytes == (mib - fresh_mib) * MIB
        assert "grown by" in action.reason


@pytest.mark.parametrize(
    ("options", "usage", "recycle_from", "reason"),
    [
        ({}, 0.82, "normal", "from strategy high on"),
        ({}, 0.86, "emergency", "from emergency on"),
        ({}, 0.99, "never", "never recycled"),
        ({"started": NOW - 599}, 0.99, "high", "once it has lived for 600 s"),
        ({"packages": [package(active_calls=1.0)]}, 0.99, "high", "numpy is in use"),
    ],
)
def test_a_busy_worker_stays_though_it_has_grown(options, usage, recycle_from, reason):
    more = {name: value for name, value in options.items() if name != "packages"}
    busy = worker(*options.get("packages", []), idle=0.1, mib=300, **more)
    made = plan(busy, fresh(), usage=usage, recycle_from=recycle_from)
    assert recycled(made) == []
    assert reason in reasons(made)[-1][1]


def test_idle_workers_go_first_then_the_least_busy_then_the_most_grown():
    made = plan(
        worker(pid=1, active_work=5.0, idle=0.0, mib=500),
        worker(pid=2, active_work=1.0, idle=0.0, mib=200),
        worker(pid=3, active_work=1.0, idle=0.0, mib=300),
        worker(pid=4, idle=40.0),
        worker(pid=5, idle=4000.0),
        fresh(),
    )
    assert recycled(made) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(("usage", "most"), [(0.82, 5), (0.86, 7), (0.96, 10)])
def test_a_worker_without_packages_counts_as_one_package(usage, most):
    made = plan(*(worker(pid=pid) for pid in range(1, 15)), usage=usage, recycle_from="normal")
    assert len(recycled(made)) == most
    assert reasons(made) == [("", f"the limit of {most} packages a cycle is reached")] * (14 - most)


@pytest.mark.parametrize(("usage", "is_candidate"), [(0.89, False), (0.90, True)])
def test_an_idle_worker_that_is_the_only_one_is_replaced_at_emergency_only(usage, is_candidate):
    assert recycled(plan(worker(), usage=usage)) == ([1] if is_candidate else [])


@pytest.mark.parametrize(("promises", "ago", "is_candidate"), [(40, 60, False), (51, 60, True), (40, 1800, True)])
def test_where_replacing_gave_back_too_little_the_app_is_left_alone_until_a_worker_promises_more(
    promises, ago, is_candidate
):
    too_little = judged({}, KEY, (), expected_bytes=40 * MIB, reclaimed_bytes=MIB, now=NOW - ago)
    made = plan(worker(mib=60 + promises), fresh(), quarantine=too_little)
    assert recycled(made) == ([1] if is_candidate else [])
    if not is_candidate:
        assert reasons(made) == [
            ("", "worker 1: is quarantined for another 1740 s: recycle gave back 1.0 MiB of the 40.0 MiB expected")
        ]


def test_what_gave_back_enough_ends_the_quarantine():
    too_little = judged({}, KEY, (), expected_bytes=40 * MIB, reclaimed_bytes=MIB, now=NOW)
    assert judged(too_little, KEY, (), expected_bytes=40 * MIB, reclaimed_bytes=30 * MIB, now=NOW) == {}


def test_an_action_on_an_idle_worker_is_another_once_it_has_worked_again():
    [before] = plan(worker(idle=100.0), fresh()).actions
    [again] = plan(worker(idle=100.0), fresh()).actions
    [after] = plan(worker(idle=90.0), fresh()).actions
    assert identity(before) == identity(again) != identity(after)


@given(
    st.lists(
        st.builds(
            lambda pid, **options: worker(**options).replaced(pid=pid, start_ticks=pid),
            st.integers(1, 9),
            idle=st.one_of(st.none(), st.floats(0, 100)),
            active_work=st.sampled_from([0.0, 1.0]),
            mib=st.integers(0, 300),
            fresh=st.one_of(st.none(), st.integers(0, 300)),
            serving=st.sampled_from([True, True, False]),
            started=st.sampled_from([0.0, NOW - 100, NOW - 10]),
        ),
        max_size=5,
        unique_by=lambda w: w.pid,
    ),
    st.floats(0.5, 1.2),
    st.sampled_from(["normal", "high", "emergency", "never"]),
)
def test_what_no_plan_ever_does(workers, usage, recycle_from):
    made = plan(*workers, usage=usage, recycle_from=recycle_from)
    strategy = choose_strategy(usage, Thresholds())
    assert len(made.actions) <= strategy.most_packages
    for action in made.actions:
        [target] = action.targets
        assert all(each.serving for each in workers)
        assert recycle_from != "never"
        assert action.expected_bytes == int(expected_bytes(action.app, target.worker)) >= 4 * MIB
        if target.idle_seconds is None:
            assert strategy.name != "normal"
            assert target.worker.started < NOW - 600
            assert action.expected_bytes >= 32 * MIB
        else:
            assert not target.worker.active_work
            assert NOW - target.worker.last_work >= strategy.idle_seconds(60.0)
