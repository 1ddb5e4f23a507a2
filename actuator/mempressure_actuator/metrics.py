"""The actuator's own metrics; docs/actuator.md explains each."""

import platform
from collections.abc import Callable, Collection, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from mempressure import __version__
from mempressure.act.executor import Outcome
from mempressure.act.mechanisms import mechanism, worker_replacing_names
from mempressure.config.configuration import DRY_RUN_CHOICES
from mempressure.control.records import Cycle
from mempressure.decide.plan import Action
from mempressure.mechanisms import NAMES
from mempressure.state.node import NodeReading
from mempressure_actuator.inbox.notification import RESULTS

WEBHOOK_RESULTS = ("accepted", "ignored", "invalid", "unsupported", "too_large", "unauthorized", "failed", "overloaded")

BRAKES = ("threshold_floor", "recycles", "futile_cycles")
"""The brakes of `loop.brakes`, as `mempressure_actuator_brakes_total` names them."""

CUSTOM_RESULTS = ("done", "failed", "timeout", "dry_run")

STALL_SOURCES = ("host", "cgroup_v1", "cgroup_v2")

MAX_PACKAGE_SERIES = 1000
"""(app, package) pairs that have series of their own: the names come from workers, so their number needs a limit."""

_ACTION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REACTION_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60)


