import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure.decide.suggestions import (
    SUGGESTION_TYPES,
    PackageMemory,
    Suggestion,
    by_priority,
    package_suggestions,
    scope_suggestions,
    steady_growth,
)
from mempressure.measure import trend
from mempressure.measure.memory_reading import MemoryReading

GIB, MIB = 1 << 30, 1 << 20
TOTAL = 100 * GIB
DEFAULTS = Thresholds()
FIELDS = {"type", "severity", "message", "recommendation", "value", "priority", "scope", "app"}


def on_host(*, available=50 * GIB, total=TOTAL, swap=(0, 0), held=(), slope=None):
    memory = MemoryReading(total, available, swap_total=swap[0], swap_free=swap[0] - swap[1])
    return scope_suggestions(memory, scope="host", app="", held=held, thresholds=DEFAULTS, slope=slope)


def on_package(size=10 * MIB, *processes, total=TOTAL):
    package = PackageMemory("pandas", "shop", size, processes)
    return package_suggestions([package], scope="host", total_bytes=total)


def kinds(suggestions):
    return [(suggestion.type, suggestion.severity, suggestion.value) for suggestion in suggestions]


def line(start, grown, *, samples=10, seconds=10.0):
    """A process that grows evenly by `grown` bytes."""
    return [(1e9 + i * seconds, start + grown * i / (samples - 1)) for i in range(samples)]


def test_the_documented_sample():
    (suggestion,) = on_host(available=25 * GIB, held=["warning"])
    assert suggestion.as_dict() == {
        "type": "moderate_package_unloading",
        "severity": "medium",
        "message": "Moderate memory usage detected",
        "recommendation": "Consider unloading unused packages",
        "value": 0.75,
        "priority": 3,
        "scope": "host",
        "app": "",
    }


@pytest.mark.parametrize(
    ("entered", "expected"),
    [
        (0, []),
        (1, [("moderate_package_unloading", "medium", 0.75)]),
        (2, [("moderate_package_unloading", "medium", 0.75)]),
        (3, [("aggressive_package_unloading", "high", 0.75)]),
        (4, [("emergency_memory_reduction", "critical", 0.75)]),
    ],
)
def test_of_the_thresholds_that_hold_only_the_highest_speaks(entered, expected):
    assert kinds(on_host(available=25 * GIB, held=THRESHOLD_NAMES[:entered])) == expected


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (0, []),
        (499, []),
        (500, [("swap_usage_moderate", "medium", 0.5)]),
        (799, [("swap_usage_moderate", "medium", 0.799)]),
        (800, [("swap_usage_high", "high", 0.8)]),
        (1000, [("swap_usage_high", "high", 1.0)]),
    ],
)
def test_swap(used, expected):
    assert kinds(on_host(swap=(1000, used))) == expected


@pytest.mark.parametrize(
    ("total", "available", "expected"),
    [
        (100 * GIB, GIB, []),
        (100 * GIB, GIB - 1, [("low_available_memory", "high", GIB - 1)]),
        (1000 * MIB, 100 * MIB, []),
        (1000 * MIB, 100 * MIB - 1, [("low_available_memory", "high", 100 * MIB - 1)]),
        (1000 * MIB, -5, [("low_available_memory", "high", 0)]),  # an app above its budget
        (0, 0, []),
    ],
)
def test_low_available_memory(total, available, expected):
    assert kinds(on_host(total=total, available=available)) == expected


def test_a_trend_is_reported_from_where_trend_calls_it_increasing():
    notable = trend.NOTABLE_SHARE * TOTAL / trend.NOTABLE_SECONDS
    assert kinds(on_host(slope=notable * 1.001)) == [("memory_trend_increasing", "medium", notable * 1.001)]
    for slope in (None, 0.0, notable * 0.999, -notable * 100):
        assert on_host(slope=slope) == []


@pytest.mark.parametrize(
    ("available", "severity"),
    [
        (10 * GIB + 900 * 64 * MIB, "medium"),  # exactly fifteen minutes
        (10 * GIB + 900 * 64 * MIB - MIB, "high"),
        (5 * GIB, "high"),  # emergency is behind
    ],
)
def test_a_trend_is_high_where_emergency_is_less_than_fifteen_minutes_away(available, severity):
    total = 100 * GIB
    suggestions = on_host(total=total, available=available, slope=64.0 * MIB)
    assert kinds(suggestions) == [("memory_trend_increasing", severity, 64.0 * MIB)]


