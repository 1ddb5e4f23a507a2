"""Release: has a worker let go a resident or a cache that nothing holds."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mempressure.act.mechanisms.base import Answer, Mechanism, Worker

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.decide.eligibility import Situation
    from mempressure.decide.plan import Action, Skip
    from mempressure.state.node import AppReading


class Release(Mechanism):
    """The letting go of large objects that the application loads again when it needs them."""

    name = "release"
    effect = "lets a resident or a cache go that nothing holds"
    is_rehearsed = False  # a resident is the application's own: there is no package to try it on
    ordered_for_package = True

    def plan(self, apps: Sequence["AppReading"], situation: "Situation") -> tuple[Iterable["Action"], Iterable["Skip"]]:
        """Return an action for each resident, in the workers where it is idle."""
        from mempressure.decide.plan import package_unloadings

        return package_unloadings(self.name, apps, situation)

    def carry_out(self, worker: Worker, order: "Order") -> tuple[Answer, Callable[[], None] | None]:
        """Let the resident go, unless it is held or was used a short time ago."""
        resident = worker.residents.get(order.package)
        if resident is None:
            raise worker.unknown_package_error(order.package)
        reclaimed, reason = resident.release(idle_for=(order.idle_for or {}).get(order.package))
        return {"reclaimed_bytes": reclaimed, "skipped": reason}, None


MECHANISM = Release()
