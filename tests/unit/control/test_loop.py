import itertools
import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.thresholds import Thresholds
from mempressure.control.loop import ControlLoop
from mempressure.control.records import Pressure
from mempressure.decide.eligibility import Rules
from tests.support.doubles.fake_machine import MIB, TOTAL, FakeMachine, package

HOST = Pressure("host", "", "webhook", 900.0, "f1")


def loop(machine, *, record=None, **options):
    options = {"thresholds": Thresholds(), "keep_loaded": lambda _app, _package, declared: declared, **options}
    rules = Rules(**options)
    return ControlLoop(
        machine,
        rules=lambda: rules,
        record=(record if record is not None else []).append,
        clock=machine.clock,
        sleep=machine.sleep,
    )


def test_a_cycle_stops_as_soon_as_a_new_measurement_says_relieved():
    machine, cycles = FakeMachine(usage=0.88, packages=[package(f"p{n}") for n in range(5)]), []
    loop(machine, record=cycles).run([HOST])
    assert machine.stops() == ["p0", "p1"]  # 0.88 -> 0.78 -> 0.68, and relieved is below 0.75
    (cycle,) = cycles
    assert (cycle.outcome, cycle.strategy, cycle.trigger) == ("relieved", "high", "webhook")
    assert (cycle.alert_key, cycle.pressure_since) == ("f1", 900.0)
    assert cycle.usage_before == pytest.approx(0.88)
    assert cycle.usage_after == pytest.approx(0.68)
    assert [record.reclaimed_bytes for record in cycle.actions] == [0, 100 * MIB, 100 * MIB]


def test_nothing_is_done_where_a_new_measurement_finds_no_pressure():
    machine, cycles = FakeMachine(usage=0.7499, packages=[package("p", mib=10)]), []
    machine.published = 900 * MIB
    assert loop(machine, record=cycles).run([HOST]) == []
    assert (machine.actions, machine.measurements) == ([], 1)
    (cycle,) = cycles
    assert (cycle.outcome, cycle.actions) == ("recovered", [])
    assert cycle.reason == "usage 0.7499 is below 0.75, where unloading ends"


def test_nobody_is_asked_to_measure_where_what_was_published_is_relieved():
    machine = FakeMachine(usage=0.7499, packages=[package("p", mib=10)])
    assert loop(machine).run([HOST]) == []
    assert (machine.actions, machine.measurements) == ([], 0)


def test_every_act_follows_a_measurement_of_its_own():
    machine = FakeMachine(usage=0.94, packages=[package(f"p{n}", mib=20) for n in range(5)])
    loop(machine).run([HOST])
    assert len(machine.measured_before) > 3
    assert sorted(set(machine.measured_before)) == machine.measured_before


def test_freed_memory_has_time_to_show():
    machine = FakeMachine(usage=0.84, packages=[package("p0"), package("p1")])
    machine.lag = 1.5
    loop(machine).run([HOST])
    assert machine.stops() == ["p0"]


def test_memory_that_does_not_show_is_waited_for_two_seconds_and_no_longer():
    machine = FakeMachine(usage=0.84, packages=[package("p0"), package("p1")])
    machine.lag = 1000.0
    before = machine.now
    loop(machine).run([HOST])
    assert machine.stops() == ["p0", "p1"]
    assert 4.0 <= machine.now - before < 5.0


@pytest.mark.parametrize(("usage", "pause"), [(0.82, 15.0), (0.88, 5.0)])
def test_the_next_cycle_comes_after_the_strategys_pause(usage, pause):
    machine = FakeMachine(usage=usage, packages=[package(f"p{n}", mib=1) for n in range(25)])
    cycles = []
    control = loop(machine, record=cycles)
    control.run([HOST])
    machine.now = cycles[0].ended + pause - 0.01
    control.run([HOST])
    assert len(cycles) == 1
    machine.now = cycles[0].ended + pause
    control.run([HOST])
    assert len(cycles) == 2