@pytest.mark.parametrize(("size", "expected"), [(16 * MIB, True), (16 * MIB - 1, False), (0, False)])
def test_results_that_import_their_package_into_the_workers(size, expected):
    """Also of a package that is not loaded: what its results imported stays."""
    packages = [PackageMemory("pandas", "shop", 0.0, result_bytes=size)]
    found = package_suggestions(packages, scope="app", total_bytes=100 * GIB)
    assert kinds(found) == ([("package_imported_by_results", "medium", size)] if expected else [])
    assert all('results="plain"' in each.recommendation for each in found)


@pytest.mark.parametrize(
    ("size", "total", "expected"),
    [
        (256 * MIB, 100 * GIB, True),
        (256 * MIB - 1, 100 * GIB, False),
        (50 * MIB, 500 * MIB, True),
        (50 * MIB - 1, 500 * MIB, False),
        (10 * MIB, 0, False),
        (0, 0, False),
    ],
)
def test_high_memory_footprint(size, total, expected):
    found = on_package(size, total=total)
    assert kinds(found) == ([("high_memory_footprint", "medium", size)] if expected else [])


@pytest.mark.parametrize(
    ("start", "grown", "expected"),
    [
        (80 * MIB, 16 * MIB, "memory_leak"),
        (80 * MIB, 16 * MIB - 9, "increasing_memory_trend"),  # too few bytes for a leak
        (80 * MIB + 90, 16 * MIB, "increasing_memory_trend"),  # just under a fifth
        (10 * MIB, 15 * MIB, "increasing_memory_trend"),
        (80 * MIB, 4 * MIB, "increasing_memory_trend"),
        (80 * MIB + 90, 4 * MIB, None),  # just under a twentieth
        (10 * MIB, 4 * MIB - 9, None),
        (80 * MIB, 0, None),
        (80 * MIB, -40 * MIB, None),
        (0, 16 * MIB, "memory_leak"),
    ],
)
def test_growth_of_a_process(start, grown, expected):
    found = on_package(MIB, line(start, grown))
    assert [suggestion.type for suggestion in found] == ([expected] if expected else [])
    if expected:
        assert found[0].value == pytest.approx(grown)
        assert found[0].severity == {"memory_leak": "high", "increasing_memory_trend": "low"}[expected]


def test_nothing_is_said_of_fewer_than_ten_samples():
    assert on_package(MIB, line(80 * MIB, 64 * MIB, samples=9)) == []
    assert kinds(on_package(MIB, line(80 * MIB, 64 * MIB, samples=10)))


@pytest.mark.parametrize(
    "values",
    [
        [10, 40, 70, 100, 100, 100, 100, 100, 100, 100],  # a cache that fills once
        [50, 50, 50, 50, 50, 100, 100, 100, 100, 100],  # one jump
        [50, 50, 50, 50, 50, 50, 50, 50, 50, 200],  # one call that is still at work
        [50, 50, 50, 50, 50, 60, 80, 100, 120, 140],  # what only begins to grow: its turn comes
        [50, 100] * 5,  # calls that come and go
        [100, 90, 80, 70, 60, 50, 40, 30, 20, 10],
    ],
)
def test_what_does_not_grow_steadily_is_no_leak(values):
    samples = [(1e9 + 10 * i, value * MIB) for i, value in enumerate(values)]
    assert steady_growth(samples) == (0.0, 0.0)
    assert on_package(MIB, samples) == []


def test_outliers_hide_no_leak():
    samples = line(80 * MIB, 40 * MIB, samples=20)
    for index in (3, 9, 15):
        samples[index] = (samples[index][0], 900 * MIB)
    assert [s.type for s in on_package(MIB, samples)] == ["memory_leak"]


def test_outliers_make_no_growth_larger():
    samples = line(10 * MIB, 2 * MIB, samples=20)
    samples[9] = (samples[9][0], 900 * MIB)
    assert on_package(MIB, samples) == []


def test_of_several_processes_the_worst_speaks():
    # The one that grows by most bytes is no leak for its size; the other one is.
    found = on_package(MIB, line(1000 * MIB, 60 * MIB), line(60 * MIB, 20 * MIB), line(60 * MIB, 0))
    assert [(s.type, round(s.value)) for s in found] == [("memory_leak", 20 * MIB)]


def test_package_suggestions_name_package_and_app():
    (suggestion,) = on_package(300 * MIB)
    content = suggestion.as_dict()
    assert (content["package"], content["app"], content["scope"]) == ("pandas", "shop", "host")
    assert content["message"] == "pandas holds much memory"
    assert content.keys() == FIELDS | {"package"}


