"""Leads a rehearsal: one throw-away process after the other, and the verdict in the end."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from mempressure.rehearsal.judgement import Course, judge
from mempressure.rehearsal.trial import RehearsalError, play
from mempressure.verdicts import environment
from mempressure.verdicts.verdict import ModuleCost, Verdict, VerdictKey

CYCLES = 5
STEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one package: its verdict, or what kept it from being rehearsed."""

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
        self._cycles = cycles
        self._step_seconds = step_seconds
        self._on_progress = on_progress or (lambda _share, _doing: None)
        # The survey says imported, used and done; stop used and ended; each process of recycle done.
        self._shares = {"survey": 3 if exercise else 2, "stop": 2 * cycles + 2, "recycle": cycles + 1}
        self._done = 0

    def run(self) -> Verdict:
        """Rehearse, and return the verdict.

        Raises:
            RehearsalError: the package or its exercise cannot be rehearsed; the message says why.
            OSError: no process, pipe or temporary file can be had.
        """
        survey = self._play("survey")
        stop = self._stopped()
        recycle, baseline, loaded = self._recycled()
        reasons = (found.get("incomparable", "") for found in (survey, stop, recycle))
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
            results=(judge(_course("stop", stop)), judge(_course("recycle", recycle))),
            baseline_bytes=baseline,
            loaded_bytes=loaded,
            incomparable=next(filter(None, reasons), ""),
            modules=tuple(
                ModuleCost(name=name, self_bytes=own, cumulative_bytes=total, self_seconds=seconds)
                for name, own, total, seconds in survey["modules"]
            ),
        )

    def _stopped(self) -> dict[str, Any]:
        """Rehearse stopping; what the survey got through and this does not is the mechanism's doing."""
        try:
            return self._play("stop")
        except RehearsalError as error:
            return {"refused": str(error)}
        finally:  # it may have been given up early
            self._done = max(self._done, self._shares["survey"] + self._shares["stop"])

    def _recycled(self) -> tuple[dict[str, Any], int, int]:
        """Use the package in one fresh process after the other; return the course, and the memory of such a process."""
        with tempfile.TemporaryDirectory(prefix="mempressure-") as folder:
            lives: list[dict[str, Any]] = []
            for number in range(self._cycles + 1):
                first = f"{folder}/0" if number and lives[0]["result"] else ""
                lives.append(self._play("recycle", result=f"{folder}/{number}", first=first))
        starts = [life["baseline"] for life in lives]
        found = {
            # What the end of one gave back is what it held above the start of its successor.
            "cycles": [(life["held"] - after["baseline"], after["seconds"]) for life, after in pairwise(lives)],
            "equal": _united([life["equal"] for life in lives[1:]]),
            "incomparable": next((life["incomparable"] for life in lives if life.get("incomparable")), ""),
        }
        return found, round(median(starts)), round(median(life["held"] for life in lives))

    def _play(self, act: str, **options: str) -> dict[str, Any]:
        job = {
            "act": act,
            "package": self._package,
            "exercise": self._exercise,
            "cycles": self._cycles,
            **options,
        }
        self._on_progress(self._share, act)

        def step() -> None:
            self._done += 1
            self._on_progress(self._share, act)

        return play(job, step_seconds=self._step_seconds, on_step=step)

    @property
    def _share(self) -> float:
        return min(1.0, self._done / sum(self._shares.values()))


def _course(mechanism: str, found: dict[str, Any]) -> Course:
    return Course(
        mechanism=mechanism,
        cycles=tuple((size, seconds) for size, seconds in found.get("cycles", ())),
        levels=tuple(found.get("levels", ())),
        equal=found.get("equal"),
        refused=found.get("refused", ""),
    )


def _united(equal: list[bool | None]) -> bool | None:
    return None if None in equal else all(equal)
