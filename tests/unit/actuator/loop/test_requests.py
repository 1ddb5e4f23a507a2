import threading
from pathlib import Path

import pytest

from mempressure.act.executor import Outcome
from mempressure.config.thresholds import Thresholds
from mempressure.decide.eligibility import Rules
from mempressure.errors import UnknownPackageError
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import PackageState, WorkerState
from mempressure_actuator.loop import requests as module
from mempressure_actuator.loop.request_plans import plan_trim, plan_unload
from mempressure_actuator.loop.requests import UnloadRequests, WorkersBusyError

NOW = 10_000.0


def package(name="pandas", *, idle=1e3, mechanism="stop", **options):
    defaults = {"source": "process", "timeout": 60.0, "loaded": 1.0}
    return PackageState(name=name, mechanism=mechanism, last_used=NOW - idle, **(defaults | options))


def worker(*packages, pid=1, **options):
    defaults = {"app": "shop", "started": 0.0, "supervisor": "gunicorn"}
    return WorkerState(pid=pid, start_ticks=pid, pid_namespace="ns", packages=list(packages), **(defaults | options))


def node(**apps):
    readings = {name: AppReading(name, 1000, Path("/none"), tuple(workers), None) for name, workers in apps.items()}
    return NodeReading(NOW, MemoryReading(total=1000, available=900), readings)


def rules(**options):
    defaults = {"thresholds": Thresholds(), "keep_loaded": lambda _app, _package, declared: declared}
    return Rules(**(defaults | options))


class FakeMachine:
    def __init__(self, reading, outcome=None):
        self.reading = reading
        self.outcome = outcome or Outcome(7, 1, (), (), 0.1)
        self.actions = []
        self.entered = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def measure(self):
        return self.reading

    def carry_out(self, action, *, order_id):
        self.actions.append((action.mechanism, action.app.name, action.packages, order_id))
        self.entered.set()
        assert self.may_go_on.wait(20)
        return self.outcome


def requests(machine, *, record=None, acting=None, **options):
    return UnloadRequests(
        machine,
        acting=acting or threading.Lock(),
        rules=lambda: rules(**options),
        record=(record if record is not None else []).append,
    )


def planned(reading, name="pandas", *, app="", force=False, **options):
    plan = plan_unload(reading, name, app=app, force=force, rules=rules(**options))
    return [(action.mechanism, action.app.name, action.targets[0].worker.pid) for action in plan.actions], plan


@pytest.mark.parametrize(
    ("options", "force", "done"),
    [
        ({}, False, True),
        ({"idle": 59.0}, False, False),
        ({"idle": 59.0}, True, True),
        ({"keep_loaded": True}, False, False),
        ({"keep_loaded": True}, True, True),
        ({"active_calls": 1.0}, False, False),
        ({"active_calls": 1.0}, True, False),
    ],
)
@pytest.mark.parametrize("mechanism", ["stop", "recycle"])
def test_force_overrides_idle_and_keep_loaded_and_never_use(mechanism, options, force, done):
    reading = node(shop=[worker(package(mechanism=mechanism, **options)), worker(pid=2)])
    actions, _ = planned(reading, force=force)
    assert actions == ([(mechanism, "shop", 1)] if done else [])


def test_refaults_hold_up_a_request_and_not_a_forced_one():
    again = package(idle=100.0, refault_level=1.0, last_refault=NOW, refault_delay=3.0)
    assert planned(node(shop=[worker(again)]))[0] == []
    assert planned(node(shop=[worker(again)]), force=True)[0] == [("stop", "shop", 1)]


def test_the_order_depends_on_force():
    reading = node(shop=[worker(package())])
    assert planned(reading)[1].actions[0].targets[0].idle_for == {"pandas": 60.0}
    assert planned(reading, force=True)[1].actions[0].targets[0].idle_for == {"pandas": 0.0}


def test_only_the_package_that_was_named_is_stopped():
    reading = node(shop=[worker(package(), package("numpy"), package("sympy", mechanism="recycle")), worker(pid=2)])
    assert planned(reading)[0] == [("stop", "shop", 1)]