def test_a_pause_that_began_under_a_milder_strategy_does_not_hold_at_critical():
    machine, cycles = FakeMachine(usage=0.82, packages=[package(f"p{n}", mib=1) for n in range(25)]), []
    control = loop(machine, record=cycles)
    control.run([HOST])
    machine.base += 150 * MIB
    control.run([HOST])
    control.run([HOST])
    assert [cycle.strategy for cycle in cycles] == ["normal", "critical", "critical"]


def test_a_new_episode_does_not_wait_for_the_pause_of_the_last():
    machine, cycles = FakeMachine(usage=0.82, packages=[package(f"p{n}", mib=20) for n in range(10)]), []
    control = loop(machine, record=cycles)
    control.run([HOST])
    assert cycles[0].outcome == "relieved"
    machine.now += 1
    control.run([HOST])  # sees the relief
    machine.base += 80 * MIB
    machine.now += 1
    control.run([HOST])
    assert len(cycles) == 2


def test_a_clock_that_is_set_back_does_not_hold_up_the_next_cycle():
    machine, cycles = FakeMachine(usage=0.82, packages=[package(f"p{n}", mib=1) for n in range(25)]), []
    control = loop(machine, record=cycles)
    control.run([HOST])
    machine.now -= 3600
    control.run([HOST])
    assert len(cycles) == 2


def test_where_usage_rises_the_high_strategy_takes_one_more():
    machine, cycles = FakeMachine(usage=0.86, packages=[package(f"p{n}", mib=1) for n in range(80)]), []
    control = loop(machine, record=cycles)
    for _ in range(8):
        machine.base += 10 * MIB
        machine.now += 10
        control.run([HOST])
    unloaded = [sum(bool(action.packages) for action in cycle.actions) for cycle in cycles]
    assert unloaded[0] == 7
    assert 8 in unloaded


def test_scopes_wait_for_their_own_pauses():
    machine, cycles = FakeMachine(usage=0.94, packages=[package(f"p{n}", mib=1) for n in range(20)]), []
    control = loop(machine, record=cycles)
    control.run([HOST, Pressure("app", "shop", "autonomous")])
    assert [(cycle.scope, cycle.app, cycle.trigger) for cycle in cycles] == [
        ("host", "", "webhook"),
        ("app", "shop", "autonomous"),
    ]


def test_a_futile_cycle_is_not_repeated_until_something_changes():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p0"), package("p1")]), []
    machine.frees = False
    control = loop(machine, record=cycles)
    control.run([HOST])
    assert cycles[0].outcome == "futile"
    acted = len(machine.actions)
    for _ in range(5):
        machine.now += 10
        control.run([HOST])
    assert len(machine.actions) == acted
    machine.workers[0].packages[0].loads += 1
    machine.now += 10
    control.run([HOST])
    assert len(machine.actions) > acted


def test_a_futile_cycle_is_repeated_under_another_strategy():
    machine, cycles = FakeMachine(usage=0.82, packages=[package("p0")]), []
    machine.frees = False
    control = loop(machine, record=cycles)
    control.run([HOST])
    machine.base += 100 * MIB
    machine.now += 15
    control.run([HOST])
    assert [cycle.strategy for cycle in cycles] == ["normal", "high"]


def test_a_failed_action_is_recorded_and_the_next_one_tried():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p0"), package("p1")]), []
    machine.fails = True
    loop(machine, record=cycles).run([HOST])
    assert [record.result for record in cycles[0].actions] == ["failed"] * 3
    assert machine.stops() == ["p0", "p1"]


def test_after_a_recycling_that_failed_no_other_worker_of_the_app_is_recycled():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p", mechanism="recycle")], workers=3), []
    machine.fails = True
    loop(machine, record=cycles).run([HOST])
    assert [mechanism for mechanism, _, _ in machine.actions].count("recycle") == 1


def test_pressure_on_an_app_touches_its_own_packages_only():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p0")]), []
    control = loop(machine, record=cycles)
    control.run([Pressure("app", "other", "webhook")])
    assert machine.actions == []
    assert [(cycle.outcome, cycle.usage_before) for cycle in cycles] == [("skipped", 0.0)]
    assert "no worker of it serves here" in cycles[0].reason
    control.run([Pressure("app", "shop", "webhook")])
    assert machine.stops() == ["p0"]


