import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.act.mechanisms import mechanisms
from mempressure.config.thresholds import Thresholds
from mempressure.decide import ranking
from mempressure.decide.eligibility import Experience, Rules, choose_strategy
from mempressure.decide.plan import make_plan
from mempressure.decide.quarantine import judged
from mempressure.decide.ranking import Ageing, observed
from mempressure.mechanisms import NAMES
from mempressure.state.node import AppReading
from mempressure.state.records import PackageState, WorkerState
from tests.support.builders.package_states import isolated

NOW = 10_000.0
THRESHOLDS = Thresholds()
LIMITS = {"normal": 5, "high": 7, "critical": 10}


def package(name="pandas", *, idle=1e6, mechanism="stop", loaded=1.0, **options):
    last_used = -1.0 if idle is None else max(0.0, NOW - idle)
    source = "process" if mechanism == "stop" else "import"
    defaults = {"source": source, "timeout": 60.0, "memory_bytes": 1e6}
    return PackageState(name=name, mechanism=mechanism, loaded=loaded, last_used=last_used, **{**defaults, **options})


def worker(*packages, pid=1, app="shop", **options):
    defaults = {"started": 0.0, "sampled": NOW, "supervisor": "gunicorn", "trim_refused": "no trim in this test"}
    return WorkerState(
        app=app, pid=pid, start_ticks=pid, pid_namespace="ns", packages=list(packages), **{**defaults, **options}
    )


def reading(*workers, name="shop"):
    return AppReading(name, 1000, Path("/none"), workers, None)


def rules(*, keep=(), **options):
    def keep_loaded(app, name, declared):
        return declared or name in keep

    return Rules(thresholds=options.pop("thresholds", THRESHOLDS), keep_loaded=keep_loaded, **options)


def plan(*apps, usage, trimmed=None, called=None, increasing=False, ageing=None, quarantine=None, **options):
    settled = rules(**options)
    strategy = choose_strategy(usage, settled.thresholds, increasing=increasing)
    known = Experience(
        trimmed=trimmed or {}, called=called or {}, ageing=ageing or Ageing(), quarantine=quarantine or {}
    )
    return make_plan(
        apps, mechanisms=mechanisms(), usage=usage, strategy=strategy, rules=settled, now=NOW, experience=known
    )


def unloaded(made):
    return {(action.app.name, name) for action in made.actions for name in action.packages}


def reasons(made):
    return {skip.package: skip.reason for skip in made.skips}


@pytest.mark.parametrize(
    ("usage", "increasing", "name", "most", "pause", "overrides", "idle"),
    [
        (0.75, False, "normal", 5, 15.0, False, (60.0, 300.0)),
        (0.8499, True, "normal", 5, 15.0, False, (60.0, 300.0)),
        (0.85, False, "high", 7, 5.0, True, (30.0, 150.0)),
        (0.9499, False, "high", 7, 5.0, True, (30.0, 150.0)),
        (0.85, True, "high", 8, 5.0, True, (30.0, 150.0)),
        (0.95, False, "critical", 10, 0.0, True, (30.0, 30.0)),
        (1.2, True, "critical", 10, 0.0, True, (30.0, 30.0)),
    ],
)
def test_every_row_of_the_strategy_table(usage, increasing, name, most, pause, overrides, idle):
    strategy = choose_strategy(usage, THRESHOLDS, increasing=increasing)
    assert (strategy.name, strategy.most_packages, strategy.pause_seconds) == (name, most, pause)
    assert strategy.overrides_preferences is overrides
    assert (strategy.idle_seconds(60.0), strategy.idle_seconds(300.0)) == idle


def test_a_short_timeout_is_halved_when_critical():
    assert choose_strategy(0.95, THRESHOLDS).idle_seconds(20.0) == 10.0


def test_the_ratio_of_critical_and_the_threshold_of_high_can_be_set():
    thresholds = Thresholds(aggressive_unload=0.88)
    assert choose_strategy(0.87, thresholds, critical_ratio=0.99).name == "normal"
    assert choose_strategy(0.88, thresholds, critical_ratio=0.99).name == "high"
    assert choose_strategy(0.99, thresholds, critical_ratio=0.99).name == "critical"


