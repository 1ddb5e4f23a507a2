"""Checks for OOM kills at each turn of the loop, keeps the readings before them, and writes the reports."""

import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mempressure.config.paths import atomic_write, make_private
from mempressure.config.thresholds import Thresholds
from mempressure.control.records import Cycle
from mempressure.decide.plan import Skip
from mempressure.decide.summary import Observation
from mempressure.errors import MempressureError
from mempressure.log_once import LogOnce
from mempressure.measure.cgroup import Cgroup
from mempressure.state.node import NodeReading
from mempressure_actuator.blackbox.kills import MAX_CGROUPS, Kills, Rise, read_kills, risen
from mempressure_actuator.blackbox.observation import holders
from mempressure_actuator.blackbox.report import BEFORE_SECONDS, Evidence, Kill, Usage, make_report
from mempressure_actuator.inbox.leases import Lease
from mempressure_actuator.metrics import Metrics
from mempressure_actuator.schemas import CycleDict

_log = logging.getLogger(__name__)

MAX_REPORTS = 20
REPORTS, KEPT = "reports", "observations.json"
WRITE_SECONDS = 10.0
"""How old the readings on disk may be; a second while a scope is under pressure. The file is not synced: when the
actuator is killed it is in the page cache, and after a power cut there is no kill to report."""
MAX_USAGES = int(BEFORE_SECONDS)
MAX_HISTORY = 50
RECENT_READINGS = 10


