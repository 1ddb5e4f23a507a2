"""Samples of a pressure level: one series for each level, 1 for the current one."""

from collections.abc import Iterator

from mempressure.config.thresholds import PRESSURE_LEVELS, pressure_level
from mempressure.measure.memory_reading import MemoryReading
from mempressure_exporter.exposition import Sample


def level_samples(name: str, labels: tuple[str, ...], memory: MemoryReading) -> Iterator[Sample]:
    """Yield the samples of family `name` for the level of `memory`; the level is the last label."""
    current = pressure_level(memory.usage)
    for level in PRESSURE_LEVELS:
        yield name, (*labels, level), level == current