class Metrics:
    """All metrics, in a registry of their own.

    Args:
        node: the machine's name.
        dry_run: the mechanisms that are not carried out.
        leases: returns the number of unexpired leases.
        queue_length: returns the number of notifications that the loop has not handled yet.
    """

    def __init__(
        self,
        *,
        node: str,
        dry_run: Collection[str] = (),
        leases: Callable[[], int],
        queue_length: Callable[[], int],
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.webhooks = self._counter("webhooks", "Requests to the webhook.", {"result": WEBHOOK_RESULTS})
        self.alerts = self._counter("alerts", "Alerts received by the webhook.", {"result": RESULTS})
        self.truncated_alerts = self._counter("truncated_alerts", "Alerts that Alertmanager's max_alerts left out.")
        self.actions = Counter(
            "mempressure_actuator_actions",
            "Actions on workers.",
            ("mechanism", "result"),
            registry=self.registry,
        )
        for name in NAMES:
            for result in ("done", "skipped", "failed", "dry_run"):
                self.actions.labels(name, result)
        self.reclaimed = self._counter("reclaimed_bytes", "Memory given back, measured.", {"mechanism": NAMES})
        self.dry_run_bytes = self._counter(
            "dry_run_bytes", "Memory that dry runs were expected to give back.", {"mechanism": NAMES}
        )
        self.cycles = Counter(
            "mempressure_actuator_cycles",
            "Cycles, recorded skips included.",
            ("trigger", "outcome"),
            registry=self.registry,
        )
        # Prometheus sees an increase only in a series that existed before: without these it misses the first.
        for trigger in ("webhook", "autonomous", "reflex"):
            for outcome in ("relieved", "effective", "futile"):
                self.cycles.labels(trigger, outcome)
        self.loop_errors = self._counter("loop_errors", "Turns of the control loop that failed.")
        self.store_errors = self._counter("store_errors", "Writes to the store that failed.")
        self.problems = self._counter("problems", "State files and directories that were ignored as invalid or unsafe.")
        self.web_config_errors = self._counter("web_config_errors", "New web configurations that cannot be used.")
        self.series_dropped = self._counter("series_dropped", "Recycled packages not counted by name.")
        self.action_duration = Histogram(
            "mempressure_actuator_action_duration_seconds",
            "Time that an action took on all its workers.",
            ("mechanism",),
            buckets=_ACTION_BUCKETS,
            registry=self.registry,
        )
        for name in NAMES:
            self.action_duration.labels(name)
        self.reaction_duration = Histogram(
            "mempressure_actuator_reaction_duration_seconds",
            "Time from the receipt of a notification to the end of the first action that gave memory back for it.",
            buckets=_REACTION_BUCKETS,
            registry=self.registry,
        )
        self.custom_actions = Counter(
            "mempressure_actuator_custom_actions",
            "Runs of custom actions.",
            ("action", "result"),
            registry=self.registry,
        )
        self.custom_duration = Histogram(
            "mempressure_actuator_custom_action_duration_seconds",
            "Time that a custom action took.",
            ("action",),
            buckets=_ACTION_BUCKETS,
            registry=self.registry,
        )
        self.oom_kills = self._counter(
            "oom_kills", "Processes killed by the OOM killer.", {"scope": ("host", "app", "other")}
        )
        self.oom_reports = self._counter("oom_reports", "Reports on such kills that were written.")
        self._gauge("leases", "Leases that have not expired.").set_function(leases)
        self._gauge("queue_length", "Stored notifications that the loop has not handled.").set_function(queue_length)
        self.last_heartbeat = self._gauge("last_heartbeat_timestamp_seconds", "Time of the last heartbeat; 0: none.")
        self.last_turn = self._gauge("last_turn_timestamp_seconds", "Time of the control loop's last turn.")
        self.autonomous = self._gauge("autonomous", "1 while the actuator evaluates the thresholds itself.")
        self.dry_run = self._gauge("dry_run", "1 where a mechanism is decided on but not carried out.", ("mechanism",))
        for name in DRY_RUN_CHOICES:
            self.dry_run.labels(name).set(name in dry_run)
        self.brakes = self._counter("brakes", "Times that a brake prevented an action or a change.", {"brake": BRAKES})
        self.stopped_scopes = self._gauge("stopped_scopes", "Scopes paused because their cycles freed too little.")
        self.stalls = self._counter("stalls", "Stalls that the kernel reported.", {"source": STALL_SOURCES})
        self.reflex_triggers = self._gauge("reflex_triggers", "Kernel triggers for stalls that are armed.")
        self.reflex_supported = self._gauge("feature_supported", "1 where the feature works here.", ("feature",))
        Info("mempressure_actuator_build", "The version that runs.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        # The exporter has it too: Prometheus' rules take the node of a scrape target from it.
        Gauge("mempressure_node_info", "Name of the machine.", ("node",), registry=self.registry).labels(node).set(1)
        labels = ("app", "package", "mechanism")
        self._unloads = Counter("mempressure_package_unloads", "Unloads of a package.", labels, registry=self.registry)
        self._package_reclaimed = Counter(
            "mempressure_package_reclaimed_bytes", "Memory given back by unloads.", labels, registry=self.registry
        )
        self._counted_packages: set[tuple[str, str, str]] = set()

    def add_custom(self, name: str) -> None:
        """Create the series of a custom action, at 0."""
        for result in CUSTOM_RESULTS:
            self.custom_actions.labels(name, result)

    def observe_custom(self, name: str, result: str, seconds: float) -> None:
        """Count one run of a custom action."""
        self.custom_actions.labels(name, result).inc()
        self.custom_duration.labels(name).observe(seconds)

    def observe_action(self, action: Action, outcome: Outcome) -> None:
        """Count one action and the memory that it gave back."""
        self.actions.labels(action.mechanism, outcome.result).inc()
        self.action_duration.labels(action.mechanism).observe(outcome.duration_seconds)
        self.reclaimed.labels(action.mechanism).inc(outcome.reclaimed_bytes)
        if outcome.dry_run:
            self.dry_run_bytes.labels(action.mechanism).inc(action.expected_bytes)
        if mechanism(action.mechanism).replaces_worker and outcome.workers:
            self._observe_recycled(action, outcome)

    def observe_node(self, reading: NodeReading) -> None:
        """Create the series, at 0, of every package that only its worker's end unloads: the first increase is seen."""
        replacing = worker_replacing_names()
        for app in reading.apps.values():
            for worker in app.workers:
                for package in worker.packages:
                    if package.mechanism in replacing:
                        self._counts_package(app.name, package.name, package.mechanism)

    def observe_cycle(self, cycle: Cycle) -> None:
        """Count one finished cycle."""
        self.cycles.labels(cycle.trigger, cycle.outcome).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that an Accept header asks for, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # the header has a malformed version, which the library does not check
            encode, content_type = choose_encoder("")
        return encode(self.registry), content_type

    def _observe_recycled(self, action: Action, outcome: Outcome) -> None:
        """Count a recycled worker's packages, which the exporter cannot: the worker's counters ended with it.

        The memory that came back is divided among the packages in proportion to what each held.
        """
        sizes = dict.fromkeys(action.packages, 0.0)
        for target in action.targets:
            for package in target.worker.packages:
                if package.name in sizes:
                    sizes[package.name] += package.memory_bytes
        total = sum(sizes.values())
        for name, size in sizes.items():
            if not self._counts_package(action.app.name, name, action.mechanism):
                self.series_dropped.inc()
                continue
            share = size / total if total else 1 / len(sizes)
            labels = (action.app.name, name, action.mechanism)
            self._unloads.labels(*labels).inc(outcome.workers)
            self._package_reclaimed.labels(*labels).inc(outcome.reclaimed_bytes * share)

    def _counts_package(self, app: str, package: str, mechanism: str) -> bool:
        """Return whether a package has series of its own, after creating them at 0 if the limit allows."""
        if (app, package, mechanism) in self._counted_packages:
            return True
        if len(self._counted_packages) >= MAX_PACKAGE_SERIES:
            return False
        self._counted_packages.add((app, package, mechanism))
        self._unloads.labels(app, package, mechanism)
        self._package_reclaimed.labels(app, package, mechanism)
        return True

    def _counter(self, name: str, meaning: str, labels: dict[str, Iterable[str]] | None = None) -> Counter:
        """Return a new counter with all of its series, at 0."""
        counter = Counter(f"mempressure_actuator_{name}", meaning, tuple(labels or ()), registry=self.registry)
        for values in (labels or {}).values():
            for value in values:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"mempressure_actuator_{name}", meaning, labels, registry=self.registry)