@pytest.mark.parametrize(
    ("usage", "idle", "is_candidate"),
    [
        (0.82, 59.9, False),
        (0.82, 60.0, True),
        (0.86, 29.9, False),
        (0.86, 30.0, True),
        (0.96, 29.9, False),
        (0.96, 30.0, True),
    ],
)
def test_a_package_is_a_candidate_once_idle_as_the_strategy_asks(usage, idle, is_candidate):
    made = plan(reading(worker(package(idle=idle))), usage=usage)
    assert unloaded(made) == ({("shop", "pandas")} if is_candidate else set())
    assert ("pandas" in reasons(made)) is not is_candidate


@pytest.mark.parametrize(("usage", "most"), [(0.82, 5), (0.86, 7), (0.96, 10)])
def test_at_most_so_many_packages_a_cycle(usage, most):
    made = plan(reading(worker(*(package(f"p{number:02}") for number in range(20)))), usage=usage)
    assert len(unloaded(made)) == most
    assert [reason for reason in reasons(made).values() if "limit" in reason] == [
        f"the limit of {most} packages a cycle is reached"
    ] * (20 - most)


def test_eight_packages_where_the_trend_is_increasing():
    made = plan(reading(worker(*(package(f"p{n}") for n in range(20)))), usage=0.86, increasing=True)
    assert len(unloaded(made)) == 8


def test_a_package_counts_once_however_many_workers_hold_it():
    names = [f"p{number}" for number in range(5)]
    workers = [worker(*(package(name) for name in names), pid=pid) for pid in range(1, 9)]
    made = plan(reading(*workers), usage=0.82)
    assert len(unloaded(made)) == 5
    assert all(len(action.targets) == 8 for action in made.actions)


@pytest.mark.parametrize(("usage", "kept"), [(0.82, True), (0.86, False), (0.96, False)])
@pytest.mark.parametrize("source", ["user", "declared"])
def test_keep_loaded_is_respected_under_normal_only(usage, kept, source):
    held = package(keep_loaded=source == "declared")
    made = plan(reading(worker(held)), usage=usage, keep=("pandas",) if source == "user" else ())
    assert (unloaded(made) == set()) is kept
    assert (reasons(made).get("pandas") == "is kept loaded by preference") is kept


@pytest.mark.parametrize("usage", [0.82, 0.86, 0.92, 0.99])
@pytest.mark.parametrize("mechanism", ["stop", "recycle"])
def test_a_package_in_use_is_never_touched(usage, mechanism):
    held = package(mechanism=mechanism, active_calls=1.0)
    made = plan(reading(worker(held), worker(pid=2)), usage=usage, recycle_from="normal")
    assert made.actions == ()
    assert "is in use" in reasons(made)["pandas"]


def test_where_some_workers_use_a_package_it_ends_in_the_others():
    made = plan(reading(worker(package(idle=1.0), pid=1), worker(package(), pid=2)), usage=0.82)
    assert [target.worker.pid for target in made.actions[0].targets] == [2]


def test_below_unload_packages_only_hosts_of_isolated_packages_end():
    busy = worker(package("pandas"), package("numpy", mechanism="recycle"), trim_refused="")
    made = plan(reading(busy, worker(pid=2)), usage=0.78, recycle_from="normal")
    assert [action.mechanism for action in made.actions] == ["stop"]


def test_the_mildest_mechanism_comes_first():
    held = worker(package("pandas"), package("numpy", mechanism="recycle"), trim_refused="")
    made = plan(reading(held, worker(pid=2)), usage=0.86)
    assert [action.mechanism for action in made.actions] == ["trim", "stop", "recycle"]


