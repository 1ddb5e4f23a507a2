"""Callbacks: has a worker call what the application declared with `@loader.on_pressure`."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mempressure.act.mechanisms.base import Answer, Mechanism, Worker

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.decide.eligibility import Situation
    from mempressure.decide.plan import Action, Skip
    from mempressure.state.node import AppReading

MOST_NOTES = 20
"""Callbacks whose lines an answer has; of the rest it has the number."""


class Callbacks(Mechanism):
    """The application's own ways to give memory back."""

    name = "callbacks"
    effect = "calls the application's `on_pressure` callbacks"
    unloads_packages = False
    ignores_pauses = True
    acts_at_once = True

    def plan(self, apps: Sequence["AppReading"], situation: "Situation") -> tuple[Iterable["Action"], Iterable["Skip"]]:
        """Return an action for each app that has workers whose callbacks were not called at this alert level lately."""
        from mempressure.decide.plan import callbacks

        return callbacks(apps, situation)

    def carry_out(self, worker: Worker, order: "Order") -> tuple[Answer, Callable[[], None] | None]:
        """Call the callbacks of the order's level and below, and answer what each brought."""
        from mempressure.act import self_check
        from mempressure.act.trim import release_free_pages

        declared = worker.callbacks
        skipped = "no on_pressure callback is declared" if declared is None else worker.unsupported.get("on_pressure")
        if skipped or declared is None:
            return {"reclaimed_bytes": 0, "skipped": skipped}, None
        # Returning free pages is part of a trim: where that is refused, it would unshare pages or does not work.
        refused = worker.trim_refused() or self_check.check_trim(worker.system())
        called = declared.call(order.level) if refused else declared.call(order.level, release=release_free_pages)
        notes = [each.line for each in called[:MOST_NOTES]]
        if len(called) > MOST_NOTES:
            notes.append(f"and {len(called) - MOST_NOTES} more callbacks were called")
        return {"reclaimed_bytes": sum(each.reclaimed for each in called), "skipped": None, "notes": notes}, None


MECHANISM = Callbacks()
