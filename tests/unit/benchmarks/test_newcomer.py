"""The figures of a service that isolates packages, and of callers that share a process, from what was measured."""

import pytest

from benchmarks import contention, newcomer
from benchmarks.contention import Calls
from benchmarks.relieved import Outcome
from benchmarks.report import BEGIN, END, readme
from benchmarks.shop import sales
from benchmarks.traffic import Page, Phase

MIB = 1 << 20


def outcome(way, *, peak, rest, failed=0):
    phase = Phase("measured")
    page = Page("/", 1.0, b"known")
    for number in range(10):
        phase.take(page, 500 if number < failed else 200, b"known", 0.1)
    return Outcome(way, peak * MIB, rest * MIB, 20.0, (Phase("start"), phase), 2, 1.5)


@pytest.fixture
def outcomes():
    return {
        "plain": [outcome("plain", peak=400, rest=390), outcome("plain", peak=420, rest=410)],
        "one": [outcome("one", peak=205, rest=80)],
        "default": [outcome("default", peak=492, rest=80, failed=1)],
        "worker": [outcome("worker", peak=600, rest=80)],
    }


def test_ways_are_compared_with_the_service_without_mempressure(outcomes):
    ratios = newcomer.of_plain(outcomes)
    assert ratios["one"] == {"peak": pytest.approx(0.5), "rest": pytest.approx(0.2), "rate": 1.0}
    targets = {target.what: target for target in newcomer.targets(outcomes)}
    assert targets["peak of memory, one process a package, against plain"].met
    assert not targets["peak of memory, default, against plain"].met
    assert targets["requests a second, default, against plain"].met
    assert not targets["failed or wrong answers of 30"].met


def test_the_readme_has_the_peak_and_the_rest_of_the_ways(outcomes):
    figures = {"tables": [newcomer.table(outcomes)]}
    result = {"date": "2026-11-30", "machine": MACHINE, "versions": VERSIONS, "figures": figures}
    lines = readme(f"{BEGIN}{END}", {"newcomer": result}).splitlines()
    lines = [line for line in lines if "isolate two packages" in line]
    assert [line.split(" | ")[1] for line in lines] == [
        "one process a package 0.50x, default 1.20x",
        "one process a package 0.20x, default 0.20x",
    ]
    assert "in each worker: 1.46x" in lines[0]


MACHINE = {"cpu": "a processor", "cores": 2, "memory_bytes": 8 << 30, "kernel": "6.1"}
VERSIONS = {"python": "3.11", "prometheus": "2.42", "alertmanager": "0.25"}


def test_turns_are_compared_with_the_fair_wait_and_throughput_with_own_processes():
    turns = {
        ("one", 1): Calls([0.16] * 20, [10, 10], 50.0, 1),
        ("one", 4): Calls([0.16, 0.4] * 20, [0, 10], 50.0, 1),
        ("ProcessPoolExecutor", 1): Calls([0.4], [10, 10], 50.0, 1),
    }
    rates = {"default": [90.0, 96.0, 99.0], "worker": [100.0, 99.0, 101.0], "ProcessPoolExecutor": [80.0]}
    first, first_fewest, second, second_fewest, throughput = contention.targets(turns, rates)
    assert first.measured == pytest.approx(1.0)
    assert second.measured == pytest.approx(2.5)
    assert throughput.measured == pytest.approx(0.96)
    assert (first_fewest.met, second_fewest.met) == (True, False)
    assert (first.met, second.met, throughput.met) == (True, False, True)


def test_the_sales_are_the_same_wherever_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sales, "ROWS", 50)
    first = sales.make(tmp_path / "a" / "sales.csv").read_text()
    assert first == sales.make(tmp_path / "b" / "sales.csv").read_text()
    assert len(first.splitlines()) == 51
    (tmp_path / "a" / "sales.csv").write_text("kept")
    assert sales.make(tmp_path / "a" / "sales.csv").read_text() == "kept"
