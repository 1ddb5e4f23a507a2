import math

import pytest

from benchmarks.hog import Outcome, _meminfo
from mempressure.measure.memory import host_memory

MIB = 1 << 20


def outcome(*usages, load_ended=0.0):
    made = Outcome(load_ended=load_ended)
    made.usages = [(float(second), usage) for second, usage in enumerate(usages)]
    return made


@pytest.mark.parametrize(
    ("usages", "reliefs"),
    [
        ((0.5, 0.79, 0.76), []),
        ((0.5, 0.80, 0.9, 0.74), [2.0]),
        ((0.85, 0.76, 0.79, 0.7, 0.8, 0.7), [3.0, 1.0]),
        ((0.5, 0.95, 0.75), [math.inf]),
    ],
)
def test_relief_is_from_entering_to_leaving(usages, reliefs):
    assert outcome(*usages).relief_seconds == reliefs


@pytest.mark.parametrize(
    ("usages", "share"),
    [
        ((0.9, 0.9, 0.7, 0.7), 1.0),  # relief came after the load
        ((0.9, 0.7, 0.9, 0.7), pytest.approx(2 / 3)),
        ((0.9, 0.9, 0.9, 0.9), 0.0),
        ((0.9, 0.7, 0.7, 0.8), pytest.approx(2 / 3)),
    ],
)
def test_the_minute_after_counts_from_relief_on(usages, share):
    assert outcome(*usages).clear_share == share


def test_every_text_of_the_private_meminfo_has_one_length_and_reads_as_one(tmp_path):
    texts = {_meminfo(600 * MIB, used) for used in (0, 1, 599 * MIB, 700 * MIB)}
    assert len({len(text) for text in texts}) == 1
    (tmp_path / "meminfo").write_text(_meminfo(600 * MIB, 540 * MIB))
    reading = host_memory(proc=str(tmp_path))
    assert (reading.total, reading.usage) == (600 * MIB, 0.9)
