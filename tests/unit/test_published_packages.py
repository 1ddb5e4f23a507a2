import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.published_packages import ROW, PublishedPackages
from mempressure.state import PACKAGE_VALUES, PackageState, WorkerState, encode
from mempressure.state_reading import decode

USES = PACKAGE_VALUES.index("uses")


def numbers(*uses):
    """As many packages that were used so many times."""
    return b"".join(ROW.pack(*(float(each) if place == USES else 0.0 for place in range(16))) for each in uses)


@given(st.data())
def test_what_changed_is_found_wherever_it_stands(data):
    count = data.draw(st.integers(0, 40))
    changes = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    before = numbers(*[1.0] * count)
    now = numbers(*[2.0 if place in changes else 1.0 for place in range(count)])
    options = [{} for _ in range(count)]
    published = PublishedPackages(options, now, before=before)
    assert list(published.changed) == sorted(changes)
    # Of another read than that which it was compared with, too.
    assert list(published.changed_since(PublishedPackages(options, numbers(*[3.0] * count)))) == list(range(count))
    assert list(published.changed_since(PublishedPackages(options, before))) == sorted(changes)


def test_without_an_earlier_read_all_have_changed():
    assert list(PublishedPackages([{}, {}], numbers(1, 1)).changed) == [0, 1]


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_reads_between_two_looks_hide_nothing(reads):
    """Somebody else may read the file in between: then what changed is found by comparing."""

    def read(uses):
        packages = [PackageState(name="a", mechanism="stop", source="process", timeout=1.0, uses=uses)]
        worker = WorkerState(app="a", pid=1, start_ticks=1, pid_namespace="n", started=1.0, packages=packages)
        return decode(encode(worker), path="reads_between").packages

    first = read(1.0)
    for uses in range(2, 2 + reads):
        last = read(float(uses))
    assert list(last.changed_since(first)) == [0]
    assert list(read(1.0 + reads).changed_since(last)) == []
