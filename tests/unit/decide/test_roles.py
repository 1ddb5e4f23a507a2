import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.roles import ORDER, PARTS, roles, split
from mempressure.measure.reading import UNKNOWN
from mempressure.state.node import proportional_bytes
from mempressure.state.records import WorkerState
from tests.support.builders.package_states import isolated

MIB = 1 << 20
NOW = 1000.0


def worker(pid=1, *, packages=(), **values):
    sizes = {name: value * MIB if value > 0 else value for name, value in values.items() if name.endswith("_bytes")}
    state = {"app": "shop", "pid": pid, "start_ticks": 1, "pid_namespace": "ns", "started": 0.0, "sampled": NOW}
    return WorkerState(**state | values | sizes, packages=list(packages))


def gunicorn(pid=1, **values):
    return worker(pid, supervisor="gunicorn", supervisor_pid=9, role="worker", **values)


def shown(*workers):
    """Return title, number of processes, and the known parts in MiB."""
    return [
        (role.title, role.processes, {part: size / MIB for part, size in role.split.parts()})
        for role in roles(workers, now=NOW)
    ]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ((100, 80, 50, 10), {"shared": 20, "fresh": 50, "late": 10, "grown": 20, "unsplit": 0}),
        ((100, 80, 50, 70), {"shared": 20, "fresh": 50, "late": 30, "grown": 0, "unsplit": 0}),
        ((100, 80, 90, 5), {"shared": 20, "fresh": 80, "late": 0, "grown": 0, "unsplit": 0}),
        # Late imports are not watched: they are part of what grew.
        ((100, 80, 50, UNKNOWN), {"shared": 20, "fresh": 50, "grown": 30, "unsplit": 0}),
        # Without the memory of a fresh one nothing is said of where the rest came from.
        ((100, 80, UNKNOWN, 10), {"shared": 20, "unsplit": 80}),
        # No process holds more alone than it holds.
        ((50, 80, 60, 0), {"shared": 0, "fresh": 50, "late": 0, "grown": 0, "unsplit": 0}),
        ((0, 0, UNKNOWN, UNKNOWN), {"shared": 0, "unsplit": 0}),
    ],
)
def test_the_memory_of_a_worker_is_split(values, parts):
    names = ("proportional_bytes", "private_bytes", "baseline_bytes", "late_bytes")
    found = split(worker(**dict(zip(names, values, strict=True))))
    assert {part: size / MIB for part, size in found.parts()} == parts


def test_workers_of_one_server_are_one_role_and_their_master_is_counted_once():
    sizes = {"proportional_bytes": 100, "private_bytes": 80, "baseline_bytes": 50, "late_bytes": 10}
    master = {"supervisor_bytes": 30, "supervisor_private_bytes": 5}
    older = gunicorn(1, sampled=NOW - 1, supervisor_bytes=99, supervisor_private_bytes=99, **sizes)
    assert shown(older, gunicorn(2, **sizes, **master)) == [
        ("gunicorn master", 1, {"shared": 25, "unsplit": 5}),
        ("gunicorn worker", 2, {"shared": 40, "fresh": 100, "late": 20, "grown": 40, "unsplit": 0}),
    ]


def test_a_worker_whose_fresh_memory_is_not_known_leaves_the_others_split():
    known = gunicorn(1, proportional_bytes=100, private_bytes=80, baseline_bytes=50, late_bytes=10)
    new = gunicorn(2, proportional_bytes=40, private_bytes=30)
    ((_, number, parts),) = shown(known, new)
    assert (number, parts) == (2, {"shared": 30, "fresh": 50, "late": 10, "grown": 20, "unsplit": 30})


def test_each_server_and_what_no_server_runs():
    found = shown(
        worker(1, role="worker", supervisor="uvicorn", supervisor_pid=8),
        worker(2, role="child", supervisor="celery", supervisor_pid=7, supervisor_bytes=1, supervisor_private_bytes=1),
        worker(3, role="worker"),
        worker(4, proportional_bytes=7, private_bytes=7),
        worker(5, proportional_bytes=3, private_bytes=3),
        worker(6, role="janitor"),
    )
    assert [(title, number) for title, number, _ in found] == [
        ("celery main", 1),
        ("worker", 1),
        ("uvicorn worker", 1),
        ("celery child", 1),
        ("helper", 3),
    ]