def test_an_app_that_goes_away_in_a_cycle_is_not_called_relieved():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p0")]), []
    carry_out = machine.carry_out

    def and_leave(action, *, order_id):
        outcome = carry_out(action, order_id=order_id)
        machine.workers = []
        return outcome

    machine.carry_out = and_leave
    loop(machine, record=cycles).run([Pressure("app", "shop", "webhook")])
    assert cycles[0].outcome != "relieved"
    assert cycles[0].usage_after == cycles[0].usage_before


def test_what_was_unloaded_raises_the_level_that_the_next_cycle_ranks_by():
    dear = {"loads": 1.0, "load_seconds": 1.0}
    packages = [
        package("first", uses=1000.0, **dear),
        package("former", uses=50.0, active_calls=1.0, **dear),
        package("newer", uses=1.0, active_calls=1.0, **dear),
    ]
    machine, cycles = FakeMachine(usage=0.88, packages=packages), []
    control = loop(machine, record=cycles)
    control.run([HOST])
    assert machine.stops() == ["first"]
    for held in machine.workers[0].packages:
        held.active_calls = 0.0
        held.uses += held.name == "newer"
    machine.base += 100 * MIB
    machine.now += 15
    control.run([HOST])
    assert machine.stops() == ["first", "former", "newer"]  # by uses alone newer would come before former


def load_again(machine, **options):
    for worker in machine.workers:
        for held in worker.packages:
            held.loaded, held.loads = 1.0, held.loads + 1
            for name, value in options.items():
                setattr(held, name, value)


def test_what_gave_back_too_little_is_left_alone_and_said_to_be():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p0", loads=1.0), package("p1", active_calls=1.0)]), []
    machine.share = 0.19
    control = loop(machine, record=cycles)
    control.run([HOST])
    assert machine.stops() == ["p0"]
    machine.base = int(0.88 * TOTAL) - 200 * MIB
    load_again(machine, active_calls=0.0)
    machine.now += 60
    control.run([HOST])
    assert machine.stops() == ["p0", "p1"]
    reasons = {skip.package: skip.reason for skip in cycles[-1].skips}
    assert reasons == {"p0": "is quarantined for another 1740 s: stop gave back 19.0 MiB of the 100.0 MiB expected"}
    machine.base = int(0.88 * TOTAL) - 200 * MIB
    machine.now += 1800
    load_again(machine)
    control.run([HOST])
    assert sorted(machine.stops()[2:]) == ["p0", "p1"]


def test_other_workers_of_an_app_are_not_recycled_in_a_cycle_in_which_that_brought_too_little():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p", mechanism="recycle")], workers=3), []
    machine.share = 0.1
    loop(machine, record=cycles).run([HOST])
    assert [mechanism for mechanism, _, _ in machine.actions].count("recycle") == 1


def test_a_worker_that_declined_is_not_held_against_the_package():
    machine, cycles = FakeMachine(usage=0.94, packages=[package("p", mib=50)], workers=8), []
    carry_out = machine.carry_out

    def in_one_of_eight(action, *, order_id):
        return carry_out(replace(action, targets=action.targets[:1]), order_id=order_id)

    machine.carry_out = in_one_of_eight
    control = loop(machine, record=cycles)
    control.run([HOST])
    machine.now += 60
    control.run([HOST])
    assert machine.stops() == ["p", "p"]


def test_ids_of_orders_are_unique():
    machine = FakeMachine(usage=0.97, packages=[package(f"p{n}", mib=1) for n in range(30)])
    control = loop(machine)
    for _ in range(3):
        control.run([HOST])
    ids = [order_id for _, _, order_id in machine.actions]
    assert len(ids) > 20
    assert len(set(ids)) == len(ids)


def test_a_cycle_as_plain_data_carries_the_results():
    machine, cycles = FakeMachine(usage=0.88, packages=[package("p0", active_calls=1.0), package("p1")]), []
    loop(machine, record=cycles).run([HOST])
    content = cycles[0].as_dict()
    assert [action["result"] for action in content["actions"]] == ["done", "done"]
    assert list(content["skips"]) == [{"app": "shop", "package": "p0", "reason": "is in use"}]


