"""Counters of packages that outlive the workers they come from.

A worker counts from its own start and takes its numbers with it when it ends. Here each total starts at 0 with the
exporter and grows by every increase that is seen in a worker. What a worker did before the exporter started is no
increase; what one did that started after it is, from 0 on.
"""

from dataclasses import dataclass, field

IN_WORKER_MECHANISMS = ("stop", "evict")
"""The mechanisms that a worker lives to count; `recycle` ends it, so the actuator counts that."""

Counts = tuple[float, ...]
"""A worker's loads, refaults, load seconds, unloads and reclaimed bytes of one package."""

NOTHING: Counts = (0.0, 0.0, 0.0, 0.0, 0.0)

Values = tuple[tuple[str, float], ...]
"""What a family prints of a package: the value by the label after the package's name, empty where there is none."""


@dataclass(slots=True)
class PackageTotals:
    """What was counted of one package of one app since the exporter started."""

    loads: float = 0.0
    refaults: float = 0.0
    load_seconds: float = 0.0
    unloads: dict[str, float] = field(default_factory=dict)
    """By mechanism, of `IN_WORKER_MECHANISMS` only; from 0 on, so that the first increase shows."""
    reclaimed_bytes: dict[str, float] = field(default_factory=dict)
    values: tuple[Values, ...] = ((("", 0.0),), (("", 0.0),), (("", 0.0),), (), ())
    """All of the above, in their order."""

    def add(self, mechanism: str, before: Counts, now: Counts) -> None:
        """Add what a worker's counts grew by; one that fell was set back to 0 on the way, as Prometheus reads it."""
        if mechanism in IN_WORKER_MECHANISMS and mechanism not in self.unloads:
            self.unloads[mechanism] = self.reclaimed_bytes[mechanism] = 0.0
        elif now == before:
            return
        grown = [new - old if new >= old else new for old, new in zip(before, now, strict=True)]
        self.loads += grown[0]
        self.refaults += grown[1]
        self.load_seconds += grown[2]
        if mechanism in IN_WORKER_MECHANISMS:
            self.unloads[mechanism] += grown[3]
            self.reclaimed_bytes[mechanism] += grown[4]
        self.values = (
            (("", self.loads),),
            (("", self.refaults),),
            (("", self.load_seconds),),
            tuple(self.unloads.items()),
            tuple(self.reclaimed_bytes.items()),
        )
