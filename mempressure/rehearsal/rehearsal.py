"""The rehearsal of one package: throw-away processes one after the other, and the verdict in the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mempressure.act.mechanisms import rehearsed_mechanisms
from mempressure.act.mechanisms.base import Mechanism
from mempressure.rehearsal.judgement import Measurements, judge
from mempressure.rehearsal.stage import SURVEY
from mempressure.rehearsal.trial import RehearsalError, play
from mempressure.verdicts import environment
from mempressure.verdicts.verdict import ModuleCost, Verdict, VerdictKey

CYCLES = 5
STEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """The outcome of checking one package: its verdict, or why it could not be rehearsed."""

    package: str
    verdict: Verdict | None = None
    cached: bool = False
    status: str = "verdict"
    """Or the kind of a `RehearsalError`."""
    message: str = ""


class Rehearsal:
    """The rehearsal of one package: load, use, unload, load again, use again, by every mechanism.

    Args:
        package: its import name.
        exercise: what stands for using it: "module:function", called without arguments; "" rehearses importing only.
        cycles: how often it is unloaded by each mechanism.
        step_seconds: how long an import or a call of the exercise may take.
        on_progress: called after each step with the share that is done, 0 to 1, and what comes now.
    """

    def __init__(
        self,
        package: str,
        *,
        exercise: str = "",
        cycles: int = CYCLES,
        step_seconds: float = STEP_SECONDS,
        on_progress: Callable[[float, str], None] | None = None,
    ) -> None:
        self._package = package
        self._exercise = exercise
        self.cycles = cycles
        self._step_seconds = step_seconds
        self._on_progress = on_progress or (lambda _share, _doing: None)
        self._mechanisms = rehearsed_mechanisms()
        # The survey reports that the package was imported, used, and that it is done.
        self._shares = {SURVEY: 3 if exercise else 2}
        self._shares |= {each.name: each.rehearsal_steps(cycles) for each in self._mechanisms}
        self._done = 0

    def run(self) -> Verdict:
        """Rehearse, and return the verdict.

        Raises:
            RehearsalError: the package or its exercise cannot be rehearsed; the message says why.
            OSError: no process, pipe or temporary file can be had.
        """
        survey = self.play(SURVEY)
        found = {each.name: self._found(each) for each in self._mechanisms}
        reasons = (each.get("incomparable", "") for each in (survey, *found.values()))
        sizes = next((each for each in found.values() if "baseline" in each), {"baseline": 0, "loaded": 0})
        self._on_progress(1.0, "done")
        return Verdict(
            key=VerdictKey(
                package=self._package,
                exercise=self._exercise,
                distributions=survey["distributions"],
                python=environment.python_version(),
                allocator=environment.allocator(),
                mempressure=environment.mempressure_version(),
            ),
            when=time.time(),
            results=tuple(judge(_measurements(name, each)) for name, each in found.items()),
            baseline_bytes=sizes["baseline"],
            loaded_bytes=sizes["loaded"],
            incomparable=next(filter(None, reasons), ""),
            modules=tuple(
                ModuleCost(name=name, self_bytes=own, cumulative_bytes=total, self_seconds=seconds)
                for name, own, total, seconds in survey["modules"]
            ),
        )

    def _found(self, mechanism: Mechanism) -> dict[str, Any]:
        """Rehearse one mechanism; what the survey got through and this does not is the mechanism's doing."""
        try:
            return mechanism.rehearse(self)
        except RehearsalError as error:
            return {"refused": str(error)}
        finally:  # it may have been given up early
            acts = list(self._shares)
            self._done = max(self._done, sum(self._shares[act] for act in acts[: acts.index(mechanism.name) + 1]))

    def play(self, act: str, **options: str) -> dict[str, Any]:
        """Have a throw-away process play an act and return what it found.

        Raises:
            RehearsalError: the process failed; the message says why.
        """
        job = {
            "act": act,
            "package": self._package,
            "exercise": self._exercise,
            "cycles": self.cycles,
            "options": options,
        }
        self._on_progress(self._share, act)

        def step() -> None:
            self._done += 1
            self._on_progress(self._share, act)

        return play(job, step_seconds=self._step_seconds, on_step=step)

    @property
    def _share(self) -> float:
        return min(1.0, self._done / sum(self._shares.values()))


def _measurements(mechanism: str, found: dict[str, Any]) -> Measurements:
    return Measurements(
        mechanism=mechanism,
        cycles=tuple((size, seconds) for size, seconds in found.get("cycles", ())),
        levels=tuple(found.get("levels", ())),
        equal=found.get("equal"),
        refused=found.get("refused", ""),
    )
