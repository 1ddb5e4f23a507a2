"""Admission control: reserves memory before a package is loaded, unloads idle packages for it, or refuses the load."""

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from mempressure.decide.admission import Admission, Idle, decide
from mempressure.decide.ranking import Ageing, value_of
from mempressure.errors import MemoryBudgetExceeded
from mempressure.isolation.package import IsolatedPackage
from mempressure.measure.memory_reading import SHOW_SECONDS
from mempressure.packages.reservation import Reservation
from mempressure.worker.isolated_states import isolated_states
from mempressure.worker.memory_view import MemoryView

if TYPE_CHECKING:
    from mempressure.residents.unit import Unit


class AdmissionControl:
    """Admits the loads of one process, one after the other: measures, decides and reserves for each.

    Args:
        measure: measures memory; takes the isolated packages.
        emergency: returns the threshold as it is now, a ratio.
        isolated: the packages of this process that live in processes of their own.
        residents: the residents and caches of this process.
        clock: monotonic seconds.
        sleep: waits for memory that was given back to show.
    """

    def __init__(
        self,
        *,
        measure: Callable[[Mapping[str, IsolatedPackage]], MemoryView],
        emergency: Callable[[], float],
        isolated: Mapping[str, IsolatedPackage],
        residents: Mapping[str, "Unit"] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._measure = measure
        self._emergency = emergency
        self._isolated = isolated
        self._residents = residents
        self._clock = clock
        self._sleep = sleep
        self._reservations: set[Reservation] = set()
        # Entered again by a signal handler or finalizer that loads something in the midst of a decision.
        self._lock = threading.RLock()

    def reserve_for_process(self, package: str, cost: int) -> Reservation:
        """Reserve what a package process takes: `cost` bytes, or what the app's other workers measured.

        Raises:
            MemoryBudgetExceeded: it is known and does not fit, whatever idle packages give back.
        """
        return self._reserve(package, cost, isolated=True)

    def reserve_for_another(self, package: str, cost: int, *, below: float) -> Reservation:
        """Reserve what one package process more takes, which calls can do without: nothing is unloaded for it.

        Args:
            package: the package.
            cost: bytes, 0 where it is not known here.
            below: a threshold that it must not enter, a ratio.

        Raises:
            MemoryBudgetExceeded: its cost is known and does not fit.
        """
        with self._lock:
            under_way = list(self._reservations)
            view = self._measure(self._isolated)
            cost = cost or view.costs.get((package, True), 0)
            reserved = self._outstanding(under_way, view)
            admission = decide(cost, scopes=view.scopes, reserved=reserved, emergency=below, idle=[])
            if admission.admitted or not cost:
                return self._reserved(cost)
            raise MemoryBudgetExceeded(_refusal(package, cost, admission, [], below))

    def reserve_for_import(self, package: str, cost: int = 0) -> Reservation:
        """Reserve what importing a package into this process takes; as `reserve_for_process`."""
        return self._reserve(package, cost, isolated=False)

    def _reserve(self, package: str, cost: int, *, isolated: bool) -> Reservation:
        with self._lock:
            tried = {package} if isolated else set()
            deadline = None
            while True:
                # Before the measurement: what is released after it was taken may not show in it.
                under_way = list(self._reservations)
                view = self._measure(self._isolated)
                cost = cost or view.costs.get((package, isolated), 0)
                if not cost:
                    return self._reserved(0)
                emergency = self._emergency()
                idle = self._idle(view, tried)
                admission = decide(
                    cost,
                    scopes=view.scopes,
                    reserved=self._outstanding(under_way, view),
                    emergency=emergency,
                    idle=idle,
                )
                if admission.admitted:
                    return self._reserved(cost)
                if admission.unload:
                    tried.update(admission.unload)
                    for name in admission.unload:
                        self._give_back(name)  # unless a call came meanwhile
                    deadline = self._clock() + SHOW_SECONDS
                elif deadline is not None and self._clock() < deadline:
                    self._sleep(0.05)
                else:
                    raise MemoryBudgetExceeded(_refusal(package, cost, admission, idle, emergency))

    def _give_back(self, name: str) -> None:
        if name in self._residents:
            self._residents[name].release()
        else:
            self._isolated[name].unload()

    def _reserved(self, cost: int) -> Reservation:
        reservation = Reservation(cost, on_release=self._reservations.discard)
        if cost:
            self._reservations.add(reservation)
        return reservation

    def _outstanding(self, reservations: list[Reservation], view: MemoryView) -> int:
        held: dict[int | None, int] = {
            pid: memory.private for processes in view.processes.values() for pid, memory in processes.items()
        }
        return sum(max(0, reservation.cost - held.get(reservation.pid, 0)) for reservation in reservations)

    def _idle(self, view: MemoryView, tried: set[str]) -> list[Idle]:
        """Return the packages and residents that no call of any worker is using, in the order to unload them."""
        states = [
            state
            for state in isolated_states(self._isolated, view.processes)
            if state.loaded
            and not state.active_calls
            and state.processes_id not in view.used_by_others
            and state.name not in tried
        ]
        units = [unit for unit in list(self._residents.values()) if unit.name not in tried]
        states += [unit.state() for unit in units if unit.reason_to_keep() is None]
        states.sort(
            key=lambda state: (
                state.keep_loaded,
                state.priority,
                value_of([(view.worker, state)], Ageing()),
                state.last_used,
            )
        )
        return [Idle(state.name, int(state.memory_bytes)) for state in states]


def _refusal(package: str, cost: int, admission: Admission, idle: list[Idle], emergency: float) -> str:
    scope = admission.tightest
    name, total = (scope.name, scope.total) if scope is not None else ("the host", 0)
    return (
        f"no room to load package {package!r}: it took {_mebibytes(cost)} when it was last measured, "
        f"{_mebibytes(max(0, admission.free))} are free before {name} enters emergency "
        f"({emergency:g} of {_mebibytes(total)}), and idle packages of this process hold "
        f"{_mebibytes(sum(candidate.size for candidate in idle))}; try again once other work is done, "
        f"raise MEMPRESSURE_BUDGET or the memory limit, or set MEMPRESSURE_ADMISSION=off to load regardless"
    )


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
