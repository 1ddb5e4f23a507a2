import threading

import pytest

from mempressure.act import executor as action_module
from mempressure.act.executor import Executor
from mempressure.act.succession import Succession, Successions
from mempressure.decide.plan import Action, Target
from mempressure.errors import AgentUnreachableError
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from tests.support.builders.package_states import isolated
from tests.support.doubles.clock import Clock


class Agents:
    """Answers orders in place of `give_order`: what the test put under (pid, op)."""

    def __init__(self):
        self.orders = []
        self.answers = {}

    def __call__(self, path, order, *, owner, timeout):
        assert owner == 0
        pid = int(path.stem)
        self.orders.append((pid, dict(order)))
        answer = self.answers.get((pid, order["op"]), {"id": order["id"], "reclaimed_bytes": 5, "skipped": None})
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def agents(monkeypatch):
    agents = Agents()
    monkeypatch.setattr(action_module, "give_order", agents)
    return agents


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def app(tmp_path, make_worker):
    package = isolated(size=10)
    workers = tuple(make_worker(pid=pid, start_ticks=pid, private_bytes=90.0, packages=[package]) for pid in (11, 12))
    return AppReading("shop", 0, tmp_path, workers, None)


def reading(app, *workers):
    apps = {app.name: AppReading(app.name, 0, app.directory, tuple(workers), None)}
    return NodeReading(0.0, MemoryReading(100, 50), apps)


def executor(clock, read):
    return Executor(read, clock=clock, sleep=clock.sleep)


def stop(app):
    targets = tuple(Target(worker, {"pandas": 60.0}) for worker in app.workers)
    return Action("stop", app, ("pandas",), targets, 0, "idle")


def recycle(app):
    return Action("recycle", app, ("sympy",), (Target(app.workers[0], {"sympy": 60.0}),), 0, "idle")


def test_every_worker_is_ordered_with_an_id_of_its_own(agents, app, clock):
    outcome = executor(clock, lambda: reading(app)).carry_out(stop(app), order_id="c1.0")
    assert (outcome.reclaimed_bytes, outcome.workers, outcome.skipped, outcome.errors) == (10, 2, (), ())
    assert agents.orders == [
        (
            pid,
            {"id": f"c1.0.{pid}", "op": "stop", "package": "pandas", "idle_for": {"pandas": 60.0}, "level": "medium"},
        )
        for pid in (11, 12)
    ]


def test_a_worker_that_is_to_be_idle_as_a_whole_is_told_for_how_long(agents, app, clock):
    agents.answers[(11, "recycle")] = {"id": "x", "reclaimed_bytes": 0, "skipped": "was at work 2.0 s ago"}
    action = Action("recycle", app, (), (Target(app.workers[0], None, idle_seconds=30.0),), 0, "idle")
    outcome = executor(clock, lambda: reading(app)).carry_out(action, order_id="c1.0")
    assert outcome.skipped == ("worker 11: was at work 2.0 s ago",)
    order = {"id": "c1.0.11", "op": "recycle", "idle_for": None, "level": "medium", "idle_seconds": 30.0}
    assert agents.orders == [(11, order)]


