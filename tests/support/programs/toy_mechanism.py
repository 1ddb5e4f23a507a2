"""Toy: a mechanism in one module, for the test that adds one to a copy of the library."""

from mempressure.act.mechanisms.base import Mechanism


class Toy(Mechanism):
    """A mechanism that always gives back 4 KiB."""

    name = "toy"
    effect = "puts a package into the toy box"
    advice = "Tidy up {package}"
    ordered_for_package = True

    def plan(self, apps, situation):
        """Return an action for each package that is declared to be unloaded so."""
        from mempressure.decide.plan import package_unloadings

        return package_unloadings(self.name, apps, situation)

    def carry_out(self, worker, order):
        """Pretend."""
        return {"reclaimed_bytes": 4096, "skipped": None, "package": order.package, "worker": bool(worker)}, None

    def rehearsal_steps(self, cycles):
        """Return one for each cycle."""
        return cycles

    def play(self, stage):
        """Load the package, and pretend to give back 1 MiB each time."""
        seconds = stage.load()
        for _ in range(stage.cycles):
            stage.step("tidied")
        return {"cycles": [[1 << 20, seconds]] * stage.cycles, "levels": [], "equal": None}


MECHANISM = Toy()
