"""Promised figures beside the measured ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One figure that was promised, and what was measured; both in `unit`."""

    what: str
    measured: float
    bound: float
    unit: str = ""
    at_least: bool = False
    """The bound is the least allowed; else the most, itself included."""

    @property
    def met(self) -> bool:
        """Return whether the promise holds; never for a figure that is no number."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def as_dicts(targets: Iterable[Target]) -> list[dict[str, Any]]:
    """Return what the results keep of these: texts for people, and whether each was met."""
    return [
        {
            "what": target.what,
            "target": f"{'at least' if target.at_least else 'at most'} {_with_unit(target.bound, target.unit)}",
            "measured": _with_unit(target.measured, target.unit),
            "met": target.met,
        }
        for target in targets
    ]


def missed(results: dict[str, Any]) -> list[str]:
    """Return a line for every promised figure that was not reached, of all benchmarks."""
    return [
        f"{name}: {target['what']}: {target['measured']}, promised {target['target']}"
        for name, result in results.items()
        for target in result["figures"].get("targets", ())
        if not target["met"]
    ]


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()
