import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.ranking import Ageing, freeable_bytes, observed, reload_seconds, unloaded, value_of
from mempressure.state.node import AppReading
from mempressure.state.records import PackageState, WorkerState

MIB = 1 << 20


def package(name="pandas", **options):
    defaults = {"mechanism": "stop", "source": "process", "timeout": 60.0, "loaded": 1.0, "loads": 1.0}
    return PackageState(name=name, **(defaults | {"load_seconds": 2.0, "memory_bytes": 100.0 * MIB} | options))


def worker(*packages, pid=1):
    return WorkerState(app="shop", pid=pid, start_ticks=pid, pid_namespace="ns", started=0.0, packages=list(packages))


def app(*workers):
    return AppReading("shop", 1000, Path("/none"), workers, None)


def value(ageing=None, /, *held):
    return value_of([(worker(p, pid=pid), p) for pid, p in enumerate(held, start=1)], ageing or Ageing())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"uses": 10.0}, 10 * 2 / (100 * MIB)),
        ({"uses": 10.0, "loads": 4.0}, 10 * 0.5 / (100 * MIB)),
        ({"uses": 10.0, "unloads": 2.0, "reclaimed_bytes": 20.0 * MIB}, 10 * 2 / (10 * MIB)),
        ({"uses": 0.0}, 0.0),
        ({"uses": 10.0, "loads": 0.0}, 0.0),
        ({"uses": 10.0, "memory_bytes": 0.0}, 10 * 2 / 4096),
        ({"uses": 10.0, "unloads": 2.0, "reclaimed_bytes": 0.0}, 10 * 2 / 4096),
    ],
)
def test_the_value_is_uses_times_reload_seconds_a_byte(options, expected):
    assert value(None, package(**options)) == pytest.approx(expected)


def test_a_package_is_worth_in_many_workers_what_it_is_worth_in_one():
    assert value(None, *[package(uses=3.0)] * 8) == pytest.approx(value(None, package(uses=3.0)))


def test_what_was_used_since_the_level_rose_is_marked_with_it_and_the_rest_is_not():
    used, unused = package("used", uses=1.0), package("unused", uses=1.0)
    ageing = unloaded(observed(Ageing(), [app(worker(used, unused))]), 5.0)
    used.uses = 2.0
    holder = worker(used, unused)
    ageing = observed(ageing, [app(holder)])
    assert (ageing.level_of(holder, used), ageing.level_of(holder, unused)) == (5.0, 0.0)


def test_a_package_never_seen_before_enters_at_the_present_level():
    holder = worker(package())
    assert observed(Ageing(level=3.0), [app(holder)]).level_of(holder, holder.packages[0]) == 3.0


def test_what_is_unloaded_is_forgotten_and_enters_anew():
    held = package(uses=1.0)
    ageing = observed(Ageing(), [app(worker(held))])
    ageing = observed(unloaded(ageing, 2.0), [app(worker(package(uses=1.0, loaded=0.0)))])
    assert ageing.marks == {}
    assert observed(ageing, [app(worker(held))]).level_of(worker(held), held) == 2.0


def test_the_level_is_raised_and_never_lowered():
    assert unloaded(unloaded(Ageing(), 2.0), 1.0) == Ageing(level=2.0)


def test_states_are_passed_in_and_out_and_never_changed():
    before = Ageing()
    observed(unloaded(before, 1.0), [app(worker(package()))])
    assert before == Ageing()


numbers = st.floats(0, 2.0**62)
packages = st.builds(
    package,
    uses=numbers,
    loads=numbers,
    load_seconds=numbers,
    memory_bytes=numbers,
    unloads=numbers,
    reclaimed_bytes=numbers,
)


@given(st.lists(packages, min_size=1, max_size=5), numbers)
def test_a_value_is_finite_and_at_least_the_level(held, level):
    assert math.isfinite(value(Ageing(level=level), *held))
    assert value(Ageing(level=level), *held) >= level


@given(packages, st.floats(1, 1e6))
def test_more_uses_dearer_reloads_and_less_to_free_are_worth_more(held, factor):
    more = PackageState(**vars(held))
    more.uses *= factor
    assert value(None, more) >= value(None, held)
    assert reload_seconds(held) <= reload_seconds(package(loads=held.loads, load_seconds=held.load_seconds * factor))
    larger = package(uses=held.uses, memory_bytes=held.memory_bytes * factor)
    assert value(None, larger) <= value(None, package(uses=held.uses, memory_bytes=held.memory_bytes))
    assert freeable_bytes(held) >= 0


steps = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.booleans()), max_size=30)


@given(steps)
def test_the_level_never_falls_and_no_package_is_marked_above_it(steps):
    ageing = Ageing()
    held = {name: package(name) for name in "abcd"}
    holder = worker(*held.values())
    for name, uses, unload in steps:
        held[name].uses += uses
        ageing = observed(ageing, [app(holder)])
        assert all(level <= ageing.level for _, level in ageing.marks.values())
        if unload:
            lowest = min(held.values(), key=lambda p: value_of([(holder, p)], ageing))
            level = ageing.level
            ageing = unloaded(ageing, value_of([(holder, lowest)], ageing))
            assert ageing.level >= level


@given(st.floats(1e-6, 1e6), st.integers(1, 20))
def test_a_package_that_is_not_used_any_more_is_the_lowest_in_the_end(load_seconds, uses):
    """Whatever it was worth: each unloading of something that is used raises the level that the others come back at."""
    former, current = package("former", uses=float(uses)), package("current", load_seconds=load_seconds)
    ageing = Ageing()
    for _ in range(200_000):
        current.uses += 1
        holder = worker(former, current)
        ageing = observed(ageing, [app(holder)])
        values = {p.name: value_of([(holder, p)], ageing) for p in (former, current)}
        if values["former"] < values["current"]:
            return
        ageing = unloaded(ageing, values["current"])
    pytest.fail("it is kept for ever")
