"""Watching a run from outside: the sample's usage as its workers publish it, and the actuator's cycles."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mempressure.state.node import AppReading
from mempressure.state.node_reader import read_node
from stack.system import System

HISTORY_SECONDS = 0.25
"""Between two looks at the actuator's history."""


class DeadlineError(Exception):
    """What was waited for did not happen in time."""


@dataclass(slots=True)
class Observer:
    """Looks at one system many times a second.

    Attributes:
        app_name: the sample's.
        cycles: of the actuator, oldest first, each told once.
        peak: the highest usage seen.
    """

    system: System
    app_name: str = "sample"
    on_usage: Callable[[float], None] = lambda _: None
    on_cycle: Callable[[dict[str, Any]], None] = lambda _: None
    cycles: list[dict[str, Any]] = field(default_factory=list)
    peak: float = 0.0
    _next_history: float = 0.0

    def app(self) -> AppReading | None:
        """Return the sample as its workers published it last."""
        return read_node(self.system.runtime_directory, on_problem=lambda _: None).apps.get(self.app_name)

    def usage(self) -> float:
        """Return the sample's usage of its budget; 0 before its workers are there."""
        app = self.app()
        return app.memory.usage if app is not None and app.memory is not None else 0.0

    def loaded(self) -> set[tuple[int, str]]:
        """Return which packages are loaded in which worker (pid)."""
        app = self.app()
        workers = app.workers if app is not None else ()
        return {(worker.pid, package.name) for worker in workers for package in worker.packages if package.loaded}

    def look(self) -> float:
        """Look once, tell what is new, and return the usage."""
        usage = self.usage()
        self.peak = max(self.peak, usage)
        self.on_usage(usage)
        # Asking the actuator can take longer than a look at the workers, above all while it acts.
        if time.monotonic() < self._next_history:
            return usage
        self._next_history = time.monotonic() + HISTORY_SECONDS
        known = {cycle["id"] for cycle in self.cycles}
        history = self.system.get("actuator", "/api/packages/memory/history")["data"]["cycles"]
        for cycle in reversed(history):
            if cycle["id"] not in known:
                self.cycles.append(cycle)
                self.on_cycle(cycle)
        return usage

    def wait(self, condition: Callable[[float], bool], *, what: str, seconds: float) -> float:
        """Look until `condition` holds for the usage; return when that was, in Unix seconds.

        Raises:
            DeadlineError: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # When the look began: the usage is read first, and what follows may take its time.
            moment = time.time()
            if condition(self.look()):
                return moment
            time.sleep(0.02)
        loaded = ", ".join(f"{name} in {pid}" for pid, name in sorted(self.loaded())) or "nothing"
        raise DeadlineError(f"{what}: not within {seconds:g} s; usage is {self.usage():.1%}, loaded is {loaded}")


def unloads(cycles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the cycles unloaded, a row each: app, package, mechanism, reclaimed_bytes."""
    return [
        {
            "app": action["app"],
            "package": "+".join(action["packages"]),
            "mechanism": action["mechanism"],
            "reclaimed_bytes": action["reclaimed_bytes"],
        }
        for cycle in cycles
        for action in cycle["actions"]
        if action["result"] == "done" and action["packages"]
    ]
