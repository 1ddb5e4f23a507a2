import pytest

from benchmarks.services import figures
from benchmarks.services.load import Answers
from benchmarks.services.replacing import Losses
from benchmarks.services.rounds import Outcome

MIB = 1 << 20


def outcome(application="wagtail", way="plain", *, rest=200, peak=210, seconds=(0.01, 0.02), failed=0, replaced=0):
    answers = Answers(seconds=list(seconds), failed=failed)
    return Outcome(application, way, peak * MIB, rest * MIB, replaced, answers)


def promised(*outcomes):
    return {target.what: target for target in figures.targets(figures.by_run(outcomes))}


def test_a_managed_way_is_compared_with_plain_of_the_same_application():
    found = promised(
        outcome(),
        outcome(way="managed", rest=170, peak=220, seconds=(0.011, 0.022)),
        outcome("superset", rest=600, peak=600),
        outcome("superset", "managed", rest=570, peak=606),
    )
    assert found["memory at rest, `--manage` against plain, wagtail"].measured == pytest.approx(0.85)
    assert found["peak of memory, `--manage` against plain, wagtail"].measured == pytest.approx(220 / 210)
    assert found["memory at rest, `--manage` against plain, superset"].measured == pytest.approx(0.95)
    assert found["memory at rest, `--manage` against plain, wagtail"].met
    assert not found["memory at rest, `--manage` against plain, superset"].met
    assert not found["peak of memory, `--manage` against plain, wagtail"].met


def test_sharing_is_promised_for_what_the_issue_names_each_with_its_bound():
    found = promised(
        *(outcome(name) for name in ("wagtail", "superset", "tasks")),
        *(outcome(name, "shared", rest=120) for name in ("wagtail", "superset", "tasks")),
    )
    assert {what: (target.bound, target.met) for what, target in found.items()} == {
        "memory at rest, `--manage --share` against plain, wagtail": (0.65, True),
        "memory at rest, `--manage --share` against plain, superset": (0.55, False),
    }


def test_medians_over_the_rounds_are_compared():
    found = promised(
        *(outcome(rest=rest) for rest in (100, 200, 900)),
        *(outcome(way="managed", rest=rest) for rest in (150, 10, 900)),
    )
    assert found["memory at rest, `--manage` against plain, wagtail"].measured == 0.75


def test_nothing_is_promised_of_other_ways_or_without_plain():
    assert not promised(outcome(), outcome(way="preloaded"), outcome(way="own best"))
    assert not promised(outcome(way="managed"), outcome(way="shared"))


def test_the_table_has_a_row_for_each_way_in_their_order_with_shares_of_plain():
    runs = figures.by_run(
        [
            outcome(way="managed", rest=100, peak=105, failed=1, replaced=2),
            outcome(rest=190),
            outcome(way="managed", rest=110, peak=105, replaced=3),
            outcome(rest=210),
        ]
    )
    table = figures.table(runs)
    rows = [dict(zip(table["columns"][:3], row[:3], strict=True)) for row in table["rows"]]
    assert rows == [
        {"application": "wagtail", "way": "plain", "at rest, MiB": "200 (190-210)"},
        {"application": "wagtail", "way": "managed", "at rest, MiB": "105 (100-110)"},
    ]
    assert table["rows"][1][3:] == ["0.53", "105 (105-105)", "0.50", "20 (20-20)", "1.00", "4", "1", "2, 3"]


def test_a_row_of_losses_tells_the_requests_and_how_long_they_took():
    answers = Answers(seconds=[0.001, 0.002, 0.003], failed=1, resent=2)
    row = figures.losses_row(Losses("shared", answers, replaced=7, seconds=1.0))
    assert dict(zip(figures.LOSSES_COLUMNS, row, strict=True)) == {
        "way": "shared",
        "requests": "3",
        "failed": "1",
        "sent again": "2",
        "workers replaced": "7",
        "p50, ms": "2",
        "p99, ms": "3",
        "max, ms": "3",
    }


@pytest.mark.parametrize(("values", "told"), [([3.0], "3"), ([1.0, 2.0, 4.0], "2 (1-4)")])
def test_a_spread_is_told_where_there_is_one(values, told):
    assert figures.spread(values, unit=1) == told