@pytest.mark.parametrize(
    ("recycle_from", "usages"),
    [("normal", (0.82, 0.86, 0.92)), ("high", (0.86, 0.92)), ("emergency", (0.92,)), ("never", ())],
)
def test_recycling_begins_where_the_operator_says(recycle_from, usages):
    held = reading(worker(package(mechanism="recycle")), worker(pid=2))
    recycled = [u for u in (0.82, 0.86, 0.92) if plan(held, usage=u, recycle_from=recycle_from).actions]
    assert tuple(recycled) == usages


@pytest.mark.parametrize(("usage", "recycled"), [(0.86, False), (0.8999, False), (0.90, True), (0.99, True)])
def test_a_sole_worker_is_recycled_at_emergency_only(usage, recycled):
    made = plan(reading(worker(package(mechanism="recycle"))), usage=usage)
    assert bool(made.actions) is recycled
    assert ("only worker" in reasons(made).get("pandas", "")) is not recycled


@pytest.mark.parametrize("usage", [0.86, 0.8999, 0.99])
def test_no_worker_is_recycled_while_another_of_its_app_starts_or_ends(usage):
    held, others = worker(package(mechanism="recycle")), [worker(pid=2), worker(pid=3, serving=False)]
    made = plan(reading(held, *others), usage=usage)
    assert made.actions == ()
    assert "until worker 3 serves or is gone" in reasons(made)["pandas"]
    assert plan(reading(held, others[0]), reading(others[1], name="other"), usage=usage).actions


@pytest.mark.parametrize(
    ("held", "baselines", "recycled"),
    [
        (100, (60,), True),
        (100, (90,), True),
        (100, (91,), False),  # less than a tenth
        (100, (), True),  # nothing is known of a fresh one
        (20, (17,), False),  # 3 MiB are not worth a worker
        (100, (95, 20), True),  # the lower of two
        (100, (95, 94, 20), False),  # the median of three
        (60, (70,), False),  # it is smaller than it began
    ],
)
def test_a_worker_is_recycled_only_where_a_fresh_one_would_be_smaller(held, baselines, recycled):
    # 10 MiB of what it holds are its package processes', which go with it.
    first = worker(
        package(mechanism="recycle"), isolated("sympy", 10 << 20, last_used=NOW), private_bytes=(held - 10) * 2.0**20
    )
    others = [worker(pid=pid, baseline_bytes=size * 2.0**20) for pid, size in enumerate(baselines, start=2)]
    made = plan(reading(first, *others, worker(pid=9)), usage=0.86)
    assert bool(made.actions) is recycled
    if not recycled:
        median = {1: baselines[0], 3: 94}[len(baselines)]
        assert f"holds {held}.0 MiB and a fresh one {median}.0 MiB" in reasons(made)["pandas"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"recycle_refused": "granian"}, "granian"),
        ({"supervisor": ""}, "no supervisor"),
        ({"serving": False}, "not serving"),
        ({"started": NOW - 59}, "less than 60 s"),
    ],
)
def test_a_worker_that_cannot_be_recycled_is_left_alone_even_at_emergency(options, reason):
    held = worker(package(mechanism="recycle"), **options)
    made = plan(reading(held, worker(pid=2), worker(pid=3)), usage=0.99)
    assert made.actions == ()
    assert reason in reasons(made)["pandas"]


def test_a_worker_is_recycled_only_once_all_that_it_is_recycled_for_is_idle():
    held = worker(package("numpy", mechanism="recycle"), package("sympy", mechanism="recycle", idle=1.0))
    made = plan(reading(held, worker(pid=2)), usage=0.86)
    assert made.actions == ()
    assert reasons(made)["numpy"] == "worker 1: sympy was used 1.0 s ago, idle is 30 s"


