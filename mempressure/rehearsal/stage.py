"""The throw-away process of a rehearsal: `python -m mempressure.rehearsal.stage FD PARENT_PID JOB`.

It plays one act of a rehearsal and reports each step as a line of JSON on descriptor FD. It is started by
`mempressure.rehearsal.trial`, so that nothing the package does to its process harms another.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from mempressure.act.mechanisms import mechanism
from mempressure.act.trim import release_free_pages
from mempressure.measure.process import private_bytes
from mempressure.package_process import identity

SURVEY = "survey"
"""The act that comes before those of the mechanisms."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MAX_MODULES = 10
_MESSAGE_LENGTH = 300


class Stage:
    """One act on one package.

    Args:
        job: `act` (survey, or a mechanism), `package`, `exercise` ("module:function", or empty), `cycles`, `path`
            (entries for `sys.path`), and `options`: those that the mechanism gave `Rehearsal.play`.
        report: called with each step and with the result.
    """

    def __init__(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        self.package: str = job["package"]
        self.module, _, self.function = job["exercise"].partition(":")
        self.exercise: tuple[str, ...] = (self.module, self.function) if self.module else ()
        self.cycles: int = job["cycles"]
        self.options: Mapping[str, str] = job["options"]
        self._report = report

    def survey(self) -> dict[str, Any]:
        """Import the package with a recorder, use it twice, and list what came with it."""
        from mempressure.rehearsal.import_costs import ImportRecorder, distributions_of

        recorder, before = ImportRecorder(), set(sys.modules)
        with recorder.installed():
            self.load()
        imported = set(sys.modules) - before
        self.step("imported")
        incomparable = ""
        if self.module:
            first = self.use_and_pickle()
            self.step("used")
            incomparable = self._unsteady(first)
        used = set(sys.modules) - before
        rows = sorted(recorder.costs.items(), key=lambda row: -row[1].self_bytes)[:_MAX_MODULES]
        return {
            "incomparable": incomparable,
            "distributions": distributions_of(used, own_files={name.partition(".")[0] for name in imported}),
            "modules": [
                [name, cost.self_bytes, cost.cumulative_bytes, round(cost.self_seconds, 6)] for name, cost in rows
            ],
        }

    def load(self) -> float:
        """Import the package and return what that took in seconds."""
        began = time.perf_counter()
        try:
            importlib.import_module(self.package)
        except ModuleNotFoundError as error:
            if error.name and (self.package == error.name or self.package.startswith(f"{error.name}.")):
                raise _FailedError("not_installed", f"there is no module {error.name!r} here") from error
            raise _FailedError("import_failed", f"importing it failed: {_described(error)}") from error
        except BaseException as error:
            raise _FailedError("import_failed", f"importing it failed: {_described(error)}") from error
        return time.perf_counter() - began

    def use(self) -> Any:
        """Call the exercise and return its result."""
        function = self._exercise()
        try:
            result = function()
        except BaseException as error:
            raise _FailedError(
                "exercise_failed", f"the exercise {self.module}:{self.function} failed: {_described(error)}"
            ) from error
        if hasattr(result, "__await__") or hasattr(result, "__anext__"):
            getattr(result, "close", lambda: None)()
            raise _FailedError(
                "exercise_failed", f"the exercise {self.module}:{self.function} is asynchronous; send a plain function"
            )
        return result

    def use_and_pickle(self) -> bytes | str:
        """Call the exercise; return its pickled result, or why there is none that can be compared."""
        return self.pickled(self.use())

    def pickled(self, result: object) -> bytes | str:
        """Return a result pickled, or why it cannot be compared."""
        from mempressure.rehearsal.comparison import IncomparableError, pickled

        try:
            return pickled(result)
        except IncomparableError as error:
            return _one_line(str(error))

    def equal(self, first: bytes, second: bytes) -> bool | str:
        """Return whether two pickled results are equal, or why they cannot be compared."""
        from mempressure.rehearsal.comparison import IncomparableError, equal_pickles

        try:
            return equal_pickles(first, second)
        except IncomparableError as error:
            return _one_line(str(error))

    def settled_bytes(self) -> int:
        """Return this process' private memory without what is garbage: 1 MiB more or less of it is no growth."""
        gc.collect()
        release_free_pages()
        return private_bytes()

    def _unsteady(self, first: bytes | str) -> str:
        """Use the package again without unloading it; return why results cannot be compared, empty where they can."""
        second = self.use_and_pickle()
        if isinstance(first, str) or isinstance(second, str):
            return first if isinstance(first, str) else str(second)
        equal = self.equal(first, second)
        if isinstance(equal, str):
            return equal
        if equal:
            return ""
        raise _FailedError(
            "exercise_unsteady",
            f"the exercise {self.module}:{self.function} returns another result at its second call, without any "
            "unloading; send one that always returns the same",
        )

    def _exercise(self) -> Callable[[], Any]:
        name = f"{self.module}:{self.function}"
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name and (self.module == error.name or self.module.startswith(f"{error.name}.")):
                raise _FailedError(
                    "exercise_missing",
                    f"the exercise {name} cannot be found: there is no module {error.name!r}; "
                    f"modules are looked for in {os.getcwd()} first",
                ) from error
            raise _FailedError("exercise_failed", f"importing {self.module} failed: {_described(error)}") from error
        except BaseException as error:
            raise _FailedError("exercise_failed", f"importing {self.module} failed: {_described(error)}") from error
        function = getattr(module, self.function, None)
        if not callable(function):
            raise _FailedError(
                "exercise_missing", f"the exercise {name} cannot be found: the module has no such function"
            )
        return function  # type: ignore[no-any-return] # a callable is all that can be known of it

    def step(self, what: str) -> None:
        """Report progress, which also shows that this process is not stuck."""
        self._report({"step": what})


class _FailedError(Exception):
    """The act cannot be played: nothing about a mechanism, but about the package or its exercise."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, even while a call holds the GIL."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(0)


def main(arguments: list[str]) -> int:
    """Play the act that the job names; return the exit status, 0 where it was played to its end."""
    descriptor, parent, job = int(arguments[0]), int(arguments[1]), json.loads(arguments[2])
    _end_with(parent)
    identity.become((job["package"],))
    os.set_inheritable(descriptor, False)
    sys.path[:0] = job["path"]
    sys.argv[:] = ["mempressure-rehearsal"]

    def report(line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(descriptor, data) :]

    stage = Stage(job, report)
    try:
        found = stage.survey() if job["act"] == SURVEY else mechanism(job["act"]).play(stage)
    except _FailedError as error:
        report({"failed": error.kind, "message": _one_line(str(error))})
        return 1
    if found.get("refused"):
        found["refused"] = _one_line(found["refused"])
    report({"done": found})
    return 0


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide the error
        return type(error).__name__


def _one_line(text: str) -> str:
    """Return a text's first paragraph in one line that a terminal can show."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split("\n\n", maxsplit=1)[0].split()))
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}..."


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # What the package registered for the end, and the threads it left behind, are not waited for.
    os._exit(status)
