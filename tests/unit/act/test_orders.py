import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.act.orders import OPERATIONS, Order, parse_order


def line(**content):
    return json.dumps({"id": "1", "op": "stop", **content}).encode() + b"\n"


def test_an_order_is_read():
    order = parse_order(line(package="pandas", idle_for={"pandas": 5}, level="high"))
    assert order == Order(id="1", op="stop", package="pandas", idle_for={"pandas": 5.0}, level="high")
    assert parse_order(line(op="recycle", idle_seconds=30)).idle_seconds == 30.0


def test_what_is_left_out_has_a_default():
    assert parse_order(line()) == Order(id="1", op="stop", package="", idle_for=None, level="medium", idle_seconds=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", "one JSON object"),
        (b"\xff\xfe\n", "one JSON object"),
        (b"[1]\n", "JSON object, not list"),
        (line(id=""), "id=''"),
        (line(id=7), "id=7"),
        (line(id="x" * 201), "200 characters"),
        (line(op="eval"), r"op='eval' unknown; send one of measure, callbacks, trim, stop, release, recycle"),
        (line(op=None), "op=None"),
        (line(package=["a"]), "package="),
        (line(level=3), "level=3"),
        (line(code="import os"), "unknown keys code"),
        (line(idle_for=[1]), "must map packages"),
        (line(idle_for={"a": -1}), "idle_for of a=-1"),
        (line(idle_for={"a": True}), "idle_for of a=True"),
        (line(idle_for={"a": "1"}), "idle_for of a='1'"),
        (line(idle_seconds=-1), "idle_seconds=-1"),
        (line(idle_seconds={"a": 1}), "idle_seconds={'a': 1}"),
        (b"[" * 60_000 + b"\n", "one JSON object"),
        (line(level="nonsense"), "level='nonsense' unknown; send one of warning, medium, high, emergency"),
        (b'{"id":"1","op":"stop","idle_for":{"a":1' + b"0" * 400 + b"}}\n", "idle_for of a=1"),
        (b'{"id":"1","op":"stop","idle_for":{"a":NaN}}\n', "idle_for of a=nan"),
        (b'{"id":"1","op":"stop","idle_for":{"a":Infinity}}\n', "idle_for of a=inf"),
    ],
)
def test_what_is_no_order_is_refused_with_what_to_send(content, message):
    with pytest.raises(ValueError, match=message):
        parse_order(content)


@given(st.binary(max_size=200))
def test_no_bytes_make_another_error(data):
    with contextlib.suppress(ValueError):
        assert parse_order(data).op in OPERATIONS


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_no_json_makes_another_error(content):
    with contextlib.suppress(ValueError):
        parse_order(json.dumps(content).encode())