def test_what_its_successor_has_as_well_and_what_was_only_met_do_not_hold_a_worker_back():
    """Whole and idle it is replaced; counted and named is what it was declared to be replaced for."""
    others = [
        package("numpy", mechanism="recycle", source="parent", idle=None),
        package("sympy", mechanism="recycle", declared=False, idle=None),
    ]
    grown = {
        "private_bytes": 80 * 2.0**20,
        "baseline_bytes": 20 * 2.0**20,
        "last_work": NOW - 100,
        "idle_timeout": 60.0,
    }
    held = worker(*others, package("pandas", mechanism="recycle"), **grown)
    (action,) = plan(reading(held, worker(pid=2)), usage=0.86).actions
    assert (action.packages, action.expected_bytes) == (("pandas",), 60 << 20)
    (action,) = plan(reading(worker(*others, **grown), worker(pid=2)), usage=0.86).actions
    assert (action.packages, action.expected_bytes) == ((), 60 << 20)


def test_a_recycled_worker_counts_as_the_packages_it_held():
    names = [f"p{number}" for number in range(4)]
    workers = [
        worker(*(package(f"{pid}{name}", mechanism="recycle") for name in names), pid=pid) for pid in range(1, 5)
    ]
    made = plan(reading(*workers), usage=0.86)
    assert [action.mechanism for action in made.actions] == ["recycle"]  # two would be eight


CALLS = {"callbacks": 1.0, "callbacks_from": "high"}


@pytest.mark.parametrize(
    ("usage", "level", "pids"),
    [
        (0.79, "", []),
        (0.80, "", []),  # the level is medium, for which none is declared
        (0.85, "high", [1, 2]),
        (0.90, "emergency", [1, 2, 3]),
        (0.99, "emergency", [1, 2, 3]),
    ],
)
def test_callbacks_are_one_action_an_app_for_the_workers_that_were_not_called_at_the_level(usage, level, pids):
    workers = [
        worker(pid=1, **CALLS),
        worker(pid=2, trim_refused="forked", **CALLS),
        worker(pid=3, **CALLS),
        worker(pid=4, serving=False, **CALLS),
        worker(pid=5),
    ]
    made = plan(reading(*workers), usage=usage, called={(3, 3): {"high": NOW - 10}, (1, 1): {"medium": NOW - 1}})
    calls = [action for action in made.actions if action.mechanism == "callbacks"]
    assert [(action.level, [target.worker.pid for target in action.targets]) for action in calls] == (
        [(level, pids)] if pids else []
    )
    assert made.actions[: len(calls)] == tuple(calls)
    assert made.skips == ()


def test_callbacks_without_a_time_limit_are_left_alone_with_the_reason():
    held = {**CALLS, "unsupported": {"on_pressure": "gevent has patched threading"}}
    made = plan(reading(worker(pid=1, **held), worker(pid=2, **CALLS)), usage=0.86)
    assert [[target.worker.pid for target in action.targets] for action in made.actions] == [[2]]
    assert [(skip.app, skip.package, skip.reason) for skip in made.skips] == [
        ("shop", "", "worker 1: its callbacks are not called: gevent has patched threading")
    ]


def test_callbacks_count_nothing():
    packages = [package(f"p{number}") for number in range(9)]
    made = plan(reading(worker(*packages, **CALLS)), usage=0.86)
    assert [action.mechanism for action in made.actions] == ["callbacks"] + ["stop"] * 7


def test_a_trim_counts_nothing_and_is_not_repeated_soon():
    workers = [worker(*(package(f"p{n}") for n in range(9)), pid=pid, trim_refused="") for pid in (1, 2, 3)]
    made = plan(reading(*workers), usage=0.82, trimmed={(1, 1): NOW - 59, (2, 2): NOW - 60})
    assert [a.targets[0].worker.pid for a in made.actions if a.mechanism == "trim"] == [2, 3]
    assert len(unloaded(made)) == 5


def test_the_lower_priority_goes_first_then_the_longest_unused():
    packages = [package("old", idle=900), package("older", idle=5000), package("dear", idle=9000, priority=1)]
    made = plan(reading(worker(*packages)), usage=0.82)
    assert [action.packages[0] for action in made.actions] == ["older", "old", "dear"]


SELDOM = {"uses": 2.0, "loads": 1.0, "load_seconds": 1.0}
OFTEN = {"uses": 50.0, "loads": 1.0, "load_seconds": 1.0}


