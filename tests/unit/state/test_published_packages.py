import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.state.files import publish
from mempressure.state.published_packages import ROW, PublishedPackages
from mempressure.state.reader import load
from mempressure.state.records import PACKAGE_VALUES, PackageState, WorkerState

USES = PACKAGE_VALUES.index("uses")


def numbers(*uses):
    """As many packages that were used so many times."""
    return b"".join(ROW.pack(*(float(each) if place == USES else 0.0 for place in range(16))) for each in uses)


def published(*uses, before=()):
    """The same as they were published, after something else and before it."""
    options = [{} for _ in uses]
    return PublishedPackages(options, b"head" + numbers(*uses) + b"catalog", start=4, before=before)


@given(st.data())
def test_what_changed_is_found_wherever_it_stands(data):
    count = data.draw(st.integers(0, 40))
    changes = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    before = published(*[1.0] * count)
    now = published(*[2.0 if place in changes else 1.0 for place in range(count)], before=before.blocks)
    assert list(now.changed) == sorted(changes)
    assert [now.values(place)[USES] for place in range(count)] == [1.0 + (place in changes) for place in range(count)]
    assert list(now.changed_since(before)) == sorted(changes)
    # Of another read than that which it was compared with, too.
    assert list(now.changed_since(published(*[3.0] * count))) == list(range(count))
    assert list(now.changed_since(published(*[1.0] * count))) == sorted(changes)


def test_what_did_not_change_is_not_kept_twice():
    before = published(*[1.0] * 20)
    now = published(*[1.0] * 19, 2.0, before=before.blocks)
    assert [mine is other for mine, other in zip(now.blocks, before.blocks, strict=True)] == [True, True, False]
    assert b"".join(now.blocks) == numbers(*[1.0] * 19, 2.0)


def test_without_an_earlier_read_all_have_changed():
    assert list(published(1, 1).changed) == [0, 1]


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_reads_between_two_looks_hide_nothing(tmp_path, reads):
    """Somebody else may read the file in between: then what changed is found by comparing."""

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
