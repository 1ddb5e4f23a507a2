"""Every query of every dashboard, asked of the real Prometheus after real pressure, an alert, a webhook and unloads."""

import contextlib
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import requests
import yaml

from app.load import Load
from stack.configuration import PROMETHEUS_FILE, free_ports
from stack.engines import ROOT
from stack.observation import Observer
from stack.system import System, run_system
from tests.support.dashboards.document import NAMES, find, label_values, load, queries, variables
from tests.support.waiting import until

NO_CGROUP = "the sample has a budget and no cgroup of its own"
UNPRIVILEGED = "where the kernel accepts no trigger, nothing is counted"
MAY_BE_EMPTY = {
    "Memory stalls C": NO_CGROUP,
    "Memory stalls D": NO_CGROUP,
    "Cgroup events A": NO_CGROUP,
    "Stall notifications A": UNPRIVILEGED,
    "Imported by results A": "the sample's functions return plain data",
}
SCRAPE_SECONDS = float(yaml.safe_load(PROMETHEUS_FILE.read_text())["global"]["scrape_interval"].removesuffix("s"))


@dataclass(frozen=True, slots=True)
class Run:
    """A system after pressure and relief, and the time from its start to now."""

    system: System
    start: float
    end: float | None = None
    """None where it goes on."""

    @property
    def until(self):
        return self.end or time.time()

    def ask(self, path, **params):
        answer = requests.get(self.system.url("prometheus") + path, params=params, timeout=10)
        assert answer.ok, f"{params}: {answer.text}"
        return answer.json()["data"]

    def values(self, variable, chosen):
        """Return what a query variable offers."""
        selector, label = label_values(variable)
        selector = interpolated(selector, chosen)
        return self.ask(f"/api/v1/label/{label}/values", **{"match[]": selector}, start=self.start, end=self.until)

    def samples(self, query, chosen):
        """Return the numbers that a panel or an annotation would show."""
        # The widest graph has a pixel for every second of the run, so its step is the scrape interval.
        scrape = float(query.step.removesuffix("s")) if query.step else SCRAPE_SECONDS
        intervals = {
            "__rate_interval": f"{4 * scrape:g}s",
            "__range": f"{math.ceil(self.until - self.start)}s",
        }
        expr = interpolated(query.expr, intervals | chosen)
        if query.instant:
            data = self.ask("/api/v1/query", query=expr, time=self.until)["result"]
            return [float(row["value"][1]) for row in data]
        data = self.ask("/api/v1/query_range", query=expr, start=self.start, end=self.until, step=scrape)["result"]
        return [float(value) for row in data for _, value in row["values"]]


def interpolated(text, values):
    # Longer names first: $__range is the beginning of another name.
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"${name}", values[name])
    return text


def choices(run, dashboard):
    """Return what Grafana puts in for each variable with everything chosen: `allValue`, or what the variable offers."""
    chosen = {each["name"]: each["current"]["value"] for each in variables(dashboard, "custom")}
    for variable in variables(dashboard, "query"):
        offered = run.values(variable, chosen)
        assert offered, f"the variable {variable['name']} offers nothing"
        chosen[variable["name"]] = variable.get("allValue", f"({'|'.join(offered)})")
    return chosen


@pytest.fixture(scope="module")
def run(engines, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("dashboards")
    # With every package loaded the sample uses half of this budget: under no threshold's enter as they are at first.
    environ = {"MEMPRESSURE_CACHE_DIR": str(scratch / "cache"), "MEMPRESSURE_BUDGET": "768MiB"}
    start = time.time()
    with run_system(free_ports(), engines=engines, logs=scratch / "logs", environ=environ) as system:
        load_ = Load(system.url("sample"))
        load_.start()
        try:
            with rehearsed(environ):
                press_and_relieve(system, load_)
            yield Run(system, start)
        finally:
            load_.stop()


@contextlib.contextmanager
def rehearsed(environ):
    """Rehearse sympy beside what is done in the block: a verdict for the dashboards to show."""
    command = [sys.executable, "-m", "mempressure", "check", "--cycles", "2", "sympy"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environ, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def press_and_relieve(system, load_):
    """Have each stage do its work: pressure, alerts, a reaction, unloads, refaults, and scrapes of the engines."""
    observer = Observer(system)
    observer.wait(lambda _: len(observer.loaded()) >= 6, what="every package in both workers", seconds=60)
    load_.fall_idle()
    await_series(system, "min(time() - mempressure_package_last_used_timestamp_seconds) > 12")
    # No alert has fired yet. With these one does, and the cycle that its notification opens gives memory back at once.
    requests.post(
        system.url("actuator") + "/api/packages/memory/pressure-thresholds",
        json={"warning": 0.31, "unload_packages": 0.36, "aggressive_unload": 0.9, "emergency": 0.95},
        headers={"Authorization": f"Bearer {system.token}"},
        timeout=10,
    ).raise_for_status()
    await_series(system, "mempressure_actuator_reaction_duration_seconds_count > 0")
    await_series(system, "increase(mempressure_package_unloads_total[1m]) > 0")
    load_.work()
    await_series(system, "mempressure_package_verdict and ignoring (mechanism) mempressure_package_loaded_workers > 0")
    twice = 'count(count_over_time({__name__=~"(prometheus|alertmanager)_build_info"}[5m]) >= 2) == 2'
    await_series(system, twice)


def await_series(system, query):
    until(lambda: system.get("prometheus", "/api/v1/query", query=query)["data"]["result"], query, seconds=60)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", NAMES)
def test_every_query_of_panels_variables_and_annotations_has_data(run, name):
    dashboard = load(name)
    chosen = choices(run, dashboard)
    asked = list(queries(dashboard))

    def empty():
        found = [query.where for query in asked if not any(map(math.isfinite, run.samples(query, chosen)))]
        return sorted(set(found) - set(MAY_BE_EMPTY))

    assert len(asked) > 30
    # A trend needs half a minute of samples, the engines are scraped every 15 s.
    until(lambda: not empty(), lambda: f"data for {empty()}", seconds=60)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_without_data_says_what_is_missing(run, name):
    dashboard = load(name)
    (missing,) = [query for query in queries(dashboard) if query.where == "Data A"]
    (mapping,) = find(dashboard, "Data")["fieldConfig"]["defaults"]["mappings"]
    said = {value: option["text"] for value, option in mapping["options"].items()}
    chosen = choices(run, dashboard)
    (now,) = run.samples(missing, chosen)
    assert said[f"{now:g}"] == "All there"
    before = Run(run.system, run.start - 7200, run.start - 3600)
    (then,) = before.samples(missing, chosen)
    assert said[f"{then:g}"] in ("No exporter", "No actuator")