@pytest.mark.parametrize(
    ("usage_pattern", "order"),
    [(True, ["cheap", "seldom", "large", "often"]), (False, ["often", "large", "seldom", "cheap"])],
)
@pytest.mark.parametrize("mechanism", ["stop", "recycle"])
def test_the_least_valuable_goes_first_or_else_the_longest_unused(mechanism, usage_pattern, order):
    packages = [
        package("often", idle=9000, mechanism=mechanism, **OFTEN),
        package("large", idle=8000, mechanism=mechanism, **OFTEN, memory_bytes=10e6),
        package("seldom", idle=7000, mechanism=mechanism, **SELDOM),
        package("cheap", idle=6000, mechanism=mechanism, **(SELDOM | {"load_seconds": 0.1})),
    ]
    workers = [worker(held, pid=pid) for pid, held in enumerate(packages, start=1)]
    made = plan(reading(*workers), usage=0.82, usage_pattern=usage_pattern, recycle_from="normal")
    assert [action.packages[0] for action in made.actions] == order


def test_priority_comes_before_value():
    packages = [package("worthless", priority=1), package("dear", **OFTEN)]
    made = plan(reading(worker(*packages)), usage=0.82)
    assert [action.packages[0] for action in made.actions] == ["dear", "worthless"]


def test_a_package_used_a_lot_long_ago_is_overtaken_by_one_used_since_the_level_rose():
    once, now = package("once", **OFTEN), package("now", **SELDOM)
    held = worker(once, now)
    before = ranking.unloaded(observed(Ageing(), [reading(worker(once))]), 1.0)
    made = plan(reading(held), usage=0.82, ageing=observed(before, [reading(held)]))
    assert [action.packages[0] for action in made.actions] == ["once", "now"]
    assert [action.value for action in made.actions] == [50 / 1e6, 1.0 + 2 / 1e6]


def refault(level=1.0, *, ago=20.0, delay=4.0):
    return {"refaults": 1.0, "refault_level": level, "last_refault": NOW - ago, "refault_delay": delay}


@pytest.mark.parametrize(("idle", "is_candidate"), [(60.0, False), (119.0, False), (120.0, True)])
def test_a_refault_doubles_the_time_a_package_is_left_alone(idle, is_candidate):
    made = plan(reading(worker(package(idle=idle, **refault(ago=0.0)))), usage=0.82)
    assert bool(made.actions) is is_candidate
    if is_candidate:
        assert made.actions[0].targets[0].idle_for == {"pandas": 120.0}
    else:
        reason = "was loaded again 4 s after its last unloading; left alone for 120 s"
        assert reasons(made) == {"pandas": reason}


@pytest.mark.parametrize(
    ("level", "ago", "needed"), [(1.0, 600.0, 60), (1.0, 300.0, 85), (3.0, 600.0, 240), (3.0, -50.0, 480)]
)
def test_the_backoff_wears_off(level, ago, needed):
    held = reading(worker(package(idle=needed - 1, **refault(level, ago=ago))))
    assert plan(held, usage=0.82).actions == ()
    held = reading(worker(package(idle=needed + 1, **refault(level, ago=ago))))
    assert plan(held, usage=0.82).actions


def test_a_refault_in_one_worker_counts_in_all_of_the_app_and_in_no_other():
    unloaded_again = worker(package(loaded=0.0, **refault(2.0, ago=0.0)), pid=1)
    made = plan(reading(unloaded_again, worker(package(idle=200.0), pid=2)), usage=0.82)
    assert reasons(made)["pandas"].endswith("left alone for 240 s")
    other = reading(worker(package(idle=200.0), pid=3, app="till"), name="till")
    assert unloaded(plan(reading(unloaded_again), other, usage=0.82)) == {("till", "pandas")}


@pytest.mark.parametrize(("usage", "is_candidate"), [(0.86, False), (0.96, True)])
def test_a_package_is_not_spared_for_refaults_when_critical(usage, is_candidate):
    made = plan(reading(worker(package(idle=31.0, **refault(5.0)))), usage=usage)
    assert bool(made.actions) is is_candidate


