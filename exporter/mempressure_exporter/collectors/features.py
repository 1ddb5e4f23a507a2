"""Collector of features: which of them work on this machine and in the workers."""

from collections.abc import Iterator

from mempressure.act import self_check
from mempressure.errors import MempressureError
from mempressure_exporter import host_features
from mempressure_exporter.exposition import Sample
from mempressure_exporter.problems import Problems
from mempressure_exporter.source import Source
from mempressure_exporter.wakeups import Wakeups


class FeaturesCollector:
    """Checks once what does not change while the exporter runs, and logs each missing feature once."""

    def __init__(self, source: Source, problems: Problems, wakeups: Wakeups | None) -> None:
        self._source = source
        self._problems = problems
        self._wakeups = wakeups
        self._machine = host_features.Machine(proc=source.proc, sysfs=source.sysfs, runtime=source.runtime)
        self._missing: dict[str, str] | None = None

    def collect(self) -> Iterator[Sample]:
        """Yield the samples of one scrape."""
        if self._missing is None:  # once: an open trigger costs a kernel thread
            already = ("pressure_triggers",) if self._wakeups is not None else ()
            self._missing = host_features.unsupported(self._machine, leave_out=already)
        missing = self._missing | {"runtime_directory": host_features.runtime_directory(self._machine)}
        if self._wakeups is not None:
            missing["pressure_triggers"] = self._wakeups.refused
        for name in host_features.CHECKS:
            self._problems.log_missing(name, missing.get(name, ""))
            yield "mempressure_feature_supported", (name,), not missing.get(name)
        try:
            workers = self._source.workers()
        except MempressureError:  # the collectors of apps and packages fail with it
            return
        unsupported = {name for worker in workers for name in worker.unsupported}
        for name in self_check.CHECKS if workers else ():
            yield "mempressure_feature_supported", (name,), name not in unsupported
