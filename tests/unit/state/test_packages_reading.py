import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.state.files import publish
from mempressure.state.packages_reading import ROW, PackagesReading
from mempressure.state.reader import load
from mempressure.state.records import PACKAGE_VALUES, PackageState, WorkerState

USES = PACKAGE_VALUES.index("uses")


def numbers(*uses):
    """The rows of packages that were used so many times each."""
    return b"".join(
        ROW.pack(*(float(each) if place == USES else 0.0 for place in range(len(PACKAGE_VALUES)))) for each in uses
    )


def reading(*uses, before=()):
    """A reading of a file with those packages."""
    options = [{} for _ in uses]
    return PackagesReading(options, b"head" + numbers(*uses) + b"catalog", start=4, before=before)


@given(st.data())
def test_changes_are_found_at_any_place(data):
    count = data.draw(st.integers(0, 40))
    changes = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    before = reading(*[1.0] * count)
    now = reading(*[2.0 if place in changes else 1.0 for place in range(count)], before=before.blocks)
    assert list(now.changed) == sorted(changes)
    assert [now.values(place)[USES] for place in range(count)] == [1.0 + (place in changes) for place in range(count)]
    assert list(now.changed_since(before)) == sorted(changes)
    # Also of another reading than the one that it was compared with.
    assert list(now.changed_since(reading(*[3.0] * count))) == list(range(count))
    assert list(now.changed_since(reading(*[1.0] * count))) == sorted(changes)


def test_unchanged_blocks_are_not_held_twice():
    before = reading(*[1.0] * 20)
    now = reading(*[1.0] * 19, 2.0, before=before.blocks)
    assert [mine is other for mine, other in zip(now.blocks, before.blocks, strict=True)] == [True, True, False]
    assert b"".join(now.blocks) == numbers(*[1.0] * 19, 2.0)


def test_without_an_earlier_reading_all_have_changed():
    assert list(reading(1, 1).changed) == [0, 1]


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_readings_in_between_hide_no_change(tmp_path, reads):
    """Other code may read the file in between: then changes are found by comparing."""

    def read(uses):
        packages = [PackageState(name="a", mechanism="stop", source="process", timeout=1.0, uses=uses)]
        worker = WorkerState(app="a", pid=1, start_ticks=1, pid_namespace="n", started=1.0, packages=packages)
        publish(worker, tmp_path / "1.state")
        return load(tmp_path / "1.state", owner=os.geteuid()).packages

    first = read(1.0)
    for uses in range(2, 2 + reads):
        last = read(float(uses))
    assert list(last.changed_since(first)) == [0]
    assert list(read(1.0 + reads).changed_since(last)) == []