def quarantine(*names, mechanism="stop", pid=1):
    made = {}
    for name in names:
        held = package(name, mechanism=mechanism, memory_bytes=1e8)
        key = ("shop", name, mechanism)
        made = judged(made, key, [(worker(held, pid=pid), held)], expected_bytes=1e8, reclaimed_bytes=0, now=NOW - 60)
    return made


@pytest.mark.parametrize("usage", [0.82, 0.96])
def test_what_is_quarantined_is_left_alone_and_the_reason_says_so(usage):
    held = reading(worker(package(memory_bytes=1e8), package("numpy", memory_bytes=1e8)))
    made = plan(held, usage=usage, quarantine=quarantine("pandas"))
    assert unloaded(made) == {("shop", "numpy")}
    assert reasons(made) == {
        "pandas": "is quarantined for another 1740 s: stop gave back 0.0 MiB of the 95.4 MiB expected"
    }


def test_the_worker_is_told_how_long_the_package_must_still_be_unused():
    made = plan(reading(worker(package(timeout=100.0))), usage=0.86)
    assert made.actions[0].targets[0].idle_for == {"pandas": 50.0}


def test_nothing_is_planned_where_unloading_is_turned_off():
    made = plan(reading(worker(package(), trim_refused="")), usage=0.99, unloading_enabled=False)
    assert made.actions == ()


def test_what_is_not_loaded_is_neither_planned_nor_skipped():
    made = plan(reading(worker(package(loaded=0.0))), usage=0.99)
    assert (made.actions, made.skips) == ((), ())


@pytest.mark.parametrize(
    ("held", "usage", "reason"),
    [
        (package(mechanism="recycle", idle=None), 0.86, "has an unknown idle time"),
        (package(mechanism="recycle", idle=1.0), 0.86, "was used 1.0 s ago, idle is 30 s"),
        (package(mechanism="recycle", active_calls=1.0), 0.96, "is in use"),
        (package(mechanism="recycle", keep_loaded=True), 0.82, "is kept loaded by preference"),
    ],
)
def test_what_no_worker_is_recycled_for(held, usage, reason):
    made = plan(reading(worker(held), worker(pid=2)), usage=usage, recycle_from="normal")
    assert made.actions == ()
    assert reasons(made)["pandas"] == f"worker 1: pandas {reason}"


def test_nothing_is_recycled_below_unload_packages():
    made = plan(reading(worker(package(mechanism="recycle")), worker(pid=2)), usage=0.79, recycle_from="normal")
    assert (made.actions, made.skips) == ((), ())


def test_a_package_in_a_process_of_its_own_keeps_no_worker_from_being_recycled():
    held = [package("a", mechanism="recycle"), package("b", idle=1.0)]
    made = plan(reading(worker(*held), worker(pid=2)), usage=0.86)
    assert [(action.mechanism, action.packages) for action in made.actions] == [("recycle", ("a",))]
    assert made.actions[0].targets[0].idle_for == {"a": 30.0}
    assert reasons(made)["b"] == "was used 1.0 s ago, idle is 30 s"


packages = st.builds(
    package,
    st.sampled_from([f"p{number}" for number in range(14)]),
    idle=st.one_of(st.none(), st.floats(0, 400)),
    mechanism=st.sampled_from(["stop", "recycle"]),
    loaded=st.sampled_from([0.0, 1.0]),
    timeout=st.floats(0, 300),
    priority=st.integers(-2, 2),
    active_calls=st.sampled_from([0.0, 0.0, 1.0]),
    refault_level=st.sampled_from([0.0, 1.0, 5.0]),
    last_refault=st.sampled_from([-1.0, NOW, NOW - 500]),
    keep_loaded=st.booleans(),
)
pids = itertools.count(1)
usages = st.one_of(st.floats(0, 1.3), st.floats(0.75, 0.96))


