import enum
import math
import pickle
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.rehearsal.comparison import IncomparableError, equal, equal_pickles, pickled


class Plain:
    """Has no equality of its own."""

    def __init__(self, value):
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: float
    tags: set[str]


class Rude:
    def __eq__(self, other):
        raise RuntimeError("not today")

    __hash__ = None

    def __reduce__(self):
        raise RuntimeError("nor this")


FRAME = pd.DataFrame({"a": [1.0, None], "b": ["x", "y"]})
NAN = float("nan")
ARRAY = np.array([1.0, np.nan])


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: [1, "two", b"three", 4.5, (True, None)],
        lambda: {"a": {"b": [float("nan")]}},
        lambda: complex("nan"),
        lambda: {1, 2, "x"},
        lambda: np.arange(5),
        lambda: np.array([1.0, np.nan]),
        lambda: np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
        lambda: np.array([{"a": float("nan")}, None], dtype=object),
        lambda: np.float32("nan"),
        lambda: np.array(["x", "y"]),
        lambda: np.zeros((0, 3)),
        lambda: pd.DataFrame({"a": [1.0, None], "b": ["x", "y"]}),
        lambda: pd.Series([1, 2], name="n"),
        lambda: pd.Index([1, 2], name="n"),
        lambda: pd.Timestamp("2020-01-01"),
        lambda: [pd.DataFrame({"a": [1]}), np.ones(3)],
        lambda: Plain({"a": [1, float("nan")]}),
        lambda: Slotted([1, 2]),
        lambda: Colour.RED,
        lambda: Point(float("nan"), {"a", "b"}),
        lambda: range(3),
    ],
)
def test_what_is_made_alike_is_equal(make):
    assert equal(make(), make())
    assert equal_pickles(pickled(make()), pickled(make()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (1.0, math.nextafter(1.0, 2)),
        (NAN, 0.0),
        ([1, 2], [1, 2, 3]),
        ([1, 2], (1, 2)),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": NAN}, {"a": 1.0}),
        ({1, 2}, {1, 3}),
        (np.arange(3), np.arange(4)),
        (np.arange(3), np.arange(3.0)),
        (np.arange(4).reshape(2, 2), np.arange(4)),
        (ARRAY, np.array([1.0, 2.0])),
        (np.array([None], dtype=object), np.array([1], dtype=object)),
        (FRAME, FRAME.rename(columns={"a": "c"})),
        (FRAME, FRAME.assign(a=[1.0, 2.0])),
        (FRAME, FRAME.set_index(pd.Index([5, 6]))),
        (FRAME, FRAME.rename_axis("row")),
        (FRAME, FRAME.rename_axis("column", axis=1)),
        (pd.Series([1], name="n"), pd.Series([1], name="m")),
        (pd.Series([1]), pd.Series([1.0])),
        (pd.Index([1], name="n"), pd.Index([1], name="m")),
        (pd.Index([1]), pd.Index([1.0])),
        (pd.MultiIndex.from_tuples([(1, 2)], names=["a", "b"]), pd.MultiIndex.from_tuples([(1, 2)], names=["a", "c"])),
        (Plain([1]), Plain([2])),
        (Colour.RED, Colour.BLUE),
        (Point(1.0, {"a"}), Point(1.0, {"b"})),
        ("a", b"a"),
    ],
)
def test_what_differs_is_not_equal(one, other):
    assert not equal(one, other)
    assert not equal(other, one)
    assert not equal_pickles(pickled(one), pickled(other))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(values)
def test_a_value_equals_its_copy(value):
    assert equal(value, pickle.loads(pickle.dumps(value)))  # noqa: S301 -- just pickled


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (Slotted(1), Slotted(2), "Slotted has no equality; return plain data"),
        (object(), object(), None),
        (Rude(), Rude(), "comparing .*Rude failed: RuntimeError: not today"),
    ],
)
def test_what_has_no_equality_is_incomparable_unless_its_bytes_are_the_same(one, other, reason):
    if reason is None:
        assert equal(one, other)
        return
    with pytest.raises(IncomparableError, match=reason):
        equal(one, other)


def test_what_cannot_be_pickled_is_incomparable():
    with pytest.raises(IncomparableError, match=r"the result \(function\) cannot be pickled"):
        pickled(lambda: 1)
    with pytest.raises(IncomparableError, match="cannot be unpickled"):
        equal_pickles(b"\x80\x05N.", b"nonsense")


@pytest.fixture
def usual_recursion_limit():
    """Python's own limit: Hypothesis, in tests before, may have raised it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("usual_recursion_limit")
def test_what_is_nested_too_deep_is_incomparable():
    def nested(number):  # pickle itself would refuse to write it
        return b"\x80\x05" + b"]" * 5000 + b"K" + bytes([number]) + b"a" * 5000 + b"."

    with pytest.raises(IncomparableError, match="nested too deep"):
        equal_pickles(nested(1), nested(2))