def test_what_one_worker_skips_or_fails_the_others_still_do(agents, app, clock):
    agents.answers[(11, "stop")] = {"id": "x", "reclaimed_bytes": 0, "skipped": "in use"}
    outcome = executor(clock, lambda: reading(app)).carry_out(stop(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers, outcome.skipped) == (5, 1, ("worker 11: in use",))
    agents.answers[(11, "stop")] = AgentUnreachableError("agent at 11.sock: Connection refused")
    outcome = executor(clock, lambda: reading(app)).carry_out(stop(app), order_id="c")
    assert (outcome.workers, outcome.errors) == (1, ("agent at 11.sock: Connection refused",))


def sharing(app):
    first, *others = app.workers
    return Action("stop", app, ("pandas",), (Target(first, {"pandas": 60.0}, sharing=tuple(others)),), 0, "idle")


def test_of_workers_that_share_a_process_one_is_ordered_and_it_is_done_in_all(agents, app, clock):
    outcome = executor(clock, lambda: reading(app)).carry_out(sharing(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers, outcome.skipped, outcome.errors) == (5, 2, (), ())
    assert [pid for pid, _ in agents.orders] == [11]


def test_where_it_does_not_answer_another_one_that_shares_is_ordered(agents, app, clock):
    agents.answers[(11, "stop")] = AgentUnreachableError("agent at 11.sock: no answer")
    outcome = executor(clock, lambda: reading(app)).carry_out(sharing(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers, outcome.errors) == (5, 2, ())
    assert outcome.notes == ("agent at 11.sock: no answer",)
    assert [order["id"] for _, order in agents.orders] == ["c.11", "c.12"]
    agents.answers[(12, "stop")] = AgentUnreachableError("agent at 12.sock: no answer")
    outcome = executor(clock, lambda: reading(app)).carry_out(sharing(app), order_id="d")
    assert outcome.errors == ("agent at 11.sock: no answer; agent at 12.sock: no answer",)
    assert (outcome.workers, outcome.result) == (0, "failed")


def test_what_one_that_shares_declines_no_other_is_asked_for(agents, app, clock):
    agents.answers[(11, "stop")] = {"id": "x", "reclaimed_bytes": 0, "skipped": "in use"}
    outcome = executor(clock, lambda: reading(app)).carry_out(sharing(app), order_id="c")
    assert (outcome.workers, outcome.skipped) == (0, ("worker 11: in use",))
    assert [pid for pid, _ in agents.orders] == [11]


def test_a_replaced_worker_does_not_give_back_what_others_share(agents, app, clock, make_worker):
    package = isolated(size=10, processes_id="a1")
    old, sibling = (each.replaced(packages=[package]) for each in app.workers)
    new = make_worker(pid=13, start_ticks=13, private_bytes=20.0, packages=[package])
    for others, expected in (((sibling,), 70), ((), 70)):  # its successor has the same ones, as the last of them
        sequence = iter([reading(app, old, *others), reading(app, *others, new)])
        outcome = executor(clock, lambda steps=sequence: next(steps)).carry_out(recycle(app), order_id="c")
        assert outcome.reclaimed_bytes == expected
    sequence = iter([reading(app, old), reading(app, new.replaced(packages=[]))])
    assert executor(clock, lambda: next(sequence)).carry_out(recycle(app), order_id="c").reclaimed_bytes == 80


def test_measuring_asks_every_worker_and_survives_the_hung_ones(agents, app, clock):
    agents.answers[(11, "measure")] = AgentUnreachableError("no answer in time")
    now = reading(app, *app.workers)
    assert executor(clock, lambda: now).measure() is now
    assert sorted((pid, order["op"]) for pid, order in agents.orders) == [(11, "measure"), (12, "measure")]


def test_a_recycled_worker_is_waited_out_until_its_successor_serves(agents, app, clock, make_worker):
    old, sibling = app.workers
    booting = make_worker(pid=13, start_ticks=13, serving=False, private_bytes=20.0)
    serving = make_worker(pid=13, start_ticks=13, serving=True, private_bytes=20.0)
    sequence = iter(
        [
            reading(app, old, sibling),
            reading(app, old, sibling),
            reading(app, old, sibling, booting),
            reading(app, sibling, booting),
            reading(app, sibling, serving),
        ]
    )
    outcome = executor(clock, lambda: next(sequence)).carry_out(recycle(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers, outcome.errors) == (80, 1, ())
    assert next(sequence, None) is None


def test_a_successor_does_not_count_while_the_old_worker_still_drains(agents, app, clock, make_worker):
    old, sibling = app.workers
    new = make_worker(pid=13, start_ticks=13, private_bytes=20.0)
    sequence = iter([reading(app, old, sibling), reading(app, old, sibling, new), reading(app, sibling, new)])
    assert executor(clock, lambda: next(sequence)).carry_out(recycle(app), order_id="c").workers == 1
    assert next(sequence, None) is None


def test_a_successor_that_never_comes_is_an_error_that_says_where_to_look(agents, app, clock):
    _, sibling = app.workers
    outcome = executor(clock, lambda: reading(app, sibling)).carry_out(recycle(app), order_id="c")
    assert outcome.workers == 0
    assert "no successor serves after 60 s; see the log of its supervisor" in outcome.errors[0]


def test_the_successor_of_another_worker_is_not_taken_for_its_own(agents, app, clock, make_worker):
    old, sibling = app.workers
    earlier = make_worker(pid=13, start_ticks=13, private_bytes=20.0)  # of a worker recycled in the same cycle
    own = make_worker(pid=14, start_ticks=14, private_bytes=30.0)
    sequence = iter(
        [reading(app, old, sibling, earlier), reading(app, sibling, earlier), reading(app, sibling, earlier, own)]
    )
    outcome = executor(clock, lambda: next(sequence)).carry_out(recycle(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers) == (70, 1)


def test_no_other_worker_is_recycled_before_a_successor_that_did_not_come_in_time(agents, app, clock, make_worker):
    _, sibling = app.workers
    now = [reading(app, *app.workers)]
    second = Action("recycle", app, ("sympy",), (Target(sibling, {"sympy": 60.0}),), 0, "idle")
    machine = executor(clock, lambda: now[0])
    assert "no successor serves" in machine.carry_out(recycle(app), order_id="c").errors[0]
    now[0] = reading(app, sibling)
    outcome = machine.carry_out(second, order_id="d")
    assert outcome.skipped == ("worker 12: the successor of worker 11 does not serve yet",)
    now[0] = reading(app, sibling, make_worker(pid=13, start_ticks=13))
    assert "no successor serves" in machine.carry_out(second, order_id="e").errors[0]  # it was ordered


def test_the_process_that_acts_next_waits_for_the_successor_of_the_one_that_ended(
    agents, app, clock, make_worker, tmp_path
):
    """It was a worker, and ordered its own end; the next one would be the only worker that serves."""
    _, sibling = app.workers
    path = tmp_path / "successions.json"
    Successions(path).begin(app.name, Succession((11, 11), frozenset({(11, 11), (12, 12)})))
    first = make_worker(pid=13, start_ticks=13, private_bytes=20.0)
    second = make_worker(pid=14, start_ticks=14, private_bytes=30.0)
    sequence = iter(
        [
            reading(app, sibling),
            reading(app, sibling),
            reading(app, sibling, first),  # only now the order is given
            reading(app, sibling, first),
            reading(app, first, second),
        ]
    )
    machine = Executor(lambda: next(sequence), clock=clock, sleep=clock.sleep, successions=Successions(path))
    action = Action("recycle", app, ("pandas",), (Target(sibling, {"pandas": 60.0}),), 0, "idle")
    outcome = machine.carry_out(action, order_id="c")
    assert (outcome.workers, outcome.skipped, outcome.reclaimed_bytes) == (1, (), 70)
    assert next(sequence, None) is None
    assert [pid for pid, _ in agents.orders] == [12]


def test_a_worker_that_went_on_serving_because_no_successor_came_may_be_ordered_again(agents, app, clock):
    machine = executor(clock, lambda: reading(app, *app.workers))
    assert "no successor serves" in machine.carry_out(recycle(app), order_id="c").errors[0]
    assert machine.carry_out(recycle(app), order_id="d").skipped == ()


def test_an_app_that_was_started_anew_waits_for_no_successor(agents, app, clock, make_worker):
    now = [reading(app, app.workers[1])]
    machine = executor(clock, lambda: now[0])
    machine.carry_out(recycle(app), order_id="c")
    new = make_worker(pid=14, start_ticks=14, serving=False)
    now[0] = reading(app, new)
    action = Action("recycle", app, ("sympy",), (Target(new, {"sympy": 60.0}),), 0, "idle")
    assert machine.carry_out(action, order_id="d").skipped == ()


def callbacks(app):
    return Action("callbacks", app, (), tuple(Target(worker, {}) for worker in app.workers), 0, "at level high")


def test_what_each_worker_tells_is_kept_with_its_pid(agents, app, clock):
    agents.answers[(11, "callbacks")] = {
        "id": "c",
        "reclaimed_bytes": 7,
        "skipped": None,
        "notes": ["a gave 7", "b\nno"],
    }
    agents.answers[(12, "callbacks")] = {"id": "c", "reclaimed_bytes": 0, "skipped": "gevent has patched threading"}
    outcome = executor(clock, lambda: reading(app)).carry_out(callbacks(app), order_id="c")
    assert outcome.notes == ("worker 11: a gave 7", "worker 11: b no")
    assert (outcome.reclaimed_bytes, outcome.workers) == (7, 1)
    assert outcome.skipped == ("worker 12: gevent has patched threading",)


@pytest.mark.parametrize(
    ("notes", "kept"),
    [
        (None, []),
        ("text", []),
        ({"a": 1}, []),
        ([1, None, ["x"], "y"], ["y"]),
        (["\x1b[31mred" + "x" * 1000], [" [31mred" + "x" * 392]),
        (["n"] * 1000, ["n"] * 50),
    ],
)
def test_what_a_worker_tells_is_limited_and_printable(agents, app, clock, notes, kept):
    agents.answers[(11, "stop")] = {"id": "c", "reclaimed_bytes": 5, "skipped": None, "notes": notes}
    outcome = executor(clock, lambda: reading(app)).carry_out(stop(app), order_id="c")
    assert outcome.notes == tuple(f"worker 11: {note}" for note in kept)


def test_callbacks_are_called_in_all_workers_at_once_and_other_actions_in_one_after_the_other(
    agents, app, clock, monkeypatch
):
    both = threading.Barrier(2, timeout=20)

    def answered_together(path, order, *, owner, timeout):
        both.wait()
        return agents(path, order, owner=owner, timeout=timeout)

    monkeypatch.setattr(action_module, "give_order", answered_together)
    outcome = executor(clock, lambda: reading(app)).carry_out(callbacks(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers, outcome.errors) == (10, 2, ())
    assert {order["id"] for _, order in agents.orders} == {"c.11", "c.12"}
    both.reset()
    both = threading.Barrier(2, timeout=0.05)
    with pytest.raises(threading.BrokenBarrierError):
        executor(clock, lambda: reading(app)).carry_out(stop(app), order_id="c")


def test_one_that_hangs_or_breaks_does_not_hide_the_others(agents, app, clock, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    agents.answers[(11, "callbacks")] = RuntimeError("a fault of ours")
    outcome = executor(clock, lambda: reading(app)).carry_out(callbacks(app), order_id="c")
    assert (outcome.workers, outcome.errors) == (1, ("worker 11: its order was not finished; the log says why",))
    assert [type(each.exc_value) for each in raised] == [RuntimeError]


@pytest.mark.parametrize("nonsense", [-1, None, "5", 1.5, True, 1 << 70])
def test_a_nonsensical_answer_is_an_error_of_its_worker_alone(agents, app, clock, nonsense):
    agents.answers[(11, "stop")] = {"id": "x", "reclaimed_bytes": nonsense, "skipped": None}
    outcome = executor(clock, lambda: reading(app)).carry_out(stop(app), order_id="c")
    assert (outcome.reclaimed_bytes, outcome.workers) == (5, 1)
    assert "reclaimed_bytes=" in outcome.errors[0]


def test_a_worker_that_declines_is_not_waited_for(agents, app, clock):
    agents.answers[(11, "recycle")] = {"id": "c", "reclaimed_bytes": 0, "skipped": "sympy was used 1.0 s ago"}
    before = clock.now
    outcome = executor(clock, lambda: reading(app)).carry_out(recycle(app), order_id="c")
    assert outcome.skipped == ("worker 11: sympy was used 1.0 s ago",)
    assert clock.now == before
