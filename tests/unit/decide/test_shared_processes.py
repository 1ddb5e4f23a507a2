"""The plan for package processes that workers share: one order, idle in all workers or in none, counted once."""

from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.plan import identity
from mempressure.decide.quarantine import in_force, judged
from mempressure.decide.ranking import Ageing, observed, value_of
from tests.unit.decide.test_plan import NOW, package, plan, reading, reasons, worker

MIB = 1 << 20


def shared(name="pandas", **options):
    return package(name, **({"processes_id": "a1", "memory_bytes": 30.0 * MIB} | options))


def orders(made):
    return [[[each.pid for each in target.workers] for target in action.targets] for action in made.actions]


def test_one_order_ends_what_workers_share():
    made = plan(reading(*(worker(shared(), pid=pid) for pid in (1, 2, 3))), usage=0.82)
    assert orders(made) == [[[1, 2, 3]]]
    (action,) = made.actions
    assert (action.expected_bytes, action.workers) == (30 * MIB, 3)
    assert action.targets[0].idle_for == {"pandas": 60.0}


def test_it_is_idle_in_all_workers_or_in_none():
    busy = [shared(active_calls=1.0), shared(waiting_calls=1.0, active_calls=1.0), shared(idle=59.0)]
    busy.append(shared(active_calls=1.0, loaded=0.0))  # it calls, and has not noticed yet that they run
    for one in busy:
        made = plan(reading(worker(shared(), pid=1), worker(one, pid=2)), usage=0.82)
        assert orders(made) == []
        assert reasons(made)["pandas"] in ("is in use", "was used 59.0 s ago, idle is 60 s")


def test_one_worker_that_wants_to_keep_them_loaded_keeps_them():
    apps = reading(worker(shared(), pid=1), worker(shared(keep_loaded=True), pid=2))
    assert orders(plan(apps, usage=0.82)) == []
    assert orders(plan(apps, usage=0.86)) == [[[1, 2]]]


def test_two_generations_are_two_orders_and_of_one_action():
    old, new = shared(), shared(processes_id="b2", memory_bytes=20.0 * MIB)
    made = plan(reading(worker(old, pid=1), worker(new, pid=2), worker(old, pid=3)), usage=0.82)
    assert orders(made) == [[[1, 3], [2]]]
    assert made.actions[0].expected_bytes == 50 * MIB
    in_use = plan(reading(worker(old, pid=1), worker(shared(processes_id="b2", active_calls=1.0), pid=2)), usage=0.82)
    assert orders(in_use) == [[[1]]]


def test_what_serves_and_published_last_is_ordered_first():
    hung = worker(shared(), pid=1, sampled=NOW - 30)
    ending = worker(shared(), pid=2, serving=False)
    assert orders(plan(reading(hung, ending, worker(shared(), pid=3)), usage=0.82)) == [[[3, 1, 2]]]


def test_an_action_is_the_same_whichever_worker_is_ordered():
    one, other = worker(shared(), pid=1), worker(shared(), pid=2)
    (action,) = plan(reading(one, other), usage=0.82).actions
    (again,) = plan(reading(one.replaced(sampled=NOW - 1), other), usage=0.82).actions
    assert action.targets[0].worker.pid != again.targets[0].worker.pid
    assert identity(action) == identity(again)
    (loaded_again,) = plan(reading(one, worker(shared(loads=1.0), pid=2)), usage=0.82).actions
    assert identity(action) != identity(loaded_again)


def test_a_refault_counts_whichever_worker_started_the_process():
    refaulted = shared(idle=70.0, refault_level=1.0, last_refault=NOW, refault_delay=4.0)
    for workers in ((refaulted, shared(idle=70.0)), (shared(idle=70.0), refaulted)):
        made = plan(reading(*(worker(each, pid=pid) for pid, each in enumerate(workers, 1))), usage=0.82)
        assert reasons(made)["pandas"] == "was loaded again 4 s after its last unloading; left alone for 120 s"


def test_the_calls_of_all_workers_make_what_they_share_worth_keeping():
    """Pandas is called 4 times by each of three workers, of which one started it; sympy 9 times by its only one."""
    calls = {"uses": 4.0, "memory_bytes": 30.0 * MIB}
    first = shared(loads=1.0, load_seconds=1.0, **calls)
    alone = package("sympy", uses=9.0, loads=1.0, load_seconds=1.0, memory_bytes=30.0 * MIB)
    app = reading(worker(first, alone, pid=1), worker(shared(**calls), pid=2), worker(shared(**calls), pid=3))
    assert [action.packages[0] for action in plan(app, usage=0.82).actions] == ["sympy", "pandas"]


def test_quarantine_holds_for_the_processes_and_not_for_a_worker():
    key = ("shop", "pandas", "stop")

    def held(loads, *pids, processes="a1", mib=30.0):
        each = shared(loads=loads, processes_id=processes, memory_bytes=mib * MIB)
        return [(worker(each, pid=pid), each) for pid in pids]

    before = held(1.0, 1, 2)
    quarantine = judged({}, key, before, expected_bytes=30.0 * MIB, reclaimed_bytes=1.0, now=NOW)
    assert in_force(quarantine, key, before[::-1], now=NOW)
    assert in_force(quarantine, key, held(1.0, 1, 2, mib=90.0), now=NOW)  # the same processes
    assert in_force(quarantine, key, held(2.0, 1, 2), now=NOW)  # others, which hold as much
    assert not in_force(quarantine, key, held(2.0, 1, 2, mib=90.0), now=NOW)
    assert not in_force(quarantine, key, held(1.0, 1, 2, processes="b2", mib=90.0), now=NOW)


def test_their_level_of_ageing_is_that_of_the_last_use_by_any_worker():
    first = [worker(shared(uses=1.0), pid=pid) for pid in (1, 2)]
    then = [first[0], worker(shared(uses=2.0), pid=2)]
    ageing = observed(Ageing(), [reading(*first)])
    ageing = observed(Ageing(5.0, ageing.marks), [reading(*then)])
    held = [(each, package) for each in then for package in each.packages]
    assert value_of(held, ageing) == 5.0
    assert value_of(held[::-1], ageing) == 5.0
    assert value_of(held[:1], ageing) == 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["a1", "b2", ""]), st.sampled_from([0.0, 1.0]), st.integers(0, 200)), max_size=5
    ),
    st.randoms(use_true_random=False),
)
def test_the_plan_does_not_depend_on_the_order_of_the_workers(workers, random):
    states = [
        worker(shared(processes_id=name, active_calls=calls, idle=float(idle)), pid=pid, sampled=NOW - pid)
        for pid, (name, calls, idle) in enumerate(workers, 1)
    ]
    made, other = (plan(reading(*each), usage=0.86) for each in (states, random.sample(states, len(states))))
    assert [set(map(tuple, each)) for each in orders(made)] == [set(map(tuple, each)) for each in orders(other)]
    assert [action.expected_bytes for action in made.actions] == [action.expected_bytes for action in other.actions]
    ordered = [pid for each in orders(made) for pids in each for pid in pids]
    assert len(ordered) == len(set(ordered))
