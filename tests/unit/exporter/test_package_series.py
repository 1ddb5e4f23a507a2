import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure_exporter.exposition import Exposition
from mempressure_exporter.metrics import FAMILIES
from mempressure_exporter.package_series import PACKAGE_FAMILIES, Holding, Package

WORKER = ("shop", "pid:[1]", 1, 7)
held = st.builds(
    Holding,
    st.integers(0, 3),
    st.integers(-1, 10**12),
    st.sampled_from(["process", "import"]),
    st.floats(-1, 2e9),
    st.sampled_from(["", "stop", "recycle"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["", "a1"]),
    st.floats(0, 2e9),
)
counts = st.tuples(*[st.floats(0, 1e9)] * 5)
steps = st.lists(st.tuples(st.dictionaries(st.integers(1, 3), held), st.sampled_from(["stop", "recycle"]), counts))


def worker(pid):
    return (*WORKER[:2], pid, 7)


@given(st.text(min_size=1, max_size=5), steps)
def test_after_any_change_the_lines_are_those_of_the_exposition(name, steps):
    """Lines are kept or get a new value; none is left with an old one."""
    package, exposition, before = Package("a b", name), Exposition(FAMILIES), (0.0,) * 5
    for holders, mechanism, now in steps:
        for pid in (1, 2, 3):
            if pid in holders:
                package.hold(worker(pid), holders[pid])
            else:
                package.remove(worker(pid), now=1.0)
        package.totals.add(mechanism, before, now)
        before = now
        package.update()
        samples = [
            (family.name, ("a b", name, *filter(None, [label])), value)
            for family, values in zip(PACKAGE_FAMILIES, package.values, strict=True)
            for label, value in values
        ]
        printed = exposition.render(samples).decode()
        assert "".join(package.texts) == "".join(
            f"{line}\n" for line in printed.split("\n") if line and not line.startswith("# ")
        )
        assert package.series == len(samples)


def test_a_package_without_holders_has_counters_only():
    package = Package("shop", "pandas")
    package.update()
    assert [family.name for family, text in zip(PACKAGE_FAMILIES, package.texts, strict=True) if text] == [
        "mempressure_package_loads_total",
        "mempressure_package_refaults_total",
        "mempressure_package_load_seconds_total",
    ]


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        # Loaded, memory and where that is from, last use, verdict; beside a worker that stays as it is.
        ((True, 10, "process", 9.0, "stop"), {"loaded": 2, "process": 15, "last_used": 9.0, "verdict": "stop"}),
        ((False, 0, "process", 9.0, "stop"), {"loaded": 1, "process": 5, "last_used": 9.0, "verdict": "stop"}),
        ((True, 10, "process", 6.0, "stop"), {"loaded": 2, "process": 15, "last_used": 6.0, "verdict": "stop"}),
        ((True, 10, "process", 1.0, "stop"), {"loaded": 2, "process": 15, "last_used": 5.0, "verdict": "stop"}),
        ((True, -1, "process", 8.0, "stop"), {"loaded": 2, "process": 5, "last_used": 8.0, "verdict": "stop"}),
        (
            (True, 10, "import", 8.0, "stop"),
            {"loaded": 2, "process": 5, "import": 10, "last_used": 8.0, "verdict": "stop"},
        ),
        ((True, 10, "process", 8.0, "recycle"), {"loaded": 2, "process": 15, "last_used": 8.0, "verdict": "recycle"}),
        (None, {"loaded": 1, "process": 5, "last_used": 5.0, "verdict": "stop"}),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("first", [(True, 7, "process", 8.0, "stop"), (True, -1, "process", 8.0, "stop")])
def test_a_workers_new_state_replaces_the_old_one(first, then, expected, at_once):
    package = Package("shop", "pandas")
    package.hold(worker(1), Holding(1, 5, "process", 5.0, "stop"))
    package.hold(worker(2), Holding(*first))
    if not at_once:
        package.update()
    if then is None:
        assert package.remove(worker(2), now=3.0)
        assert not package.remove(worker(2), now=4.0)
        assert package.left == 3.0
    else:
        package.hold(worker(2), Holding(*then))
    package.update()
    memory, loaded, _, _, _, last_used, verdict = package.values[:7]
    found = {**dict(memory), "loaded": loaded[0][1], "last_used": last_used[0][1], "verdict": verdict[0][0]}
    assert found == expected


def test_only_families_that_changed_are_returned():
    package = Package("shop", "pandas")
    names = [family.name.removeprefix("mempressure_package_") for family in PACKAGE_FAMILIES]
    package.hold(WORKER, Holding(1, 7, "process", 8.0, ""))
    assert {names[place] for place in package.update()} == {
        "memory_bytes",
        "loaded_workers",
        "processes",
        "waiting_calls",
        "last_used_timestamp_seconds",
        "loads_total",
        "refaults_total",
        "load_seconds_total",
    }
    package.hold(WORKER, Holding(1, 7, "process", 9.0, ""))
    assert [names[place] for place in package.update()] == ["last_used_timestamp_seconds"]
    assert package.update() == []


def gauges(package):
    package.update()
    names = [family.name.removeprefix("mempressure_package_") for family in PACKAGE_FAMILIES]
    return {name: values[0][1] for name, values in zip(names[:7], package.values, strict=False) if values}


def test_processes_that_workers_share_count_once_and_their_calls_add_up():
    package = Package("shop", "pandas")
    for pid in (1, 2):
        package.hold(worker(pid), Holding(2, 50, "process", 5.0 + pid, "", 3, 10, "a1", 1.0))
    package.hold(worker(3), Holding(1, 20, "process", 5.0, "", 1, 0, "b2", 1.0))
    package.hold(worker(4), Holding(1, 7, "process", 5.0, ""))
    expected = {"memory_bytes": 77, "loaded_workers": 4, "processes": 4, "waiting_calls": 7, "result_bytes": 20}
    assert gauges(package) == expected | {"last_used_timestamp_seconds": 7.0}
    package.hold(worker(1), Holding(1, 25, "process", 6.0, "", 0, 10, "a1", 2.0))
    expected |= {"memory_bytes": 52, "processes": 3, "waiting_calls": 4}
    assert gauges(package) == expected | {"last_used_timestamp_seconds": 7.0}


def test_an_imported_package_has_no_processes():
    package = Package("shop", "pandas")
    package.hold(WORKER, Holding(1, 50, "import", 5.0, ""))
    assert gauges(package) == {"memory_bytes": 50, "loaded_workers": 1, "last_used_timestamp_seconds": 5.0}
