"""Judges whether a rehearsed mechanism works, from what was measured: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mempressure.measure.trend import slope
from mempressure.verdicts.verdict import MAX_TEXT_LENGTH, MechanismResult

FLAT_RATIO = 0.02
"""Growth of the process over all cycles but the first that still counts as flat: 2 % of what it held."""

FLAT_BYTES = 2 << 20
"""And at least this much: pymalloc's arenas are 1 MiB, and one more is kept by chance (sympy: every other cycle)."""

LEAST_BYTES = 64 << 10
"""Less than this given back is noise of the measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What a rehearsal measured of one mechanism; sizes in bytes of private memory."""

    mechanism: str
    cycles: tuple[tuple[int, float], ...] = ()
    """What each cycle gave back, and the seconds that loading again took after it."""
    levels: tuple[int, ...] = ()
    """What the process held after each use, where one process lived through all cycles."""
    equal: bool | None = None
    refused: str = ""
    """Why the mechanism was given up."""


def judge(measured: Measurements) -> MechanismResult:
    """Return whether the measured mechanism works, and why not, with the medians over its cycles."""
    reason = _reason(measured)
    return MechanismResult(
        mechanism=measured.mechanism,
        works=not reason,
        reason=reason[:MAX_TEXT_LENGTH],
        reclaimed_bytes=max(0, round(median(size for size, _ in measured.cycles))) if measured.cycles else 0,
        reload_seconds=round(median(seconds for _, seconds in measured.cycles), 6) if measured.cycles else 0.0,
        cycles=len(measured.cycles),
        equal=measured.equal,
    )


def _reason(measured: Measurements) -> str:
    if measured.refused:
        return measured.refused
    if not measured.cycles:
        return "no cycle was completed"
    if measured.equal is False:
        return "the result after unloading and loading again differs from the first"
    if median(size for size, _ in measured.cycles) < LEAST_BYTES:
        return "it gives nothing back: the package adds no memory of its own"
    grown = _growth(measured.levels)
    if grown > 0:
        return f"memory is not flat: it grew by {grown / (len(measured.levels) - 2) / 2**20:.1f} MiB a cycle"
    return ""


def _growth(levels: Sequence[int]) -> float:
    """Return by how many bytes memory grew over all cycles but the first, 0 where that counts as flat.

    By the robust slope: what one cycle holds by chance is no growth (sympy's levels swing by 1.7 MB, and stay).
    """
    later = levels[1:]
    if len(later) < 2:
        return 0.0
    each = slope(list(enumerate(later)))
    grown = float(later[-1] - later[0]) if each is None else each * (len(later) - 1)
    return grown if grown > max(FLAT_BYTES, FLAT_RATIO * later[0]) else 0.0
