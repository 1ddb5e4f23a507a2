import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.verdicts import environment
from mempressure.verdicts.verdict import (
    MAX_ROWS,
    MAX_TEXT_LENGTH,
    MechanismResult,
    ModuleCost,
    Verdict,
    VerdictError,
    VerdictKey,
    as_json,
    from_json,
    reason_invalid,
)

REHEARSED = ("stop", "recycle")

texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
counts = st.integers(0, 2**62)
seconds = st.floats(0, 1e9)
results = st.tuples(
    *(
        st.builds(
            MechanismResult,
            mechanism=st.just(name),
            works=st.booleans(),
            reason=texts,
            reclaimed_bytes=counts,
            reload_seconds=seconds,
            cycles=counts,
            equal=st.none() | st.booleans(),
        )
        for name in REHEARSED
    )
)
keys = st.builds(
    VerdictKey,
    package=texts,
    exercise=texts,
    distributions=st.dictionaries(texts, texts, max_size=3),
    python=texts,
    allocator=texts,
    mempressure=texts,
)
modules = st.builds(
    ModuleCost,
    name=texts,
    self_bytes=st.integers(-100, 100),
    cumulative_bytes=st.integers(-100, 100),
    self_seconds=seconds,
)

REHEARSED = ("stop", "recycle")
verdicts = st.builds(
    Verdict,
    key=keys,
    when=seconds,
    results=results,
    baseline_bytes=counts,
    loaded_bytes=counts,
    incomparable=texts,
    modules=st.lists(modules, max_size=3).map(tuple),
)


@given(verdicts)
def test_a_verdict_is_read_as_it_was_written(found):
    assert from_json(json.loads(json.dumps(as_json(found)))) == found


@pytest.mark.parametrize(
    ("works", "mechanism", "reclaimed", "reload"),
    [
        ((True, True), "stop", 1, 10.0),
        ((False, True), "recycle", 2, 20.0),
        ((False, False), "", 0, 0.0),
    ],
)
def test_the_mildest_mechanism_that_works_counts(make_verdict, works, mechanism, reclaimed, reload):
    found = make_verdict(
        results=tuple(
            MechanismResult(mechanism=name, works=works[i], reclaimed_bytes=i + 1, reload_seconds=10.0 * (i + 1))
            for i, name in enumerate(REHEARSED)
        )
    )
    assert (found.mechanism, found.reclaimed_bytes, found.reload_seconds) == (mechanism, reclaimed, reload)
    assert [found.result(name).works for name in REHEARSED] == list(works)


CHANGES = [
    ("format", [2, True, "1"]),
    ("key", [None, [], "x"]),
    ("when", [-1, math.nan, math.inf, "now", None, True]),
    ("results", [None, {}, [], [{}], [{}] * (MAX_ROWS + 1)]),
    ("baseline_bytes", [-1, 1.5, 2**63, "1", True]),
    ("loaded_bytes", [-1, None]),
    ("incomparable", [1, None, "\x1b[31m", "x" * (MAX_TEXT_LENGTH + 1)]),
    ("modules", [{}, [1], [{}], [[]]]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CHANGES for value in values])
def test_a_value_that_is_not_allowed_is_refused(make_verdict, name, value):
    with pytest.raises(VerdictError):
        from_json({**as_json(make_verdict()), name: value})


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ("results", "mechanism", "zap"),
        ("results", "works", 1),
        ("results", "reason", None),
        ("results", "reclaimed_bytes", -1),
        ("results", "reload_seconds", math.nan),
        ("results", "cycles", 0.5),
        ("results", "equal", "yes"),
        ("modules", "self_bytes", -(2**63)),
        ("modules", "name", 5),
        ("key", "distributions", {"pandas": 3}),
        ("key", "distributions", [["pandas", "3"]]),
        ("key", "python", "x\n"),
    ],
)
def test_a_value_further_down_is_refused(make_verdict, row, name, value):
    content = as_json(make_verdict())
    inner = content[row] if row == "key" else content[row][0]
    inner[name] = value
    with pytest.raises(VerdictError):
        from_json(content)


@pytest.mark.parametrize("where", ["the verdict", "its key", "a result", "a module"])
@pytest.mark.parametrize("change", ["more", "fewer"])
def test_unknown_and_missing_keys_are_refused(make_verdict, where, change):
    content = as_json(make_verdict())
    inner = {
        "the verdict": content,
        "its key": content["key"],
        "a result": content["results"][1],
        "a module": content["modules"][0],
    }[where]
    if change == "more":
        inner["surprise"] = 1
    else:
        inner.popitem()
    with pytest.raises(VerdictError, match=f"{where} has other keys"):
        from_json(content)


@pytest.mark.parametrize("content", [None, [], "text", 5])
def test_content_that_is_no_object_is_refused(content):
    with pytest.raises(VerdictError, match="has other keys"):
        from_json(content)


def test_a_verdict_is_valid_in_the_environment_it_was_found_in(make_verdict):
    assert reason_invalid(make_verdict().key) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"python": "cpython 2.7"}, "python cpython 2.7, and here is cpython 3"),
        ({"allocator": "malloc, musl"}, "allocator malloc, musl, and here is "),
        ({"mempressure": "0.0.9"}, "mempressure 0.0.9, and here is "),
        ({"distributions": {"pandas": "0.1"}}, "pandas 0.1, and here is 3"),
        ({"distributions": {"no_such_thing": "1.0"}}, "no_such_thing 1.0, and here is none"),
        ({"distributions": {"mempressure": "files 1, 2 bytes, 3"}}, "the files of mempressure changed"),
        ({"distributions": {"no_such_thing": "files 1, 2 bytes, 3"}}, "the files of no_such_thing changed"),
    ],
)
def test_a_verdict_is_not_valid_in_another_environment(make_verdict, change, reason):
    assert reason in reason_invalid(replace(make_verdict().key, **change))


def test_a_verdict_on_unversioned_files_is_valid_while_they_stay(make_verdict):
    versions = {"mempressure": environment.source_version("mempressure")}
    assert reason_invalid(replace(make_verdict().key, distributions=versions)) == ""
