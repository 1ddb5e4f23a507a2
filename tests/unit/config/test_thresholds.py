import ast
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.thresholds import (
    ALERT_LEVELS,
    PRESSURE_LEVELS,
    THRESHOLD_NAMES,
    Thresholds,
    entered,
    pressure_level,
    relieved,
)
from mempressure.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
BAD_VALUES = [True, False, "0.8", None, [0.8], math.nan, math.inf, -math.inf, -0.1, 1.0001, 10**400, -(10**400)]

usages = st.floats(0, 1.2)


@st.composite
def thresholds(draw):
    hysteresis = draw(st.floats(0, 0.5))
    low = math.ceil((hysteresis + 0.0002) * 10_000)
    steps = draw(st.lists(st.integers(low, 10_000), min_size=4, max_size=4, unique=True))
    return Thresholds(*(step / 10_000 for step in sorted(steps)), hysteresis=hysteresis)


@pytest.mark.parametrize(
    ("usage", "level"),
    [
        (0.0, "low"),
        (0.4999, "low"),
        (0.50, "medium"),
        (0.6999, "medium"),
        (0.70, "high"),
        (0.85, "high"),
        (0.8501, "critical"),
        (1.0, "critical"),
        (1.3, "critical"),
    ],
)
def test_pressure_level(usage, level):
    assert pressure_level(usage) == level


@given(usages, usages)
def test_more_usage_is_never_a_lower_level(one, other):
    low, high = sorted((one, other))
    assert PRESSURE_LEVELS.index(pressure_level(low)) <= PRESSURE_LEVELS.index(pressure_level(high))


def test_defaults():
    assert Thresholds().as_dict() == {
        "warning": 0.60,
        "unload_packages": 0.80,
        "aggressive_unload": 0.85,
        "emergency": 0.90,
    }
    assert [Thresholds().exit(name) for name in THRESHOLD_NAMES] == [0.55, 0.75, 0.80, 0.85]
    assert list(ALERT_LEVELS.values()) == ["warning", "medium", "high", "emergency"]


NAMED = {*THRESHOLD_NAMES, "hysteresis", "critical_ratio"}


