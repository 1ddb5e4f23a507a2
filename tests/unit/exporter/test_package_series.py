import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure_exporter.exposition import Exposition
from mempressure_exporter.metrics import FAMILIES
from mempressure_exporter.package_series import PACKAGE_FAMILIES, Package

WORKER = ("shop", "pid:[1]", 1, 7)
held = st.tuples(
    st.booleans(),
    st.integers(-1, 10**12),
    st.sampled_from(["process", "import"]),
    st.floats(-1, 2e9),
    st.sampled_from(["", "stop", "recycle"]),
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
    package.hold(worker(1), (True, 5, "process", 5.0, "stop"))
    package.hold(worker(2), first)
    if not at_once:
        package.update()
    if then is None:
        assert package.remove(worker(2), now=3.0)
        assert not package.remove(worker(2), now=4.0)
        assert package.left == 3.0
    else:
        package.hold(worker(2), then)
    package.update()
    memory, loaded, last_used, verdict = package.values[:4]
    found = {**dict(memory), "loaded": loaded[0][1], "last_used": last_used[0][1], "verdict": verdict[0][0]}
    assert found == expected


def test_only_families_that_changed_are_returned():
    package = Package("shop", "pandas")
    names = [family.name.removeprefix("mempressure_package_") for family in PACKAGE_FAMILIES]
    package.hold(WORKER, (True, 7, "process", 8.0, ""))
    assert {names[place] for place in package.update()} == {
        "memory_bytes",
        "loaded_workers",
        "last_used_timestamp_seconds",
        "loads_total",
        "refaults_total",
        "load_seconds_total",
    }
    package.hold(WORKER, (True, 7, "process", 9.0, ""))
    assert [names[place] for place in package.update()] == ["last_used_timestamp_seconds"]
    assert package.update() == []