@st.composite
def apps(draw):
    made = []
    for number in range(draw(st.integers(1, 3))):
        workers = draw(
            st.lists(
                st.builds(
                    lambda held, **options: worker(*held, pid=next(pids), **options),
                    st.lists(packages, max_size=14, unique_by=lambda p: p.name),
                    serving=st.booleans(),
                    supervisor=st.sampled_from(["gunicorn", "gunicorn", ""]),
                    started=st.sampled_from([0.0, 0.0, NOW - 10]),
                    trim_refused=st.sampled_from(["", "forked"]),
                    recycle_refused=st.sampled_from(["", "", "refused"]),
                ),
                max_size=4,
            )
        )
        made.append(reading(*workers, name=f"app{number}"))
    return made


@given(
    apps(),
    usages,
    st.sampled_from(["normal", "high", "emergency", "never"]),
    st.booleans(),
    st.sets(st.sampled_from([f"p{number}" for number in range(14)])),
)
def test_what_no_plan_ever_does(given_apps, usage, recycle_from, increasing, keep):
    made = plan(*given_apps, usage=usage, recycle_from=recycle_from, increasing=increasing, keep=tuple(keep))
    strategy = choose_strategy(usage, THRESHOLDS, increasing=increasing)
    assert len(unloaded(made)) <= strategy.most_packages
    for action in made.actions:
        for target in action.targets:
            held = [p for p in target.worker.packages if p.name in action.packages]
            concerned = [p for p in held if p.mechanism == action.mechanism]
            assert not any(p.active_calls for p in concerned)
            assert all(p.last_used < 0 or NOW - p.last_used >= strategy.idle_seconds(p.timeout) for p in concerned)
            if strategy.name == "normal":
                assert not any(p.keep_loaded or p.name in keep for p in concerned)
            assert set(action.packages) <= set(target.idle_for)
            assert set(target.idle_for) == {p.name for p in concerned}
        if action.mechanism == "recycle":
            assert usage >= THRESHOLDS.unload_packages
            assert all(p.last_used >= 0 for t in action.targets for p in t.worker.packages if p.name in action.packages)
            assert recycle_from != "never"
            serving = [w for w in action.app.workers if w.serving]
            assert serving == list(action.app.workers)
            assert len(serving) > 1 or usage >= THRESHOLDS.emergency
            assert set(action.packages) == {
                p.name for p in action.targets[0].worker.packages if p.loaded and p.mechanism == "recycle"
            }
    order = [NAMES.index(action.mechanism) for action in made.actions]
    assert order == sorted(order)


@given(apps(), st.floats(0, 1.3))
def test_every_loaded_package_that_something_could_unload_is_planned_or_said_to_be_left_alone(given_apps, usage):
    made = plan(*given_apps, usage=usage)
    mentioned = unloaded(made) | {(skip.app, skip.package) for skip in made.skips}
    stops = {
        (app.name, p.name)
        for app in given_apps
        for w in app.workers
        for p in w.packages
        if p.loaded and (p.mechanism == "stop" or usage >= THRESHOLDS.unload_packages)
    }
    assert stops <= mentioned


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4), usages)
def test_the_last_serving_worker_is_recycled_at_emergency_only(workers, usage):
    held = [
        worker(*([package(mechanism="recycle")] if holds else []), pid=pid, serving=serving)
        for pid, (serving, holds) in enumerate(workers, start=1)
    ]
    made = plan(reading(*held), usage=usage, recycle_from="normal")
    if made.actions and usage < THRESHOLDS.emergency:
        assert sum(serving for serving, _ in workers) > 1
    assert all(action.targets[0].worker.serving for action in made.actions)


@pytest.mark.parametrize("usage", [0.82, 0.86, 0.96])
def test_a_worker_whose_packages_have_an_unknown_idle_time_stays(usage):
    app = reading(
        worker(package(mechanism="recycle", idle=None), pid=1),
        worker(package(mechanism="recycle"), pid=2),
    )
    made = plan(app, usage=usage, recycle_from="normal")
    assert [action.targets[0].worker.pid for action in made.actions] == [2]
    assert reasons(made)["pandas"].endswith("pandas has an unknown idle time")