def test_names_with_braces_are_only_names():
    package = PackageMemory("{0.__class__}", "shop", 300 * MIB)
    (suggestion,) = package_suggestions([package], scope="host", total_bytes=TOTAL)
    assert suggestion.message == "{0.__class__} holds much memory"


def test_by_priority_puts_the_urgent_first_then_the_larger():
    def suggestion(name, severity, value, app=""):
        return Suggestion(
            type=name, severity=severity, value=value, scope="host", app=app, message="", recommendation=""
        )

    ordered = [
        suggestion("emergency_memory_reduction", "critical", 0.91),
        suggestion("low_available_memory", "high", 5),
        suggestion("swap_usage_high", "high", 0.9),
        suggestion("memory_leak", "high", 7),
        suggestion("memory_leak", "high", 6, "a"),
        suggestion("memory_leak", "high", 6, "b"),
        suggestion("memory_trend_increasing", "high", 9e9),
        suggestion("moderate_package_unloading", "medium", 0.7),
        suggestion("increasing_memory_trend", "low", 1e9),
    ]
    assert by_priority(ordered[::-1]) == ordered


numbers = st.integers(0, 1 << 42)
values = st.floats(0, 1e12) | st.just(math.nan)
series = st.lists(st.tuples(st.floats(1e9, 1.1e9), values), max_size=15)


@given(
    total=numbers,
    available=st.integers(-(1 << 42), 1 << 42),
    swap_total=numbers,
    swap_share=st.floats(0, 1),
    held=st.integers(0, 4),
    slope=st.none() | st.floats(-1e12, 1e12) | st.just(math.nan),
    sizes=st.lists(st.tuples(values, st.lists(series, max_size=2)), max_size=4),
)
def test_whatever_is_measured_the_suggestions_are_in_order_and_fit_json(
    total, available, swap_total, swap_share, held, slope, sizes
):
    memory = MemoryReading(total, min(available, total), swap_total, int(swap_total * (1 - swap_share)))
    packages = [PackageMemory(f"p{i}", "shop", size, processes) for i, (size, processes) in enumerate(sizes)]
    found = by_priority(
        [
            *scope_suggestions(
                memory, scope="host", app="", held=THRESHOLD_NAMES[:held], thresholds=DEFAULTS, slope=slope
            ),
            *package_suggestions(packages, scope="host", total_bytes=total),
        ]
    )
    priorities = [suggestion.priority for suggestion in found]
    assert priorities == sorted(priorities)
    for suggestion in found:
        content = suggestion.as_dict()
        json.dumps(content, allow_nan=False)
        assert content.keys() - {"package"} == FIELDS
        assert content["type"] in SUGGESTION_TYPES
        assert content["priority"] == ["critical", "high", "medium", "low"].index(content["severity"]) + 1
        assert content["value"] >= 0


@given(
    start=st.integers(1 * MIB, 1000 * MIB),
    grown=st.integers(-100 * MIB, 1000 * MIB),
    samples=st.integers(10, 30),
    seconds=st.floats(0.1, 1000),
)
def test_growth_of_a_straight_line_is_what_it_grew(start, grown, samples, seconds):
    found, began = steady_growth(line(start, grown, samples=samples, seconds=seconds))
    if grown < 4 * MIB:
        assert (found, began) == (0.0, 0.0)
    else:
        assert found == pytest.approx(grown, rel=1e-3)
        assert began == pytest.approx(start, abs=1e-3 * grown)


@pytest.mark.parametrize(("held", "advised"), [(3, "Fresh workers take 80 %"), (0, None)])
def test_where_unloading_cannot_relieve_a_scope_what_can_is_recommended(held, advised):
    found = scope_suggestions(
        MemoryReading(100 * GIB, 50 * GIB),
        scope="app",
        app="shop",
        held=("warning", "unload_packages", "aggressive_unload")[:held],
        thresholds=DEFAULTS,
        slope=None,
        floor="fresh workers take 80 %",
    )
    assert [each.recommendation for each in found] == ([advised] if advised else [])


def test_there_are_seven_types_on_scopes_and_three_on_packages():
    on_packages = {*("high_memory_footprint", "package_imported_by_results", "memory_leak", "increasing_memory_trend")}
    assert on_packages < set(SUGGESTION_TYPES)
    assert len(SUGGESTION_TYPES) == 11
