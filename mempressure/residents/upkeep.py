"""The upkeep of a worker's residents: once a second idle ones are let go, and warm ones loaded again after pressure."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from mempressure.decide.admission import ScopeMemory
from mempressure.residents.resident import Resident
from mempressure.residents.unit import Unit
from mempressure.residents.warming import is_to_be_warmed, wants_warming

WARMING_EVERY_SECONDS = 5.0
"""How often memory is measured for a resident that is to be loaded again."""


class Upkeep:
    """Looks after the residents and caches of one process.

    Args:
        units: by name.
        is_kept: (name, declared) -> whether the user wants it kept loaded.
        limit: returns the ratio below which pressure is over.
        scopes: measures the memory of the host and of the app.
        clock: Unix seconds.
    """

    def __init__(
        self,
        units: Mapping[str, Unit],
        *,
        is_kept: Callable[[str, bool], bool],
        limit: Callable[[], float],
        scopes: Callable[[], Iterable[ScopeMemory]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._units = units
        self._is_kept = is_kept
        self._limit = limit
        self._scopes = scopes
        self._clock = clock
        self._next_warming = 0.0
        self._warming: threading.Thread | None = None

    def tick(self) -> None:
        """Note uses, let go what is idle, and begin to load what is to be warm; in the agent's thread."""
        for unit in list(self._units.values()):
            unit.tick()
            # One that is to be warm would come back at once: it goes under pressure only.
            if not unit.warm and unit.is_idle() and not self._is_kept(unit.name, unit.keep_loaded):
                unit.release_idle()
        self._warm()

    def _warm(self) -> None:
        now = self._clock()
        if self._warming is not None and self._warming.is_alive():
            return
        wanted = [
            unit
            for unit in list(self._units.values())
            if isinstance(unit, Resident)
            and unit.warm
            and not unit.loaded
            and wants_warming(unit.hours, now=now, unloaded_at=unit.unloaded_at)
        ]
        if not wanted or 0 <= self._next_warming - now <= WARMING_EVERY_SECONDS:
            return
        self._next_warming = now + WARMING_EVERY_SECONDS
        scopes, limit = list(self._scopes()), self._limit()
        for unit in wanted:
            if is_to_be_warmed(
                unit.hours, now=now, unloaded_at=unit.unloaded_at, size=unit.size_bytes, scopes=scopes, limit=limit
            ):
                # One at a time: what it takes is to show in the measurement for the next.
                self._warming = threading.Thread(target=self._load, args=(unit,), name="mempressure-warm", daemon=True)
                self._warming.start()
                return

    def _load(self, unit: Resident[object]) -> None:
        try:
            unit.load()
        except Exception as error:  # noqa: BLE001 -- there is no caller: the next call tries again, and is told
            unit.unloaded_at = None  # it is not tried again before that
            unit.count_problem("resident %r was not loaded in the background: %s", unit.name, repr(error))
