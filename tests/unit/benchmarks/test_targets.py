import pytest

from benchmarks.targets import Target, as_dicts, missed


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [
        (94.99, True, False),
        (95, True, True),
        (95.01, True, True),
        (94.99, False, True),
        (95, False, True),
        (95.01, False, False),
        (float("nan"), True, False),
        (float("nan"), False, False),
    ],
)
def test_a_bound_holds_on_its_own_side(measured, at_least, met):
    assert Target("share", measured, 95, "%", at_least=at_least).met is met


def test_what_is_kept_is_for_people_and_says_whether_it_was_met():
    assert as_dicts([Target("share", 99.2564, 95, "%", at_least=True), Target("failed requests", 3, 0)]) == [
        {"what": "share", "target": "at least 95 %", "measured": "99.26 %", "met": True},
        {"what": "failed requests", "target": "at most 0", "measured": "3", "met": False},
    ]


def test_missed_names_benchmark_figure_and_promise_and_nothing_that_was_met():
    targets = as_dicts([Target("start", 120.5, 100, "ms"), Target("call", 40, 100, "us")])
    results = {"calls": {"figures": {"targets": targets}}, "reaction": {"figures": {"what": "no promise"}}}
    assert missed(results) == ["calls: start: 120.5 ms, promised at most 100 ms"]