@given(
    st.floats(0.5, 1.1),
    st.lists(st.integers(1, 60), max_size=15),
    st.sampled_from([0.0, 0.5, 5.0]),
    st.booleans(),
)
def test_what_no_cycle_ever_does(usage, sizes, lag, frees):
    machine, cycles = FakeMachine(usage=usage, packages=[package(f"p{n}", mib=s) for n, s in enumerate(sizes)]), []
    machine.lag, machine.frees = lag, frees
    control = loop(machine, record=cycles)
    for _ in range(4):
        control.run([HOST])
        machine.now += 20
    limits = {"normal": 5, "high": 7, "critical": 10}
    for cycle in cycles:
        if not cycle.actions:
            assert cycle.outcome in {"recovered", "skipped"}
            assert cycle.reason
            continue
        assert cycle.usage_before >= 0.75
        for before, after in itertools.pairwise(cycle.actions):
            assert before.used_after == after.used_before
        assert (cycle.used_before, cycle.used_after) == (cycle.actions[0].used_before, cycle.actions[-1].used_after)
        assert len({(a.app, p) for a in cycle.actions for p in a.packages}) <= limits[cycle.strategy]
    assert len(set(machine.measured_before)) == len(machine.measured_before)
    if frees and not lag:  # nothing was unloaded that need not have been
        spared = sum(sizes) * MIB - sum(p.memory_bytes for w in machine.workers for p in w.packages if p.loaded)
        last = sizes[int(machine.stops()[-1][1:])] * MIB if machine.stops() else 0
        assert not last or usage * TOTAL - spared + last >= 0.75 * TOTAL - 1


def lately(since, **options):
    return Pressure("host", "", **{"trigger": "webhook", "since": since, "alert_key": "f1", **options})


def test_an_alert_that_a_measurement_does_not_confirm_is_recorded_once():
    machine, cycles = FakeMachine(usage=0.5), []
    control = loop(machine, record=cycles)
    for since in (900.0, 900.0, 900.0, 950.0, 900.0):  # repeated, another one, and the lower level that outlives it
        control.run([lately(since)])
    assert [(cycle.outcome, cycle.pressure_since, cycle.alert_key) for cycle in cycles] == [
        ("recovered", 900.0, "f1"),
        ("recovered", 950.0, "f1"),
    ]
    assert len({cycle.id for cycle in cycles}) == 2
    control.run([lately(990.0, trigger="autonomous")])  # nobody claimed anything
    assert len(cycles) == 2


def test_relief_by_its_own_cycle_is_not_recorded_as_a_recovery():
    machine, cycles = FakeMachine(usage=0.82, packages=[package("p0")]), []
    control = loop(machine, record=cycles)
    control.run([lately(900.0)])
    control.run([lately(900.0)])
    assert [cycle.outcome for cycle in cycles] == ["relieved"]


def test_what_is_left_alone_is_recorded_once_until_it_changes():
    packages = [package("p0", active_calls=1.0), package("p1", active_calls=1.0)]
    machine, cycles = FakeMachine(usage=0.84, packages=packages), []
    machine.workers[0].trim_refused = "frozen"
    control = loop(machine, record=cycles)
    for _ in range(5):
        control.run([HOST])
        machine.now += 20
    (cycle,) = cycles
    assert (cycle.outcome, cycle.reason) == ("skipped", "every loaded package is left alone")
    assert [(skip.package, skip.reason) for skip in cycle.skips] == [("p0", "is in use"), ("p1", "is in use")]
    machine.base += 100 * MIB
    machine.workers[0].packages[1].loaded = 0.0
    control.run([HOST])
    assert [[skip.package for skip in each.skips] for each in cycles] == [["p0", "p1"], ["p0"]]
    machine.workers[0].packages[1].loaded = 1.0
    machine.base -= 100 * MIB
    control.run([HOST])
    assert len(cycles) == 2, "too soon after the last"
    machine.now += 15
    control.run([HOST])
    assert len(cycles) == 3


