"""Packages, summed over the workers that hold them."""

from collections.abc import Iterable, Iterator

from mempressure.state import UNKNOWN, WorkerState, least_mild
from mempressure_exporter.bound import Bound
from mempressure_exporter.counters import Counters, PackageTotals
from mempressure_exporter.exposition import Sample
from mempressure_exporter.source import Source


class PackagesCollector:
    """Every package of every app; counts what its workers counted."""

    def __init__(self, source: Source, bound: Bound) -> None:
        self._source = source
        self._bound = bound
        self._counters = Counters(started=source.clock(), max_packages=bound.max_series)

    def collect(self) -> Iterator[Sample]:
        """Return the samples of one scrape; raises UnsafeDirectoryError where no worker can be believed."""
        workers = self._source.workers()
        self._counters.update(workers, now=self._source.clock())
        gauges = _gauges(workers)
        # In the order of first sight: which packages are left out where there are too many does not change by itself.
        names = dict.fromkeys([*self._counters.totals, *gauges])
        nothing = PackageTotals()
        return self._bound.within(
            [*gauges.get(name, ()), *_counts(name, self._counters.totals.get(name, nothing))] for name in names
        )


def _gauges(workers: Iterable[WorkerState]) -> dict[tuple[str, str], list[Sample]]:
    """Sum what the workers hold of each (app, package)."""
    memory: dict[tuple[str, str, str], float] = {}
    loaded: dict[tuple[str, str], int] = {}
    last_used: dict[tuple[str, str], float] = {}
    verdicts: dict[tuple[str, str], str] = {}
    for worker in workers:
        for package in worker.packages:
            name = (worker.app, package.name)
            loaded[name] = loaded.get(name, 0) + (package.loaded > 0)
            if package.memory_bytes >= 0:
                source = (*name, package.source)
                memory[source] = memory.get(source, 0.0) + package.memory_bytes
            if package.last_used >= 0 and package.last_used > last_used.get(name, UNKNOWN):
                last_used[name] = package.last_used
            # Workers that started before and after a check differ for a while: then the most cautious is shown.
            if mechanism := least_mild((package.verdict, verdicts.get(name, ""))):
                verdicts[name] = mechanism
    samples: dict[tuple[str, str], list[Sample]] = {
        name: [("mempressure_package_loaded_workers", name, count)] for name, count in loaded.items()
    }
    for (app, package_name, source_name), size in memory.items():
        samples[app, package_name].append(("mempressure_package_memory_bytes", (app, package_name, source_name), size))
    for name, when in last_used.items():
        samples[name].append(("mempressure_package_last_used_timestamp_seconds", name, when))
    for name, mechanism in verdicts.items():
        samples[name].append(("mempressure_package_verdict", (*name, mechanism), 1))
    return samples


def _counts(name: tuple[str, str], totals: PackageTotals) -> list[Sample]:
    samples: list[Sample] = [
        ("mempressure_package_loads_total", name, totals.loads),
        ("mempressure_package_refaults_total", name, totals.refaults),
        ("mempressure_package_load_seconds_total", name, totals.load_seconds),
    ]
    for mechanism, count in totals.unloads.items():
        labels = (*name, mechanism)
        samples.append(("mempressure_package_unloads_total", labels, count))
        samples.append(("mempressure_package_reclaimed_bytes_total", labels, totals.reclaimed_bytes[mechanism]))
    return samples
