import pytest

from mempressure.record import Record


class Point(Record):
    x: int
    y: int = 0
    tags: list[str] = []  # noqa: RUF012 -- each record has a copy


def test_fields_are_given_by_place_or_by_name_and_compared():
    assert Point(1, 2) == Point(x=1, y=2) != Point(1)
    assert (Point(1).x, Point(1).y, Point(1).tags) == (1, 0, [])
    assert repr(Point(1)) == "Point(x=1, y=0, tags=[])"
    assert Point(1) != 1


def test_a_default_list_is_not_shared():
    first = Point(1)
    first.tags.append("a")
    assert Point(1).tags == []


def test_a_record_is_hashable_where_its_values_are():
    assert {Point(1, tags=()): 1}[Point(1, tags=())] == 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))


def test_a_copy_has_other_values():
    assert Point(1).replaced(y=5) == Point(1, 5)


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [((), {}, "got nothing"), ((1, 2, [], 4), {}, "got x, y, tags"), ((1,), {"z": 1}, "takes x, y, tags; got z, x")],
)
def test_what_is_missing_or_too_much_is_refused(values, named, message):
    with pytest.raises(TypeError, match=message):
        Point(*values, **named)