@pytest.mark.parametrize(
    ("options", "packages", "reason"),
    [
        ({"unloading_enabled": False}, [package("p0")], "unloading for memory pressure is turned off"),
        ({}, [], "nothing is loaded that can be unloaded"),
    ],
)
def test_why_nothing_is_done_is_recorded(options, packages, reason):
    machine, cycles = FakeMachine(usage=0.82, packages=packages), []
    machine.workers[0].trim_refused = "frozen"
    loop(machine, record=cycles, **options).run([HOST])
    assert [(cycle.outcome, cycle.reason) for cycle in cycles] == [("skipped", reason)]


APP = Pressure("app", "shop", "webhook", 900.0, "f1")
OUT_OF_REACH = "fresh workers alone take 92 % of the limit; raise it above 1230 MiB or run one worker less"


@pytest.mark.parametrize(("pressure", "reason"), [(APP, OUT_OF_REACH), (HOST, "every loaded package is left alone")])
def test_where_nothing_can_be_relieved_the_sum_is_recorded(pressure, reason):
    machine, cycles = FakeMachine(usage=0.92, workers=2), []
    for worker in machine.workers:
        worker.trim_refused, worker.baseline_bytes = "frozen", 0.0
        worker.supervisor = "uvicorn"
    loop(machine, record=cycles).run([pressure])
    [cycle] = cycles
    assert cycle.reason == reason
    assert [(skip.app, skip.package, skip.reason) for skip in cycle.skips] == [("shop", "", OUT_OF_REACH)]


def test_a_cycle_tells_its_progress_before_its_first_action_and_after_each():
    machine, told = FakeMachine(usage=0.88, packages=[package(f"p{n}") for n in range(2)]), []
    rules = Rules(thresholds=Thresholds(), keep_loaded=lambda _app, _package, declared: declared)
    control = ControlLoop(
        machine,
        rules=lambda: rules,
        record=lambda cycle: told.append((cycle.outcome, len(cycle.actions))),
        progress=lambda cycle: told.append((cycle.outcome, len(cycle.actions), len(machine.actions))),
        clock=machine.clock,
        sleep=machine.sleep,
    )
    control.run([HOST])
    assert told == [("", 0, 0), ("", 1, 1), ("", 2, 2), ("", 3, 3), ("relieved", 3)]


def test_what_is_left_alone_is_one_line_a_cycle_and_its_reasons_are_for_debugging(caplog):
    caplog.set_level(logging.DEBUG, logger="mempressure.control.loop")
    packages = [package(f"p{number}", active_calls=1.0) for number in range(7)]
    control = loop(FakeMachine(usage=0.88, packages=packages, workers=2))
    control.run([HOST])
    control.run([HOST])
    (line,) = (record for record in caplog.records if record.levelno == logging.INFO)
    assert line.getMessage() == (
        "left alone: scope=host app='' packages=7 names='shop/p0, shop/p1, shop/p2, shop/p3, shop/p4 and 2 more'; "
        "each with its reason at level debug"
    )
    details = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len(details) >= 7
    assert all(detail.startswith("left alone: app=shop package=p") for detail in details)


def calling(machine, control, *, seconds=0.0, **run):
    """Return what is called in a turn of the loop `seconds` later: levels, and what the cycles came to."""
    machine.now += seconds
    before = len(machine.called)
    cycles = control.run([HOST], **run)
    return [level for _, level, _ in machine.called[before:]], [cycle.outcome for cycle in cycles]


def test_callbacks_come_first_and_what_they_give_back_may_be_enough():
    machine = FakeMachine(usage=0.86, packages=[package("p0")], workers=2, callbacks_from="high")
    machine.caches = 200 * MIB
    (cycle,) = loop(machine).run([HOST])
    assert machine.called == [(machine.now, "high", [1, 2])]
    (record,) = cycle.actions
    assert (cycle.outcome, record.mechanism, record.reclaimed_bytes) == ("relieved", "callbacks", 200 * MIB)
    assert record.notes == ("worker 1: drop gave back something",)
    assert cycle.as_dict()["actions"][0]["notes"] == record.notes