def test_processes_that_workers_share_are_asked_for_once():
    shared = package(processes_id="a1", memory_bytes=30.0)
    workers = [worker(shared), worker(shared, pid=2), worker(package(processes_id="a1", loaded=0.0), pid=3)]
    actions, plan = planned(node(shop=workers))
    assert actions == [("stop", "shop", 1)]
    assert (plan.actions[0].expected_bytes, plan.actions[0].workers) == (30, 3)
    # Idle here, in use there, in a worker that has not noticed yet that they run.
    workers[2] = worker(package(processes_id="a1", loaded=0.0, active_calls=1.0), pid=3)
    assert planned(node(shop=workers), force=True)[0] == []
    machine = FakeMachine(node(shop=workers[:2]), Outcome(30, 2, (), (), 0.1))
    (result,) = requests(machine).unload("pandas")
    assert (result["mechanism"], result["workers"], result["reclaimed_bytes"]) == ("stop", 2, 30)
    assert (result["skipped"], result["errors"], len(machine.actions)) == ([], [], 1)


def test_recycling_asks_for_everything_it_takes_along():
    held = [package("numpy", mechanism="recycle", idle=1.0), package(mechanism="recycle")]
    actions, plan = planned(node(shop=[worker(*held), worker(pid=2)]))
    assert actions == []
    assert "numpy was used 1.0 s ago" in plan.skips[0].reason


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({}, []),
        ({}, [worker(pid=2, serving=False)]),
        ({"recycle_refused": "granian"}, [worker(pid=2)]),
        ({"supervisor": ""}, [worker(pid=2)]),
        ({"started": NOW - 1}, [worker(pid=2)]),
        ({"serving": False}, [worker(pid=2)]),
    ],
)
def test_force_never_makes_an_unsafe_recycling(options, others, force):
    reading = node(shop=[worker(package(mechanism="recycle"), **options), *others])
    assert planned(reading, force=force)[0] == []


@pytest.mark.parametrize(("setting", "done"), [("high", True), ("emergency", True), ("never", False)])
def test_never_means_never(setting, done):
    reading = node(shop=[worker(package(mechanism="recycle")), worker(pid=2)])
    assert bool(planned(reading, recycle_from=setting)[0]) is done


def test_asking_works_where_pressure_unloads_nothing():
    assert planned(node(shop=[worker(package())]), unloading_enabled=False)[0] == [("stop", "shop", 1)]


def test_one_app_or_all_that_have_it():
    reading = node(shop=[worker(package())], till=[worker(package(), app="till", pid=2)], bare=[worker(app="bare")])
    assert planned(reading)[0] == [("stop", "shop", 1), ("stop", "till", 2)]
    assert planned(reading, app="till")[0] == [("stop", "till", 2)]


@pytest.mark.parametrize(
    ("name", "app", "message"),
    [
        ("nothing", "", "no worker of app here tracks 'nothing'; known are numpy, pandas"),
        ("numpy", "shop", "no worker of app 'shop' tracks 'numpy'; known are pandas"),
        ("pandas", "none", "no app 'none' has workers here; known are shop, till"),
    ],
)
def test_an_unknown_package_names_the_known_ones(name, app, message):
    reading = node(shop=[worker(package())], till=[worker(package("numpy"), pid=2)])
    with pytest.raises(UnknownPackageError, match=message):
        planned(reading, name, app=app)


def test_one_result_an_app_with_the_reason_if_it_was_not_unloaded():
    machine = FakeMachine(
        node(
            a=[worker(package())],
            b=[worker(package(loaded=0.0))],
            c=[worker(package(idle=1.0))],
            d=[worker(package(mechanism="trim"))],
            e=[worker(package(mechanism="recycle")), worker(pid=2)],
        )
    )
    cycles = []
    results = requests(machine, record=cycles, recycle_from="never").unload("pandas")
    assert [(r["app"], r["reclaimed_bytes"], r["skipped_reason"]) for r in results] == [
        ("a", 7, None),
        ("b", 0, "is not loaded"),
        ("c", 0, "was used 1.0 s ago, idle is 60 s"),
        ("d", 0, "its mechanism, trim, does not unload packages here"),
        ("e", 0, "worker 1: workers are never recycled (MEMPRESSURE_RECYCLE=never)"),
    ]
    (cycle,) = cycles
    assert (cycle.trigger, cycle.strategy, cycle.outcome) == ("api", "requested", "done")
    assert cycle.usage_before == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(0, 0, ("worker 1: is in use",), (), 0.1), "worker 1: is in use"),
        (Outcome(0, 0, (), ("agent: no answer",), 0.1), "agent: no answer"),
    ],
)
def test_what_the_agent_says_is_the_reason(outcome, reason):
    machine = FakeMachine(node(shop=[worker(package())]), outcome)
    (result,) = requests(machine).unload("pandas")
    assert result["skipped_reason"] == reason
    assert result["workers"] == 0


