"""The library's own alerts and the rules give the same answer on the same samples, over a grid of usages and settings.

One `MemoryMonitor` is handed the samples one by one, and promtool the same samples as series. Every test visits every
boundary of its thresholds, the smallest step beside it, and the middle between two of them, and,
where the settings stay, goes from each to each.
"""

import json
import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from mempressure.config.thresholds import ALERT_LEVELS, THRESHOLD_NAMES, Thresholds
from mempressure.control.monitor import MemoryMonitor
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from tests.rules.excerpt import excerpt
from tests.support.engines import run_tool

TARGET = 'job="mempressure-exporter",instance="a"'
STEPS = 10_000
"""Usages are multiples of 1 / STEPS, which is as fine as an exit is rounded."""
EVALUATION = "1s"
SOME_SAMPLES = 600

DEFAULT = Thresholds()
GRID = {
    "default": [DEFAULT],
    "no deadband": [Thresholds(hysteresis=0.0)],
    "a deadband as wide as can be": [Thresholds(0.51, 0.6, 0.7, 0.8, hysteresis=0.5)],
    "close together, each within the band of the next": [Thresholds(0.6, 0.61, 0.62, 0.63)],
    "a step apart": [Thresholds(0.6, 0.6001, 0.6002, 0.6003, hysteresis=0.0001)],
    "up to a full machine": [Thresholds(0.97, 0.98, 0.99, 1.0, hysteresis=0.01)],
    "an exit that rounding moves": [Thresholds(0.33335, 0.5, 0.66665, 0.9, hysteresis=0.11111)],
    "set now and again": [DEFAULT, Thresholds(0.5, 0.7, 0.82, 0.97), Thresholds(0.8, 0.85, 0.9, 0.95)],
}


@dataclass
class Sequence:
    """Samples of a host and an app with the settings at each, and what the library says to them."""

    usages: list[int]
    thresholds: list[Thresholds]
    enabled: list[bool]
    expected: list[dict] = field(default_factory=list)

    def __post_init__(self):
        monitor = MemoryMonitor(thresholds=self.thresholds[0])
        for second, (host, app) in enumerate(zip(self.usages, self.of_app(), strict=True)):
            monitor.set_thresholds(self.thresholds[second].as_dict())
            monitor.enable_memory_pressure_alerts(self.enabled[second])
            shop = AppReading("shop", 0, Path("/none"), (), memory(app))
            observation = monitor.observe(NodeReading(float(second), memory(host), {"shop": shop}))
            self.expected.append({alert.scope: alert.level for alert in observation.alerts})

    def of_app(self):
        """Return other usages for the app: its alerts are its own."""
        return self.usages[::-1]

    def series(self):
        yield f'mempressure_node_info{{{TARGET},node="n1"}}', [1 for _ in self.usages]
        yield f"mempressure_host_memory_used_ratio{{{TARGET}}}", [memory(usage).usage for usage in self.usages]
        yield (
            f'mempressure_app_memory_used_ratio{{{TARGET},app="shop"}}',
            [memory(usage).usage for usage in self.of_app()],
        )
        yield f"mempressure_alerts_enabled{{{TARGET}}}", [int(enabled) for enabled in self.enabled]
        for name in THRESHOLD_NAMES:
            for edge in ("enter", "exit"):
                labels = f'{TARGET},threshold="{name}",edge="{edge}"'
                yield (
                    f"mempressure_threshold_ratio{{{labels}}}",
                    [getattr(each, edge)(name) for each in self.thresholds],
                )

    def test(self):
        """Return the test that promtool is to run."""
        levels = tuple(ALERT_LEVELS.values())
        wanted = []
        for second, alerts in enumerate(self.expected):
            # The library tells the highest; in Prometheus those below it fire too.
            samples = [
                {"labels": f'{{{"" if scope == "host" else _APP}level="{level}",scope="{scope}"}}', "value": 1}
                for scope, highest in alerts.items()
                for level in levels[: levels.index(highest) + 1]
            ]
            query = 'count by (scope, app, level) (ALERTS{level!="",alertstate="firing"})'
            wanted.append({"expr": query, "eval_time": f"{second}s", "exp_samples": samples})
        given = [{"series": name, "values": " ".join(map(repr, values))} for name, values in self.series()]
        return {"interval": EVALUATION, "input_series": given, "promql_expr_test": wanted}


