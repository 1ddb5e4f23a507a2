"""Times of requests: the same application plain and managed at once, put to use in turns.

Neither has a budget, so nothing is replaced: what management itself costs is left. In turns, what else happens on the
machine meets both.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.service import LOGS
from benchmarks.services import ways
from benchmarks.services.applications import Application
from benchmarks.services.load import Answers, merged
from benchmarks.services.rounds import serve, temporary
from benchmarks.statistics import quantile
from stack.processes import Processes

TURNS = 6
COMPARED = ("plain", "managed")


class Times(NamedTuple):
    """The answers of one application, plain and managed, each over all turns."""

    application: str
    plain: Answers
    managed: Answers

    @property
    def ratio(self) -> float:
        """Return by how many times the 95th percentile is longer under management."""
        return p95(self.managed) / p95(self.plain)


def p95(answers: Answers) -> float:
    """Return the 95th percentile of the requests, in seconds."""
    return quantile(sorted(answers.seconds), 0.95)


def row(times: Times) -> list[str]:
    """Return a row of the table."""
    own = [f"{1000 * p95(answers):.0f}" for answers in (times.plain, times.managed)]
    return [times.application, f"{len(times.plain.seconds)}", *own, f"{times.ratio:.2f}"]


def measure(applications: Sequence[Application], *, turns: int = TURNS, say: Callable[[str], None]) -> list[Times]:
    """Measure each application, after a turn of each that does not count, in which it loads what it loads late."""
    return [_measured(application, turns, say) for application in applications]


def _measured(application: Application, turns: int, say: Callable[[str], None]) -> Times:
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes(logs=LOGS / "services", environ={}))
        services = {}
        for way in COMPARED:
            directory = stack.enter_context(temporary())
            settings = ways.environment(way, application.name, directory, budget=0)
            services[way] = stack.enter_context(serve(application, way, processes, directory, **settings))
        for way in COMPARED:
            services[way].load(passes=application.passes)
        found: dict[str, list[Answers]] = {way: [] for way in COMPARED}
        passes = max(1, application.passes // 2)
        for turn in range(turns):
            for way in COMPARED if turn % 2 == 0 else reversed(COMPARED):
                found[way].append(services[way].load(passes=passes))
    times = Times(application.name, merged(found["plain"]), merged(found["managed"]))
    say(
        f"services: {times.application}: p95 {1000 * p95(times.plain):.0f} ms plain, "
        f"{1000 * p95(times.managed):.0f} ms managed, {times.ratio:.2f}x"
    )
    return times
