import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.control.records import Pressure
from mempressure.measure.memory_reading import MemoryReading
from mempressure_actuator.custom.definition import LEVELS, CustomAction, due, payload

SHOP = Pressure("app", "shop", "webhook", 5.0, "0123", "high")
KEY = ("page", "app", "shop")


def action(**options):
    return CustomAction(**{"name": "page", "level": "high", "cooldown": 60.0, "command": ["/bin/true"]} | options)


@pytest.mark.parametrize(
    ("options", "level", "started", "running", "is_due"),
    [
        ({}, "high", {}, {}, True),
        ({}, "emergency", {}, {}, True),
        ({}, "medium", {}, {}, False),
        ({}, "", {}, {}, False),
        ({"level": "warning"}, "", {}, {}, False),
        ({}, "high", {KEY: 941.0}, {}, False),
        ({}, "high", {KEY: 940.0}, {}, True),
        ({}, "high", {KEY: 1030.0}, {}, False),  # the clock was set back a little
        ({}, "high", {KEY: 9999.0}, {}, True),
        ({}, "high", {("page", "host", ""): 999.0}, {}, True),
        ({"cooldown": 0.0}, "high", {KEY: 1000.0}, {}, True),
        ({}, "high", {}, {"page": 1}, False),
        ({"concurrency": 2}, "high", {}, {"page": 1}, True),
        ({}, "high", {}, {"other": 1}, True),
    ],
)
def test_when_an_action_is_due(options, level, started, running, is_due):
    found = due([action(**options)], SHOP, level=level, started=started, running=running, now=1000.0)
    assert [each.name for each in found] == (["page"] if is_due else [])


@given(
    steps=st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["", *LEVELS])), max_size=40),
    level=st.sampled_from(LEVELS),
    cooldown=st.floats(0, 100),
)
def test_never_below_its_level_nor_twice_within_its_cooldown(steps, level, cooldown):
    started, now = {}, 0.0
    for seconds, reached in steps:
        now += seconds
        for each in due(
            [action(level=level, cooldown=cooldown)], SHOP, level=reached, started=started, running={}, now=now
        ):
            assert LEVELS.index(reached) >= LEVELS.index(level)
            assert KEY not in started or now - started[KEY] >= cooldown
            started[(each.name, *SHOP.key)] = now


def test_the_payload_of_an_action():
    content = payload(action(), SHOP, node="n1", level="emergency", memory=MemoryReading(1000, 75))
    assert content == {
        "action": "page",
        "node": "n1",
        "scope": "app",
        "app": "shop",
        "level": "emergency",
        "usage": 0.925,
        "used_bytes": 925,
        "total_bytes": 1000,
        "trigger": "webhook",
        "pressure_since": 5.0,
        "alert": {"fingerprint": "0123", "labels": {"node": "n1", "scope": "app", "app": "shop", "level": "high"}},
    }
    alone = payload(action(), Pressure("host", "", "reflex"), node="n1", level="high", memory=MemoryReading(10, 1))
    assert alone["alert"] is None