def test_callbacks_are_called_at_each_escalation_and_again_after_a_minute_whatever_was_futile():
    machine = FakeMachine(usage=0.82, callbacks_from="warning")
    control = loop(machine)
    assert calling(machine, control) == (["medium"], ["futile"])
    assert calling(machine, control, seconds=1) == ([], [])
    machine.base += 40 * MIB
    assert calling(machine, control, seconds=1)[0] == ["high"]
    machine.base += 60 * MIB
    assert calling(machine, control, seconds=1)[0] == ["emergency"]
    machine.base -= 60 * MIB
    assert calling(machine, control, seconds=1)[0] == []  # a lower level, at which it was called
    assert calling(machine, control, seconds=59) == (["high"], ["futile"])
    assert calling(machine, control, seconds=59)[0] == []
    assert calling(machine, control, seconds=1) == (["high"], ["futile"])


def test_no_pause_holds_up_the_callbacks_of_an_escalation_or_of_a_new_worker():
    machine = FakeMachine(usage=0.86, packages=[package(f"p{n}", mib=1) for n in range(40)], callbacks_from="warning")
    control = loop(machine)
    assert calling(machine, control)[0] == ["high"]
    assert len(machine.stops()) == 7
    measured = machine.measurements
    assert calling(machine, control, seconds=1) == ([], [])
    assert machine.measurements == measured, "a pause costs no measurement"
    machine.base += 60 * MIB  # emergency is the strategy high too, and its pause goes on
    assert calling(machine, control, seconds=1) == (["emergency"], ["futile"])
    assert len(machine.stops()) == 7
    machine.workers.append(machine.workers[0].replaced(pid=2, start_ticks=2, packages=[]))
    assert calling(machine, control, seconds=1)[0] == ["emergency"]
    assert machine.called[-1][2] == [2]
    assert calling(machine, control, seconds=3)[0] == []
    assert len(machine.stops()) == 14, "the pause was not begun anew"


def test_a_paused_scope_gets_its_callbacks_and_nothing_else():
    machine = FakeMachine(usage=0.82, packages=[package("p0", mib=1)], callbacks_from="warning")
    control = loop(machine)
    assert calling(machine, control, paused={HOST.key}) == (["medium"], ["futile"])
    assert calling(machine, control, seconds=1, paused={HOST.key}) == ([], [])
    assert machine.stops() == []
    assert calling(machine, control, seconds=1) == ([], ["futile"])
    assert machine.stops() == ["p0"]


def test_callbacks_that_become_due_within_a_cycle_go_before_the_actions_that_wait():
    machine = FakeMachine(usage=0.81, packages=[package(f"p{n}", mib=1) for n in range(3)], callbacks_from="high")
    act = machine.carry_out

    def carry_out(action, *, order_id):
        if action.packages == ("p0",):  # meanwhile the usage rises
            machine.base += 60 * MIB
        return act(action, order_id=order_id)

    machine.carry_out = carry_out
    (cycle,) = loop(machine).run([HOST])
    assert [record.packages or record.mechanism for record in cycle.actions] == [
        "trim",
        ("p0",),
        "callbacks",
        ("p1",),
        ("p2",),
    ]
    assert len({order_id for *_, order_id in machine.actions}) == 5


def test_a_new_episode_calls_at_once():
    machine = FakeMachine(usage=0.82, callbacks_from="warning")
    control = loop(machine)
    assert calling(machine, control)[0] == ["medium"]
    machine.base -= 100 * MIB
    assert calling(machine, control, seconds=1) == ([], [])
    machine.base += 100 * MIB
    assert calling(machine, control, seconds=1)[0] == ["medium"]


def test_callbacks_that_cannot_be_called_are_recorded_with_the_reason():
    machine, cycles = FakeMachine(usage=0.82, callbacks_from="warning"), []
    machine.workers[0].trim_refused = "frozen"
    machine.workers[0].unsupported = {"on_pressure": "gevent has patched threading"}
    control = loop(machine, record=cycles)
    for _ in range(3):
        control.run([HOST])
        machine.now += 20
    (cycle,) = cycles
    assert cycle.outcome == "skipped"
    assert ["gevent" in skip.reason for skip in cycle.skips] == [True]
