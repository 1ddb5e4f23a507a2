"""Trim: has a worker give back what is garbage already."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mempressure.act.mechanisms.base import Answer, Mechanism, Worker

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.decide.eligibility import Situation
    from mempressure.decide.plan import Action, Skip
    from mempressure.state.node import AppReading

MOST_UNSHARED_BYTES = 1 << 20
"""A trim by which private memory has grown by more than this, by unsharing pages, is not done again."""


class Trim(Mechanism):
    """A garbage collection, and the C library's free pages."""

    name = "trim"
    effect = "collects garbage, returns free pages to the kernel"
    unloads_packages = False

    def plan(self, apps: Sequence["AppReading"], situation: "Situation") -> tuple[Iterable["Action"], Iterable["Skip"]]:
        """Return an action for each worker that was not trimmed a short time ago."""
        from mempressure.decide.plan import trims

        return trims(apps, situation), ()

    def carry_out(self, worker: Worker, _order: "Order") -> tuple[Answer, Callable[[], None] | None]:
        """Trim the worker, unless that would cost more than it gives."""
        from mempressure.act import self_check
        from mempressure.act.trim import trim

        # Looked at once more: the application may have frozen its objects, or forked, since it started.
        refused = worker.trim_refused() or self_check.check_trim(worker.system())
        if refused:
            return {"reclaimed_bytes": 0, "skipped": refused}, None
        trimmed = trim()
        if trimmed.unshared > MOST_UNSHARED_BYTES:
            worker.trim_stopped = f"trimming unshared {trimmed.unshared} bytes of its pages"
        return {"reclaimed_bytes": max(0, trimmed.freed), "skipped": None}, None


MECHANISM = Trim()
