"""Package processes that workers share count once, whichever of the workers tells of them."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.measure.reading import UNKNOWN
from mempressure.state.files import publish
from mempressure.state.fresh import worker_bytes
from mempressure.state.node import AppReading, proportional_bytes
from mempressure.state.package_processes import (
    PackageProcesses,
    memory_of,
    package_processes,
    sets_of,
    shared_names,
    together,
)
from mempressure.state.reader import load
from mempressure.state.records import PackageState, WorkerState
from tests.support.builders.package_states import isolated


def worker(*packages, pid=1, sampled=0.0, **options):
    return WorkerState(
        app="shop",
        pid=pid,
        start_ticks=1,
        pid_namespace="n",
        started=0.0,
        sampled=sampled,
        packages=packages,
        **options,
    )


def held(*workers):
    return [(each, package) for each in workers for package in each.packages]


def read(state, directory):
    path = Path(directory, f"{state.pid}.state")
    publish(state, path)
    return load(path, owner=os.geteuid())


def test_what_is_shared_with_the_parent_counts_once():
    def memory(*sizes):
        packages = [PackageState("pandas", "recycle", source, 60.0, memory_bytes=size) for source, size in sizes]
        return memory_of(held(*(worker(package, pid=pid) for pid, package in enumerate(packages))))

    assert memory(("import", 5.0), ("import", 7.0)) == 12.0
    assert memory(("parent", 40.0), ("parent", 30.0), ("import", 7.0)) == 47.0
    assert memory_of([]) == 0.0


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        # (sampled, loaded, bytes) of each worker; two processes that share the id are one, whoever tells of them.
        ([(1.0, 1.0, 50.0), (1.0, 1.0, 50.0)], 50.0),
        ([(1.0, 1.0, 50.0), (2.0, 1.0, 60.0)], 60.0),
        ([(1.0, 1.0, 60.0), (2.0, 1.0, 50.0)], 50.0),
        # It has ended, which the older one does not know yet.
        ([(1.0, 1.0, 50.0), (2.0, 0.0, 0.0)], 0.0),
        # It runs, and the newer one has not measured it yet.
        ([(1.0, 1.0, 50.0), (2.0, 1.0, 0.0)], 50.0),
        ([(1.0, 0.0, 0.0), (2.0, 1.0, 0.0)], 0.0),
    ],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_the_newest_reading_of_shared_processes_counts(readings, expected, turn):
    workers = [
        worker(isolated(size=size, loaded=loaded, processes_id="a1"), pid=pid, sampled=sampled)
        for pid, (sampled, loaded, size) in enumerate(readings)
    ][::turn]
    assert memory_of(held(*workers)) == expected
    assert package_processes(workers).proportional_bytes == expected


def test_two_generations_add_up_and_so_do_processes_without_an_id():
    old, new = (isolated(size=size, processes_id=name) for size, name in ((50.0, "a1"), (60.0, "b2")))
    workers = [worker(old, pid=1), worker(old, pid=2), worker(new, pid=3), worker(isolated(size=7), pid=4)]
    workers.append(worker(isolated(size=8), pid=5))
    assert memory_of(held(*workers)) == 125
    assert package_processes(workers) == PackageProcesses(4, 125.0, 125.0)


def test_one_id_under_two_names_is_two_sets():
    """A worker may publish anything: what one package's processes hold never hides another's."""
    one = worker(isolated("pandas", 50, processes_id="a1"), isolated("numpy", 60, processes_id="a1"))
    assert package_processes([one, one.replaced(pid=2)]).proportional_bytes == 110


def test_of_shared_processes_calls_and_loads_add_up_and_the_last_refault_counts():
    first = isolated(size=50, processes_id="a1", loads=2.0, uses=5.0, active_calls=1.0, waiting_calls=1.0)
    first = first.replaced(last_used=100.0, refaults=1.0, refault_level=2.0, last_refault=90.0, refault_delay=3.0)
    second = isolated(size=50, processes_id="a1", loads=1.0, uses=7.0, load_seconds=0.5, last_used=200.0)
    second = second.replaced(keep_loaded=True, unloads=1.0, reclaimed_bytes=40.0, result_bytes=9.0)
    ((_, package),) = together(held(worker(first, pid=1, sampled=2.0), worker(second, pid=2)))
    assert package == first.replaced(
        loads=3.0,
        uses=12.0,
        load_seconds=0.5,
        last_used=200.0,
        keep_loaded=True,
        unloads=1.0,
        reclaimed_bytes=40.0,
        result_bytes=9.0,
    )


def test_what_a_worker_shares_does_not_end_with_it(tmp_path):
    shared, own = isolated("pandas", 50, processes_id="a1"), isolated("sympy", 7, processes_id="b2")
    one, other = worker(shared, own, private_bytes=100.0), worker(shared, pid=2, private_bytes=100.0)

    def gives_back(*workers):
        return worker_bytes(AppReading("shop", 0, tmp_path, workers, None), one)

    assert shared_names([one, other], one) == {"pandas"}
    assert gives_back(one, other) == 107
    assert gives_back(one) == 157  # the last of them


sizes = st.one_of(st.just(UNKNOWN), st.integers(0, 1 << 40).map(float))
packages = st.builds(
    isolated,
    st.sampled_from(["pandas", "sympy"]),
    sizes,
    loaded=st.integers(0, 3).map(float),
    processes_id=st.sampled_from(["", "a1", "b2"]),
    source=st.sampled_from(["process", "process", "resident", "import"]),
    proportional_bytes=sizes,
    last_used=st.sampled_from([UNKNOWN, 1.0, 2.0]),
    uses=st.integers(0, 9).map(float),
)
states = st.builds(
    lambda packages, pid, sampled: worker(*packages, pid=pid, sampled=sampled),
    st.lists(packages, max_size=2, unique_by=lambda package: package.name),
    st.integers(1, 99),
    st.sampled_from([1.0, 2.0, 3.0]),
)
apps = st.lists(states, max_size=5, unique_by=lambda state: state.pid)


def totals(workers):
    by_name = {
        name: memory_of([each for each in held(*workers) if each[1].name == name]) for name in ("pandas", "sympy")
    }
    sets = sorted(tuple(sorted(each.pid for each, _ in one)) for one in sets_of(held(*workers)))
    return proportional_bytes(workers), by_name, package_processes(workers), sets


@given(apps, st.randoms(use_true_random=False))
def test_the_order_of_workers_does_not_matter(workers, random):
    workers = [each.replaced(sampled=float(number)) for number, each in enumerate(workers)]
    shuffled = random.sample(workers, len(workers))
    assert totals(shuffled) == totals(workers)
    assert sorted(map(repr, together(held(*shuffled)))) == sorted(map(repr, together(held(*workers))))


@given(apps, st.data())
def test_one_more_worker_that_shares_changes_no_total(workers, data):
    """It tells of the same processes as one that is there, and has the same reading."""
    sharing = [each for each in workers if each.packages and all(one.processes_id for one in each.packages)]
    if not sharing:
        return
    workers = [each.replaced(sampled=float(each.pid)) for each in workers]
    pid = data.draw(st.sampled_from([each.pid for each in sharing]))
    more = [*workers, next(each for each in workers if each.pid == pid).replaced(pid=100)]
    assert totals(more)[:3] == totals(workers)[:3]


@given(apps)
def test_what_was_read_from_files_counts_as_what_was_published(workers):
    with tempfile.TemporaryDirectory() as directory:
        assert package_processes([read(each, directory) for each in workers]) == package_processes(workers)
