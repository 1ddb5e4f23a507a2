"""Quarantine of what gave back far less than predicted, packages and workers: pure functions on a record.

An (app, package, mechanism) is quarantined when what was measured is under 20 % of what was predicted. It is free again
after half an hour, or once all of it was loaded again in fresh processes and holds another amount of memory: then the
prediction is another one, and worth another try. Replacing a worker gives back what it holds whatever its packages are:
an (app, "", recycle) is free again once a worker promises more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mempressure.state.package_processes import Held, together
from mempressure.state.records import PackageState, WorkerState

LEAST_SHARE: Final = 0.20
"""Of the prediction; what gave back less is quarantined."""

QUARANTINE_SECONDS: Final = 1800.0
"""How long at most."""

OTHER_NUMBERS: Final = 0.25
"""Memory that differs by more than this share from what was predicted then is another number."""

LEAST_PREDICTION: Final = 1 << 20
"""Bytes; a smaller prediction says nothing: allocators and counters work in larger steps."""

Key = tuple[str, str, str]
"""(app, package, mechanism); the package is empty for the replacement of whole workers."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Why and since when (Unix seconds) one (app, package, mechanism) is left alone."""

    since: float
    expected_bytes: float
    reclaimed_bytes: float
    memory_bytes: float
    """What a holder held on average when it was predicted; workers that share processes are one."""
    loads: frozenset[tuple[object, ...]]
    """The loads that it is about."""


def judged(
    quarantine: Mapping[Key, Quarantined],
    key: Key,
    held: Iterable[Held],
    *,
    expected_bytes: float,
    reclaimed_bytes: float,
    now: float,
) -> dict[Key, Quarantined]:
    """Return the quarantine after an action: with `key` where it gave back too little, without it where it did not.

    Args:
        quarantine: before the action.
        key: what the action was about.
        held: where the package was, as it was before the action; nothing for a whole worker.
        expected_bytes: predicted for what was really done.
        reclaimed_bytes: measured.
        now: Unix seconds.
    """
    held = together(held)
    others = {known: entry for known, entry in quarantine.items() if known != key}
    if (key[1] and not held) or expected_bytes < LEAST_PREDICTION:
        return dict(quarantine)
    if reclaimed_bytes >= LEAST_SHARE * expected_bytes:
        return others
    loads = frozenset(_load(worker, package) for worker, package in held)
    return others | {key: Quarantined(now, expected_bytes, reclaimed_bytes, _memory(held), loads)}


def in_force(
    quarantine: Mapping[Key, Quarantined], key: Key, held: Iterable[Held], *, now: float
) -> Quarantined | None:
    """Return the entry that holds for a loaded package now, None where there is none or it has lapsed."""
    entry = quarantine.get(key)
    # Negative where the clock was set back: better tried once too often than never again.
    if entry is None or not 0 <= now - entry.since < QUARANTINE_SECONDS:
        return None
    held = together(held)
    fresh = not any(_load(worker, package) in entry.loads for worker, package in held)
    other = abs(_memory(held) - entry.memory_bytes) > OTHER_NUMBERS * entry.memory_bytes
    return None if held and fresh and other else entry


def recycling_in_force(
    quarantine: Mapping[Key, Quarantined], app: str, expected_bytes: float, *, now: float
) -> Quarantined | None:
    """Return the entry that holds for replacing a worker of an app that promises so much; None where there is none."""
    entry = quarantine.get((app, "", "recycle"))
    if entry is None or not 0 <= now - entry.since < QUARANTINE_SECONDS:
        return None
    return None if expected_bytes > (1 + OTHER_NUMBERS) * entry.expected_bytes else entry


def reason(entry: Quarantined, mechanism: str, *, now: float) -> str:
    """Return why a package is left alone, for people to read."""
    left = QUARANTINE_SECONDS - (now - entry.since)
    return (
        f"is quarantined for another {left:.0f} s: {mechanism} gave back {_mebibytes(entry.reclaimed_bytes)} "
        f"of the {_mebibytes(entry.expected_bytes)} expected"
    )


def current(quarantine: Mapping[Key, Quarantined], *, now: float) -> dict[Key, Quarantined]:
    """Return the quarantine without what its time has freed."""
    return {key: entry for key, entry in quarantine.items() if 0 <= now - entry.since < QUARANTINE_SECONDS}


def _load(worker: WorkerState, package: PackageState) -> tuple[object, ...]:
    if package.processes_id:  # whichever worker tells of them
        return (package.processes_id, package.loads)
    return (worker.pid_namespace, worker.pid, worker.start_ticks, package.loads)


def _memory(held: Iterable[Held]) -> float:
    sizes = [package.memory_bytes for _, package in held]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"