def _given_names(tree):
    """Yield each name with the node of its value: in calls, defaults, assignments and dictionaries."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg=name, value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value):
                yield name, value
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.Dict():
                yield from (
                    (getattr(key, "value", ""), value) for key, value in zip(node.keys, node.values, strict=True)
                )
            case ast.arguments():
                last = [*node.posonlyargs, *node.args][len(node.posonlyargs) + len(node.args) - len(node.defaults) :]
                names = [each.arg for each in (*last, *node.kwonlyargs)]
                yield from zip(names, (*node.defaults, *node.kw_defaults), strict=True)


def _decided(tree):
    """Return the names of thresholds that are given a number."""
    return {
        name
        for name, value in _given_names(tree)
        if name in NAMED and isinstance(value, ast.Constant) and type(value.value) in (int, float)
    }


def test_a_default_is_decided_nowhere_else():
    folders = [ROOT / name for name in ("mempressure", "actuator", "exporter", "stack", "app")]
    found = {
        path.relative_to(ROOT).as_posix(): decided
        for folder in folders
        for path in folder.rglob("*.py")
        if (decided := _decided(ast.parse(path.read_text())))
    }
    assert found == {"mempressure/config/thresholds.py": set(THRESHOLD_NAMES)}


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("name", [*THRESHOLD_NAMES, "hysteresis"])
def test_a_bad_value_is_refused_by_name_and_with_what_to_send(name, value):
    with pytest.raises(ConfigurationError, match=rf"{name}=.*; send a ratio in [\[(]0(\.05)?, 1\]"):
        Thresholds(**{name: value})


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("name", THRESHOLD_NAMES)
def test_a_bad_value_in_a_mapping_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=f"threshold {name}="):
        Thresholds.from_mapping({**Thresholds().as_dict(), name: value})


def test_a_huge_value_makes_no_huge_message():
    with pytest.raises(ConfigurationError) as caught:
        Thresholds(emergency=10**4000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("values", [None, 5, "warning", [0.6, 0.8, 0.85, 0.9], [*THRESHOLD_NAMES]])
def test_what_is_no_mapping_is_refused(values):
    with pytest.raises(ConfigurationError, match="send warning, unload_packages, aggressive_unload, emergency"):
        Thresholds.from_mapping(values)


def test_missing_and_unknown_keys_are_named():
    values = Thresholds().as_dict()
    del values["warning"]
    with pytest.raises(ConfigurationError, match="threshold warning missing; send all of warning, "):
        Thresholds.from_mapping(values)
    with pytest.raises(ConfigurationError, match="threshold warn unknown; send warning, "):
        Thresholds.from_mapping({**Thresholds().as_dict(), "warn": 0.1})


@given(st.lists(st.integers(600, 1000), min_size=4, max_size=4))
def test_only_strictly_ascending_thresholds_are_taken(steps):
    values = [step / 1000 for step in steps]
    if all(low < high for low, high in pairwise(values)):
        assert list(Thresholds(*values).as_dict().values()) == values
    else:
        with pytest.raises(ConfigurationError, match=r"must be above .*; send warning < unload_packages < "):
            Thresholds(*values)


@given(st.floats(0, 1), st.floats(0.001, 0.59))
def test_each_threshold_is_above_the_hysteresis_and_can_be_left(hysteresis, warning):
    try:
        made = Thresholds(warning=warning, hysteresis=hysteresis)
    except ConfigurationError:
        assert warning < hysteresis + 0.0001 or hysteresis >= 0.8
    else:
        assert warning > hysteresis
        assert all(made.exit(name) > 0 for name in THRESHOLD_NAMES)


def test_a_threshold_that_could_never_be_left_is_refused():
    with pytest.raises(ConfigurationError, match=r"warning=0.05001 .*at least 0.0001 above"):
        Thresholds(warning=0.05001)


@given(thresholds())
def test_exit_is_enter_less_the_hysteresis_in_four_places(made):
    for name in THRESHOLD_NAMES:
        assert made.enter(name) == getattr(made, name)
        assert made.exit(name) == round(made.enter(name) - made.hysteresis, 4)


def test_exit_has_no_float_noise():
    assert 0.85 - 0.05 != 0.80  # the reason for the rounding
    assert Thresholds().exit("aggressive_unload") == 0.80


@given(thresholds(), st.lists(usages, max_size=40))
def test_the_deadband_is_that_of_four_naive_switches(made, series):
    switches = dict.fromkeys(THRESHOLD_NAMES, False)
    held = ()
    for usage in series:
        for name in THRESHOLD_NAMES:
            if usage >= getattr(made, name):
                switches[name] = True
            elif usage < round(getattr(made, name) - made.hysteresis, 4):
                switches[name] = False
        held = entered(usage, made, before=held)
        assert held == tuple(name for name in THRESHOLD_NAMES if switches[name])


@pytest.mark.parametrize(
    ("usage", "before", "after"),
    [
        (0.80, (), ("warning", "unload_packages")),
        (0.7999, (), ("warning",)),
        (0.75, ("warning", "unload_packages"), ("warning", "unload_packages")),
        (0.7499, ("warning", "unload_packages"), ("warning",)),
        (0.55, ("warning",), ("warning",)),
        (0.5499, ("warning",), ()),
        (0.55, (), ()),
        (1.0, (), THRESHOLD_NAMES),
        (0.2, THRESHOLD_NAMES, ()),
    ],
)
def test_entering_and_leaving(usage, before, after):
    assert entered(usage, Thresholds(), before=before) == after


@given(thresholds(), usages)
def test_held_thresholds_have_no_gaps_where_they_were_entered_from_below(made, usage):
    held = entered(usage, made)
    assert held == THRESHOLD_NAMES[: len(held)]


@given(thresholds(), usages)
def test_relieved_is_where_unload_packages_is_left(made, usage):
    assert relieved(usage, made) is ("unload_packages" not in entered(usage, made, before=THRESHOLD_NAMES))


def test_relieved_is_never_true_above_the_threshold():
    # Rounding can lift an exit above its enter where there is no hysteresis.
    assert not relieved(0.80007, Thresholds(unload_packages=0.80006, hysteresis=0.0))