def test_where_nothing_was_to_do_that_is_recorded():
    cycles = []
    requests(FakeMachine(node(shop=[worker(package(loaded=0.0))])), record=cycles).unload("pandas")
    (cycle,) = cycles
    assert (cycle.outcome, cycle.actions) == ("skipped", [])
    assert "nothing can be unloaded as requested" in cycle.reason


def test_ids_of_orders_differ():
    machine = FakeMachine(node(shop=[worker(package())]))
    asked = requests(machine)
    for _ in range(3):
        asked.unload("pandas")
    assert len({order_id for *_, order_id in machine.actions}) == 3


def test_trimming_reports_every_worker():
    reading = node(
        shop=[worker(pid=1), worker(pid=2, trim_refused="forked"), worker(pid=3, serving=False)],
        till=[worker(pid=4, app="till")],
    )
    assert [action.targets[0].worker.pid for action in plan_trim(reading)] == [1, 4]
    assert {action.mechanism for action in plan_trim(reading)} == {"trim"}
    results = requests(FakeMachine(reading)).trim()
    assert [(r["app"], r["pid"], r["reclaimed_bytes"], r["skipped_reason"]) for r in results] == [
        ("shop", 1, 7, None),
        ("shop", 2, 0, "forked"),
        ("shop", 3, 0, "is not serving"),
        ("till", 4, 7, None),
    ]


def test_callbacks_are_called_before_a_requested_trim_and_where_it_is_refused():
    callbacks = {"callbacks": 1.0, "callbacks_from": "medium"}
    reading = node(
        shop=[
            worker(pid=1, **callbacks),
            worker(pid=2, trim_refused="forked", **callbacks),
            worker(pid=3, trim_refused="forked", unsupported={"on_pressure": "gevent"}, **callbacks),
            worker(pid=4, serving=False, **callbacks),
            worker(pid=5, callbacks=1.0, callbacks_from="high"),
        ]
    )
    planned = [(action.mechanism, action.targets[0].worker.pid, action.level) for action in plan_trim(reading)]
    assert planned == [
        ("callbacks", 1, "medium"),
        ("trim", 1, "medium"),
        ("callbacks", 2, "medium"),
        ("trim", 5, "medium"),
    ]
    results = requests(FakeMachine(reading)).trim()
    assert [(r["pid"], r["reclaimed_bytes"], r["skipped_reason"]) for r in results] == [
        (1, 14, None),
        (2, 7, "forked"),
        (3, 0, "forked"),
        (4, 0, "is not serving"),
        (5, 7, None),
    ]


def test_a_request_waits_for_other_actions_only_so_long(monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    acting = threading.Lock()
    machine = FakeMachine(node(shop=[worker(package())]))
    with acting, pytest.raises(WorkersBusyError, match="again later"):
        requests(machine, acting=acting).unload("pandas")
    assert machine.actions == []


def test_only_so_many_wait():
    machine = FakeMachine(node(shop=[worker(package())]))
    machine.may_go_on.clear()
    asked = requests(machine)
    threads = [threading.Thread(target=asked.unload, args=("pandas",)) for _ in range(module.MAX_WAITING)]
    for thread in threads:
        thread.start()
    try:
        assert machine.entered.wait(20)
        deadline = threading.Event()
        while asked._waiting._value:  # until all of them have a place
            deadline.wait(0.01)
        with pytest.raises(WorkersBusyError, match="wait for the workers already"):
            asked.trim()
    finally:
        machine.may_go_on.set()
        for thread in threads:
            thread.join(20)
    assert asked.unload("pandas")[0]["skipped_reason"] is None