_APP = 'app="shop",'


def memory(usage):
    return MemoryReading(total=STEPS, available=STEPS - usage)


def points(thresholds):
    """Return every boundary, the steps beside it, and a usage between any two: multiples of 1 / STEPS."""
    edges = {edge(name) for each in thresholds for name in THRESHOLD_NAMES for edge in (each.enter, each.exit)}
    places = sorted({0, STEPS} | {round(edge * STEPS) for edge in edges})
    near = {place + step for place in places for step in (-1, 0, 1)}
    between = {(low + high) // 2 for low, high in pairwise(places)}
    return sorted(usage for usage in near | between if 0 <= usage <= STEPS)


def from_each_to_each(values):
    """Return a sequence in which every value is followed by every other once: 0 1 0 2 0 3 1 2 1 3 2 3 0."""
    count = len(values)
    return [values[place] for i in range(count) for j in range(i + 1, count) for place in (i, j)] + [values[0]]


def test_from_each_to_each():
    steps = from_each_to_each("abcdef")
    assert sorted(pairwise(steps)) == sorted((a, b) for a in "abcdef" for b in "abcdef" if a != b)


def run(tmp_path, *sequences):
    rules = tmp_path / "rules.yml"
    rules.write_text(
        yaml.safe_dump(excerpt(*(f"MemoryPressure{level.capitalize()}" for level in ALERT_LEVELS.values())))
    )
    content = {"rule_files": [str(rules)], "evaluation_interval": EVALUATION, "tests": [s.test() for s in sequences]}
    path = tmp_path / "agreement_test.yml"
    path.write_text(json.dumps(content))  # which is YAML too, and written in a hundredth of the second that YAML takes
    return run_tool("promtool", "test", "rules", path)


def sequence(thresholds, *, chance, switched=False):
    values = points(thresholds)
    chance.shuffle(values)
    usages = from_each_to_each(values)
    if switched or len(thresholds) > 1:  # then a pair is not all there is to a sample, and there are too many
        usages = usages[:SOME_SAMPLES]
    # Settings stay for some samples, as somebody sets them who looks at the result.
    held = [thresholds[(second // 7) % len(thresholds)] for second in range(len(usages))]
    enabled = [not switched or (second // 5) % 3 != 1 for second in range(len(usages))]
    return Sequence(usages, held, enabled)


@pytest.mark.parametrize("name", GRID)
def test_they_agree_at_every_boundary(tmp_path, name):
    made = sequence(GRID[name], chance=random.Random(name))
    levels = {alerts.get("host") for alerts in made.expected}
    assert levels == {None, *ALERT_LEVELS.values()}, "every answer is asked for"
    done = run(tmp_path, made)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


@pytest.mark.parametrize("name", ["default", "a deadband as wide as can be", "set now and again"])
def test_they_agree_while_alerts_are_turned_off_and_on(tmp_path, name):
    made = sequence(GRID[name], chance=random.Random(name), switched=True)
    assert any(not enabled for enabled in made.enabled)
    done = run(tmp_path, made)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


@pytest.mark.parametrize("seed", range(3))
def test_they_agree_on_a_random_walk(tmp_path, seed):
    chance = random.Random(seed)
    usages = [STEPS // 2]
    for _ in range(400):
        usages.append(min(STEPS, max(0, usages[-1] + round(chance.gauss(0, STEPS / 25)))))
    held = [chance.choice(GRID["set now and again"]) for _ in range(50) for _ in range(9)][: len(usages)]
    done = run(tmp_path, Sequence(usages, held, [True] * len(usages)))
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]
