import re

from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.thresholds import Thresholds
from mempressure_actuator.page.chart import GAP_SECONDS, HEIGHT, WIDTH, draw

NOW = 10_000.0
START = NOW - WIDTH


def drawn(*samples, marks=(), thresholds=None):
    return draw(samples, thresholds=thresholds or Thresholds(), marks=marks, now=NOW)


def points(path):
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", part)] for part in path.split("M")[1:]
    ]


def test_a_usage_is_drawn_from_the_bottom():
    chart = drawn((START, 0.0), (START + 15, 0.25), (START + 30, 1.0))
    assert points(chart.line) == [[(0, 1000), (15, 750), (30, 0), (45, 0)]]
    assert points(chart.area) == [[(0, 1000), (0, 1000), (15, 750), (30, 0), (45, 0), (45, 1000)]]
    assert (chart.lowest, chart.highest, chart.top, chart.now) == (0.0, 1.0, 1.0, "0.00%")


def test_what_is_not_known_is_not_joined():
    first, second = START, START + GAP_SECONDS + 15
    assert [len(part) for part in points(drawn((first, 0.5), (second, 0.5)).line)] == [2, 2]
    assert [len(part) for part in points(drawn((first, 0.5), (second - 15, 0.5)).line)] == [3]


def test_the_last_sample_reaches_to_now_and_not_beyond():
    assert points(drawn((NOW - 4, 0.5)).line) == [[(3596, 500), (3600, 500)]]


def test_above_a_budget_the_scale_grows_with_the_usage():
    chart = drawn((NOW - 15, 1.25))
    assert chart.top == 1.25
    assert [rule.place for rule in chart.thresholds] == ["52.00%", "36.00%", "32.00%", "28.00%"]


def test_thresholds_and_marks_are_placed_in_percent():
    chart = drawn((NOW - 15, 0.5), marks=[START, NOW - 1800, START - 1, NOW + 1])
    assert [(rule.name, rule.place) for rule in chart.thresholds] == [
        ("warning", "40.00%"),
        ("unload_packages", "20.00%"),
        ("aggressive_unload", "15.00%"),
        ("emergency", "10.00%"),
    ]
    assert [mark.place for mark in chart.marks] == ["0.00%", "50.00%"]


def test_without_a_sample_there_is_no_line():
    chart = drawn()
    assert (chart.line, chart.area, chart.now, chart.seconds) == ("", "", "", 0.0)


@given(st.lists(st.tuples(st.floats(0, WIDTH + 14), st.floats(0, 3)), max_size=30, unique_by=lambda sample: sample[0]))
def test_whatever_was_measured_stays_in_the_drawing(samples):
    chart = drawn(*sorted((NOW - age, usage) for age, usage in samples))
    for path in (chart.line, chart.area):
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for part in points(path) for x, y in part)
    assert 0 <= chart.seconds <= WIDTH
