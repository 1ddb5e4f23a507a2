"""Whether there is room for a load: pure functions from what was measured to what should be done first.

Room is what is left below the emergency threshold of every scope (the host, and the app where it has a limit or a
budget), after what loads that are under way have reserved. All sizes are bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class ScopeMemory:
    """The memory of the host or of one app."""

    name: str
    """For people to read: "the host", "app 'shop'"."""
    total: int
    used: int


@dataclass(frozen=True, slots=True)
class Idle:
    """A package that is not in use and what ending its host would give back."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What to do about a load: go ahead, unload these and look again, or refuse."""

    admitted: bool
    unload: tuple[str, ...]
    tightest: ScopeMemory | None
    """The scope with the least room; None where nothing was measured."""
    free: int
    """What may be loaded in it; negative where it is in emergency already."""


def decide(
    cost: int, *, scopes: Iterable[ScopeMemory], reserved: int, emergency: float, idle: Sequence[Idle]
) -> Admission:
    """Return whether a load of `cost` bytes leaves every scope below `emergency`, and what would make room for it.

    Args:
        cost: what the load is known to take.
        scopes: as measured now.
        reserved: what loads under way will still take.
        emergency: the threshold, a ratio.
        idle: what may be unloaded, in the order to unload it. Nothing is named unless it makes enough room: to unload
            and to refuse as well would cost two callers.
    """
    tightest = min(scopes, key=lambda scope: free_bytes(scope, reserved=reserved, emergency=emergency), default=None)
    if tightest is None:
        return Admission(admitted=True, unload=(), tightest=None, free=0)
    free = free_bytes(tightest, reserved=reserved, emergency=emergency)
    admitted = cost <= free
    chosen = () if admitted else _enough(cost - free, idle)
    return Admission(admitted=admitted, unload=chosen, tightest=tightest, free=free)


def free_bytes(scope: ScopeMemory, *, reserved: int, emergency: float) -> int:
    """Return the most that may be added to a scope without entering `emergency`, which is entered at its value."""
    return ceil(emergency * scope.total) - 1 - scope.used - reserved


def _enough(shortage: int, idle: Sequence[Idle]) -> tuple[str, ...]:
    chosen: list[Idle] = []
    freed = 0
    for package in idle:
        if freed >= shortage:
            break
        chosen.append(package)
        freed += package.size
    if freed < shortage:
        return ()
    # The last were needed for their size: of those before, spare the most valuable that were not.
    for package in reversed(chosen[:-1]):
        if freed - package.size >= shortage:
            chosen.remove(package)
            freed -= package.size
    return tuple(package.name for package in chosen)