def test_without_a_server_no_process_is_a_helper():
    assert [(title, number) for title, number, _ in shown(worker(1), worker(2))] == [("process", 2)]


def test_package_processes_are_a_role_of_their_own():
    held = [
        isolated("pandas", 40 * MIB, proportional_bytes=43.0 * MIB, loaded=2.0),
        isolated("sympy", 20 * MIB, proportional_bytes=22.0 * MIB),
        isolated("idle", loaded=0.0),
        isolated("flask", mechanism="recycle", source="import", memory_bytes=99.0 * MIB),
    ]
    one = gunicorn(1, packages=held, proportional_bytes=10, private_bytes=10)
    assert shown(one)[1] == ("package process", 3, {"shared": 5, "unsplit": 60})


def test_package_processes_that_workers_share_are_there_once():
    shared = [isolated("pandas", 40 * MIB, processes_id="a1")]
    own = [isolated("pandas", 30 * MIB, processes_id="b2")]
    workers = [gunicorn(1, packages=shared), gunicorn(2, packages=shared), gunicorn(3, packages=own)]
    assert shown(*workers)[-1] == ("package process", 2, {"shared": 0, "unsplit": 70})


@pytest.mark.parametrize(
    ("workers", "idle"),
    [
        ([gunicorn(1, last_work=900.0), gunicorn(2, last_work=950.0)], 50.0),
        ([gunicorn(1, last_work=900.0, active_work=1.0), gunicorn(2, last_work=900.0)], 0.0),
        ([gunicorn(1, last_work=900.0), gunicorn(2)], None),
        ([gunicorn(1, last_work=NOW + 5)], 0.0),
    ],
)
def test_a_role_is_idle_since_the_last_work_in_any_of_its_processes(workers, idle):
    (role,) = roles(workers, now=NOW)
    assert role.idle_seconds == idle


def with_package(state, shared, *, package_bytes, package_private_bytes, **sizes):
    """Return the state of a worker with these sizes, and with a package process that it may share."""
    sizes["packages"] = [
        isolated(processes_id=shared, proportional_bytes=package_bytes, memory_bytes=package_private_bytes)
    ]
    return state.replaced(**sizes)


SIZES = st.one_of(st.just(UNKNOWN), st.integers(0, 1 << 40).map(float))
STATES = st.builds(
    worker,
    st.integers(1, 1000),
    role=st.sampled_from(["", "worker", "child"]),
    supervisor=st.sampled_from(["", "gunicorn", "celery"]),
    supervisor_pid=st.integers(0, 2),
    sampled=st.floats(0, 2000),
    last_work=st.floats(-1, 2000),
).flatmap(
    lambda state: st.fixed_dictionaries(
        dict.fromkeys(
            (
                "proportional_bytes",
                "private_bytes",
                "baseline_bytes",
                "late_bytes",
                "package_bytes",
                "package_private_bytes",
                "supervisor_bytes",
                "supervisor_private_bytes",
            ),
            SIZES,
        )
    ).flatmap(lambda sizes: st.sampled_from(["", "a1"]).map(lambda shared: with_package(state, shared, **sizes)))
)


@given(st.lists(STATES, max_size=6))
def test_the_parts_add_up_to_the_memory_of_the_app_and_none_is_negative(workers):
    found = roles(workers, now=NOW)
    assert sum(size for role in found for _, size in role.split.parts()) == proportional_bytes(workers)
    for role in found:
        parts = dict(role.split.parts())
        assert set(parts) <= set(PARTS)
        assert min(parts.values()) >= 0
        assert role.role in ORDER
        assert role.split.private_bytes == sum(size for part, size in parts.items() if part != "shared")
        assert role.as_dict()["proportional_bytes"] == sum(parts.values())