class BlackBox:
    """Watches for OOM kills; called by the control loop with each snapshot of the node.

    Args:
        directory: the state directory.
        proc: where proc is mounted.
        leases: returns the stored leases.
        history: returns this many cycles, newest first.
        record: stores a report's entry in the history.
        metrics: counts kills and reports.
    """

    def __init__(
        self,
        directory: Path,
        *,
        proc: str,
        leases: Callable[[], Iterable[Lease]],
        history: Callable[[int], list[CycleDict]],
        record: Callable[[Cycle], None],
        metrics: Metrics,
    ) -> None:
        self._directory = directory
        self._proc = proc
        self._leases = leases
        self._history = history
        self._record = record
        self._metrics = metrics
        self._boot = _boot_id(proc)
        self._kills: Kills | None = None
        self._cgroups: dict[Cgroup, str] = {}
        self._held: dict[str, Any] | None = None
        self._usages: dict[str, deque[Usage]] = {}
        self._written = 0.0
        self._once = LogOnce(__name__)
        self._restore()

    def look(self, reading: NodeReading, observation: Observation, cgroups: Mapping[Cgroup, str]) -> None:
        """Report kills since the last snapshot, then keep this one; errors are logged and counted, none is raised."""
        try:
            self._look(reading, observation, cgroups)
            self._once.over("write")
        except (OSError, MempressureError) as error:
            self._metrics.store_errors.inc()
            self._once.error("write", "black box not written: reason=%s", error)

    def _look(self, reading: NodeReading, observation: Observation, cgroups: Mapping[Cgroup, str]) -> None:
        # Cgroups that lost their last worker stay: it may have been killed.
        known = self._cgroups | dict(cgroups)
        now = read_kills(known, proc=self._proc)
        self._cgroups = dict([(c, app) for c, app in known.items() if str(c.directory) in now.cgroups][-MAX_CGROUPS:])
        rises, kills = risen(self._kills, now) if self._kills is not None else ([], now)
        self._kills = kills
        for rise in rises:
            self._report(rise, reading, observation.thresholds)
        self._held = holders(reading, cgroups, proc=self._proc)
        self._keep_usages(reading)
        pressed = any("unload_packages" in report.held for report in observation.scopes)
        if rises or time.monotonic() - self._written >= (1.0 if pressed else WRITE_SECONDS):
            self._write()

    def _keep_usages(self, reading: NodeReading) -> None:
        memories = {"": reading.host} | {app.name: app.memory for app in reading.apps.values() if app.memory}
        for name, memory in memories.items():
            usages = self._usages.setdefault(name, deque(maxlen=MAX_USAGES))
            usages.append((reading.sampled, round(memory.usage, 4)))
        for name in [name for name, usages in self._usages.items() if reading.sampled - usages[-1][0] > BEFORE_SECONDS]:
            del self._usages[name]

    def _report(self, rise: Rise, reading: NodeReading, thresholds: Thresholds) -> None:
        app = next((name for cgroup, name in self._cgroups.items() if str(cgroup.directory) == rise.cgroup), "")
        scope = "app" if rise.cgroup else "host"
        if scope == "host" and not self._host_was_short(thresholds):
            self._metrics.oom_kills.labels("other").inc(rise.count)
            words = "OOM kill in a cgroup that is not watched, the host had memory: kills=%d"
            _log.warning(words, rise.count)
            return
        kill = Kill(scope=scope, app=app, cgroup=rise.cgroup, count=rise.count, detected=reading.sampled)
        evidence = Evidence(
            usages=tuple(self._usages.get(app, ())),
            held=self._held,
            leases=self._leases(),
            cycles=self._history(MAX_HISTORY),
            thresholds=thresholds,
        )
        report = make_report(kill, evidence)
        self._metrics.oom_kills.labels(scope).inc(rise.count)
        try:
            path: Path | str = self._write_report(report)
        except (OSError, MempressureError) as error:  # the log and the history still get the report's reasons
            self._metrics.store_errors.inc()
            path = f"none, {error}"
        _log.error(
            "OOM kill: scope=%s app=%r kills=%d why=%r report=%s",
            scope,
            app,
            rise.count,
            report["why"][0],
            path,
        )
        self._record(_entry(report))

    def _host_was_short(self, thresholds: Thresholds) -> bool:
        """Return whether the host may have run out of memory: its counter includes the kills of every cgroup."""
        return any(usage >= thresholds.warning for _, usage in list(self._usages.get("", ()))[-RECENT_READINGS:])

    def _write_report(self, report: Mapping[str, Any]) -> Path:
        folder = make_private(self._directory / REPORTS, mode=0o700)
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(report["detected"]))
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{report['scope']}-{report['app']}".rstrip("-"))[:60]
        path = folder / f"oom-{when}-{int(report['detected'] * 1000) % 1000:03d}-{name}.json"
        atomic_write(path, json.dumps(report, indent=2).encode(), mode=0o600)
        self._metrics.oom_reports.inc()
        for old in sorted(folder.glob("oom-*.json"))[:-MAX_REPORTS]:
            old.unlink(missing_ok=True)
        return path

    def _write(self) -> None:
        self._written = time.monotonic()
        assert self._kills is not None  # noqa: S101 -- for mypy: kills were read before
        content = {
            "boot": self._boot,
            "host": self._kills.host,
            "unexplained": self._kills.unexplained,
            "cgroups": [
                [str(c.directory), str(c.mount), c.version, app, self._kills.cgroups[str(c.directory)]]
                for c, app in self._cgroups.items()
            ],
            "held": self._held,
            "usages": {name: list(usages) for name, usages in self._usages.items()},
        }
        atomic_write(self._directory / KEPT, json.dumps(content).encode(), mode=0o600, sync=False)

    def _restore(self) -> None:
        """Load the readings that an actuator wrote earlier in the same boot."""
        try:
            content = json.loads((self._directory / KEPT).read_bytes())
            if content["boot"] != self._boot:
                return
            cgroups = {Cgroup(Path(d), Path(m), int(v)): str(app) for d, m, v, app, _ in content["cgroups"]}
            counts = {str(row[0]): int(row[4]) for row in content["cgroups"]}
            usages = {
                str(name): deque([(float(when), float(usage)) for when, usage in rows], maxlen=MAX_USAGES)
                for name, rows in content["usages"].items()
                if rows
            }
            kills = Kills(host=content["host"], cgroups=counts, unexplained=int(content["unexplained"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._metrics.problems.inc()
            _log.warning("earlier readings not used: path=%s error=%s", self._directory / KEPT, error)
            return
        self._kills, self._cgroups, self._held, self._usages = kills, cgroups, content["held"], usages


def _entry(report: Mapping[str, Any]) -> Cycle:
    """Return a report's entry in the history; its skips are the lines of `why`."""
    memory = (report["held"] or {}).get("host", {})
    if report["app"] and report["held"]:
        memory = (report["held"]["apps"].get(report["app"]) or {}).get("memory") or {}
    usage, used = memory.get("usage", 0.0), memory.get("used_bytes", 0)
    return Cycle(
        id=f"{report['detected']:.3f}-oom",
        scope=report["scope"],
        app=report["app"],
        trigger="oom_kill",
        alert_key="",
        pressure_since=0.0,
        strategy="",
        started=report["detected"],
        usage_before=usage,
        used_before=used,
        usage_after=usage,
        used_after=used,
        ended=report["detected"],
        outcome="reported",
        skips=tuple(Skip(report["app"], "", line) for line in report["why"]),
    )


def _boot_id(proc: str) -> str:
    with suppress(OSError):
        return Path(proc, "sys/kernel/random/boot_id").read_text().strip()
    return ""
