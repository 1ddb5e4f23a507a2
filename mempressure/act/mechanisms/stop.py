"""Stop: ends the processes of an isolated package, between its calls."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mempressure.act.mechanisms.base import Answer, Mechanism, Stage, Worker, refusal

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.decide.eligibility import Situation
    from mempressure.decide.plan import Action, Skip
    from mempressure.state.node import AppReading


class Stop(Mechanism):
    """The end of a package's own processes, which gives all of their memory back."""

    name = "stop"
    effect = "ends the processes of an isolated package, between calls"
    advice = 'Isolate the functions that use it: @loader.isolated("{package}")'
    ordered_for_package = True
    acts_below_unloading = True

    def plan(self, apps: Sequence["AppReading"], situation: "Situation") -> tuple[Iterable["Action"], Iterable["Skip"]]:
        """Return an action for each isolated package, in the workers where it is idle."""
        from mempressure.decide.plan import package_unloadings

        return package_unloadings(self.name, apps, situation)

    def carry_out(self, worker: Worker, order: "Order") -> tuple[Answer, Callable[[], None] | None]:
        """End the package's processes, unless they are in use or were a short time ago."""
        package = worker.isolated.get(order.package)
        if package is None:
            raise worker.unknown_package_error(order.package)
        reclaimed, reason = package.unload(idle_for=(order.idle_for or {}).get(order.package))
        return {"reclaimed_bytes": reclaimed, "skipped": reason}, None

    def rehearsal_steps(self, cycles: int) -> int:
        """Return the steps: each cycle uses the package and ends its process, and it is used once more."""
        return 2 * cycles + 2

    def play(self, stage: Stage) -> dict[str, Any]:
        """Be a worker whose package lives in a process of its own, which is ended again and again."""
        from pathlib import Path
        from tempfile import TemporaryDirectory

        from mempressure.errors import MempressureError
        from mempressure.isolation.package import IsolatedPackage

        with TemporaryDirectory(prefix="mempressure-") as runtime:  # the user's own is for applications
            package = IsolatedPackage(stage.package, runtime=Path(runtime))
            try:
                return _stopped_again_and_again(package, stage)
            except MempressureError as error:
                return refusal(str(error))
            finally:
                package.close()


def _stopped_again_and_again(package: Any, stage: Stage) -> dict[str, Any]:
    # Without an exercise any call will do: the package's process imports the package before it.
    called = stage.exercise or ("builtins", "callable", (None,))
    first, last, cycles, levels = b"", b"", [], []
    incomparable = ""
    root = stage.package.partition(".")[0]
    worker_has_it = root in sys.modules  # json, say, which this process itself needs
    for cycle in range(stage.cycles + 1):
        before = package.load_seconds
        result = package.call(*called)
        seconds = package.load_seconds - before
        if root in sys.modules and not worker_has_it:
            kind = f"{type(result).__module__}.{type(result).__qualname__}"
            return refusal(f"its result ({kind}) makes the worker load {stage.package} too; return plain data instead")
        pickled = stage.pickled(result) if stage.exercise else b""
        if isinstance(pickled, str):
            incomparable = pickled
        else:
            last = pickled
        first = first or last
        del result
        stage.step("used")
        levels.append(stage.settled_bytes())
        if cycle < stage.cycles:
            pid = next(iter(package.process_pids), None)
            reclaimed, refused = package.unload()
            if refused is not None or _lives(pid):
                return refusal(refused or f"its process {pid} lives on")
            cycles.append([reclaimed, seconds])
            stage.step("ended")
        if cycle:
            cycles[cycle - 1][1] = seconds  # what counts is loading again
    equal = stage.equal(first, last) if stage.exercise and not incomparable else incomparable
    compared = {"incomparable": equal} if isinstance(equal, str) else {"equal": equal}
    return {"cycles": cycles, "levels": levels, **compared}


def _lives(pid: int | None) -> bool:
    from mempressure.measure.process import private_bytes

    try:
        return pid is not None and bool(private_bytes(pid))
    except ProcessLookupError:
        return False


MECHANISM = Stop()
