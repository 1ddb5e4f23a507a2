"""What is set through the API moves the exporter's series, the real Prometheus' alerts and the library's alike."""

import re
import time

import pytest
import requests

from stack.configuration import free_ports
from stack.system import run_system, start_actuator
from tests.support.waiting import until

MEMORY = "/api/packages/memory"
LEVELS = ("warning", "medium", "high", "emergency")
NAMES = ("warning", "unload_packages", "aggressive_unload", "emergency")


class Watched:
    """A system without the sample, whose host is the only scope."""

    def __init__(self, system):
        self.system = system

    def usage(self):
        memory = self.system.get("actuator", f"{MEMORY}/system-info")["data"]
        return memory["used"] / memory["total"]

    def post(self, path, content=None):
        answer = requests.post(
            self.system.url("actuator") + MEMORY + path,
            json=content,
            headers={"Authorization": f"Bearer {self.system.token}"},
            timeout=10,
        )
        answer.raise_for_status()

    def set_thresholds(self, *below):
        """Set thresholds such that the host's usage enters those with names in `below` and is far from the others."""
        usage = self.usage()
        # Far below: what a machine uses can halve while its other work comes and goes.
        entered = {name: round(usage * (0.1 + 0.05 * place), 4) for place, name in enumerate(below)}
        others = [name for name in NAMES if name not in below]
        far = {name: round(1 - 0.01 * (len(others) - place), 4) for place, name in enumerate(others)}
        assert usage < 0.9, "too little memory is free on this machine to tell anything"
        self.post("/pressure-thresholds", entered | far)
        return entered | far, time.time()

    def exposed(self):
        """Return the enter ratios that the exporter shows, and whether alerts are enabled there."""
        text = requests.get(self.system.url("exporter") + "/metrics", timeout=10).text
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        ratios = {
            re.search(r'threshold="(\w+)"', name)[1]: float(value)
            for name, value in samples.items()
            if name.startswith("mempressure_threshold_ratio{") and 'edge="enter"' in name
        }
        return ratios, float(samples["mempressure_alerts_enabled"])

    def query(self, query):
        return self.system.get("prometheus", "/api/v1/query", query=query)["data"]["result"]

    def firing(self):
        """Return the levels of the host's alerts that fire in Prometheus."""
        return {row["metric"]["level"] for row in self.query('ALERTS{scope="host",alertstate="firing"}')}

    def scraped(self, thresholds, *, since):
        """Return when Prometheus first scraped these enter ratios after `since`; None if it has not."""
        seen = []
        for name, ratio in thresholds.items():
            (row,) = self.query(f'mempressure_threshold_ratio{{threshold="{name}",edge="enter"}}[60s]')
            times = [float(when) for when, value in row["values"] if float(when) > since and float(value) == ratio]
            seen.append(min(times, default=None))
        return None if None in seen else max(seen)

    def evaluations(self, *, since):
        """Return the levels that fired at each evaluation after `since`, the oldest first."""
        levels = {}
        # The watchdog always fires: without any other alert it tells when the evaluations were.
        for row in self.query('ALERTS{alertstate="firing"}[60s]'):
            for when, _ in row["values"]:
                found = levels.setdefault(float(when), set())
                if row["metric"].get("scope") == "host":
                    found.add(row["metric"]["level"])
        # The newest may be under way: each rule writes its result as it is done.
        return [levels[when] for when in sorted(levels)[:-1] if when > since]

    def current(self):
        """Return the level of the library's own alert, as the actuator has it."""
        alerts = self.system.get("actuator", f"{MEMORY}/pressure-alerts")["data"]["alerts"]
        return [alert["level"] for alert in alerts if alert["scope"] == "host"]

    def settled(self, *levels):
        """Wait until Prometheus and the library say so."""
        until(lambda: self.firing() == set(levels), lambda: f"{levels}, not {self.firing()}", seconds=15)
        assert self.current() == list(levels[-1:])


@pytest.fixture
def watched(engines, tmp_path):
    # Any usage of a machine can be entered and left.
    environ = {"MEMPRESSURE_HYSTERESIS": "0.001", "MEMPRESSURE_THRESHOLD_FLOOR": "0"}
    with run_system(free_ports(), engines=engines, logs=tmp_path / "logs", environ=environ, sample=False) as system:
        watched = Watched(system)
        watched.set_thresholds()
        ready = 'count(mempressure_threshold_ratio) == 8 and count(scope:mempressure_used:ratio{scope="host"}) > 0'
        until(
            lambda: system.get("prometheus", "/api/v1/query", query=ready)["data"]["result"],
            "the series in Prometheus",
            seconds=30,
        )
        yield watched


@pytest.mark.timeout(180)
def test_what_is_set_shows_at_once_moves_the_alerts_and_lasts(watched):
    watched.settled()

    thresholds, changed = watched.set_thresholds("warning", "unload_packages")
    assert watched.exposed() == (thresholds, 1.0), "at once, not at the next look"
    watched.settled("warning", "medium")
    assert_prompt(watched, {"warning", "medium"}, thresholds, changed)

    watched.post("/pressure-alerts/false")
    assert watched.exposed() == (thresholds, 0.0)
    watched.settled()

    actuator = watched.system.running["actuator"]
    assert actuator.stop() == 0
    watched.system.bring_up("actuator", start_actuator)
    assert watched.exposed() == (thresholds, 0.0), "the restart changed nothing"
    summary = watched.system.get("actuator", f"{MEMORY}/pressure-summary")["data"]
    assert (summary["alerts_enabled"], summary["current_alerts"]) == (False, [])
    watched.settled()

    watched.post("/pressure-alerts/true")
    assert watched.exposed() == (thresholds, 1.0)
    watched.settled("warning", "medium")


@pytest.mark.timeout(180)
def test_the_library_and_prometheus_agree_within_two_evaluations(watched):
    watched.settled()
    for entered in (NAMES[:1], NAMES, NAMES[:3], (), NAMES[:2]):
        thresholds, changed = watched.set_thresholds(*entered)
        levels = LEVELS[: len(entered)]
        assert watched.current() == list(levels[-1:]), "the library answers from what is set now"
        watched.settled(*levels)
        assert_prompt(watched, set(levels), thresholds, changed)


def assert_prompt(watched, levels, thresholds, changed):
    """Check that the evaluations agreed with the library after two at most, and from then on.

    They are counted from the scrape that brought the thresholds, whose time is that of its beginning: the evaluation
    after it may come before its end. However late a busy machine scrapes and evaluates, the count is the same.
    """
    scraped = until(lambda: watched.scraped(thresholds, since=changed), "the scrape", seconds=15)
    evaluations = until(
        lambda: len(found := watched.evaluations(since=scraped)) >= 4 and found, "four evaluations", seconds=15
    )
    assert [found for found in evaluations[2:] if found != levels] == []
