"""Plain results: what becomes of NumPy's scalars, and what is refused."""

from collections import OrderedDict, namedtuple
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.package_process.plain import NotPlainError, plain

Point = namedtuple("Point", "x y")  # noqa: PYI024 - the kind that has no types
PandasPoint = namedtuple("PandasPoint", "x y", module="pandas.core")  # noqa: PYI024 - as above

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"bytes"), b"bytes"),
        (np.complex128(1 + 2j), 1 + 2j),
        (np.array(7), 7),
    ],
)
def test_numpys_scalars_become_pythons(value, expected):
    became = plain(value, ("pandas",))
    assert became == expected
    assert type(became).__module__ == "builtins"


def test_they_do_so_inside_of_containers():
    value = {"a": [np.float64(1), (np.int8(2), {np.int16(3)})], np.str_("b"): Point(np.int64(4), frozenset([5]))}
    became = plain(value, ())
    assert became == {"a": [1.0, (2, {3})], "b": Point(4, frozenset([5]))}
    assert type(became["b"]) is Point
    assert {type(each) for each in (became["a"][0], became["b"].x, *became)} == {float, int, str}


@pytest.mark.parametrize(
    ("value", "kind", "where"),
    [
        (np.arange(3), "numpy.ndarray", "the result is"),
        ([1, {"k": np.arange(3)}], "numpy.ndarray", r"the result\[1\]\['k'\] is"),
        ({(1, 2): pd.Series([1])}, r"pandas\..*Series", r"the result\[\(1, 2\)\] is"),
        ({pd.Timestamp("2024-01-01"): 1}, r"pandas\..*Timestamp", "a key of the result is"),
        (Point(1, pd.NA), r"pandas\..*NAType", r"the result\[1\] is"),
        ([PandasPoint(1, 2)], r"pandas\.core\.PandasPoint", r"the result\[0\] is"),
        (np.datetime64("2024-01-01T00:00:00.000000001"), None, None),
        (np.dtype("f8"), r"numpy\.", "the result is"),
    ],
)
def test_other_objects_of_the_packages_are_refused_by_type_and_place(value, kind, where):
    if kind is None:  # nanoseconds have no type of Python's but an integer
        assert isinstance(plain(value, ("pandas",)), int)
        return
    with pytest.raises(NotPlainError, match=f'{where} a {kind}.*results="any"'):
        plain(value, ("pandas",))


def test_objects_of_other_packages_pass():
    for value in (Decimal("1.5"), OrderedDict(a=1), ValueError("x"), range(3)):
        assert plain(value, ("pandas",)) == value or plain(value, ("pandas",)) is value


@given(plain_values)
def test_what_is_plain_stays_as_it_is(value):
    assert plain(value, ("pandas",)) == value
