"""What runs in a throw-away process: `python -m mempressure.rehearsal.stage FD PARENT_PID JOB`.

It plays one act of a rehearsal and tells of each step in a line of JSON on descriptor FD. It is started by
`mempressure.rehearsal.trial`, never by hand: whatever the package does to its process, nobody else suffers.
"""

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from mempressure.act.trim import release_free_pages
from mempressure.isolation.child import die_with
from mempressure.measure.process import private_bytes

_MOST_MODULES = 10
_MESSAGE_LENGTH = 300


class Stage:
    """One act on one package.

    Args:
        job: `act`, `package`, `exercise` ("module:function", or empty), `cycles`, `path` (entries for `sys.path`), and
            for the act recycle `result` and `first`: where to put the result, and where the first one is, if anywhere.
        tell: called with what is to be said of each step.
    """

    def __init__(self, job: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        self.package: str = job["package"]
        self.module, _, self.function = job["exercise"].partition(":")
        self.cycles: int = job["cycles"]
        self._job = job
        self._tell = tell

    def survey(self) -> dict[str, Any]:
        """Import the package with a recorder, use it twice, and list what came with it."""
        from mempressure.rehearsal.import_costs import ImportRecorder, distributions_of

        recorder, before = ImportRecorder(), set(sys.modules)
        with recorder.installed():
            self.load()
        imported = set(sys.modules) - before
        self._step("imported")
        incomparable = ""
        if self.module:
            first = self._used()
            self._step("used")
            incomparable = self._unsteady(first)
        used = set(sys.modules) - before
        rows = sorted(recorder.costs.items(), key=lambda row: -row[1].self_bytes)[:_MOST_MODULES]
        return {
            "incomparable": incomparable,
            "distributions": distributions_of(used, own_files={name.partition(".")[0] for name in imported}),
            "modules": [
                [name, cost.self_bytes, cost.cumulative_bytes, round(cost.self_seconds, 6)] for name, cost in rows
            ],
        }

    def recycle(self) -> dict[str, Any]:
        """Load and use the package in this process, which then ends."""
        from mempressure.rehearsal.comparison import IncomparableError, equal_pickles

        baseline = private_bytes()
        seconds = self.load()
        result = self._used() if self.module else None
        held = private_bytes()
        answer: dict[str, Any] = {"baseline": baseline, "held": held, "seconds": seconds, "equal": None}
        answer["result"] = isinstance(result, bytes)
        if isinstance(result, bytes):
            with open(self._job["result"], "wb") as file:
                file.write(result)
            if self._job["first"]:
                with open(self._job["first"], "rb") as file:
                    first = file.read()
                try:
                    answer["equal"] = equal_pickles(first, result)
                except IncomparableError as error:
                    answer["incomparable"] = _one_line(error)
        return answer

    def stop(self) -> dict[str, Any]:
        """Be a worker whose package lives in a process of its own, which is ended again and again."""
        from mempressure.errors import MempressureError
        from mempressure.isolation.package import IsolatedPackage

        package = IsolatedPackage(self.package)
        try:
            return self._stopped_again_and_again(package)
        except MempressureError as error:
            return _refusal(_one_line(error))
        finally:
            package.close()

    def _stopped_again_and_again(self, package: Any) -> dict[str, Any]:
        from mempressure.rehearsal.comparison import IncomparableError, equal_pickles, pickled

        # Without an exercise any call will do: the package's process imports the package before it.
        called = (self.module, self.function) if self.module else ("builtins", "callable", (None,))
        first, last, cycles, levels = b"", b"", [], []
        incomparable = ""
        root = self.package.partition(".")[0]
        worker_has_it = root in sys.modules  # json, say, which this process itself needs
        for cycle in range(self.cycles + 1):
            before = package.load_seconds
            result = package.call(*called)
            seconds = package.load_seconds - before
            if root in sys.modules and not worker_has_it:
                kind = f"{type(result).__module__}.{type(result).__qualname__}"
                return _refusal(
                    f"its result ({kind}) makes the worker load {self.package} too; return plain data instead"
                )
            try:
                last = pickled(result) if self.module else b""
            except IncomparableError as error:
                incomparable = _one_line(error)
            first = first or last
            del result
            self._step("used")
            levels.append(_settled_bytes())
            if cycle < self.cycles:
                pid = package.process_pid
                reclaimed, refused = package.unload()
                if refused is not None or _lives(pid):
                    return _refusal(refused or f"its process {pid} lives on")
                cycles.append([reclaimed, seconds])
                self._step("ended")
            if cycle:
                cycles[cycle - 1][1] = seconds  # what counts is loading again
        equal = None
        if self.module and not incomparable:
            try:
                equal = equal_pickles(first, last)
            except IncomparableError as error:
                incomparable = _one_line(error)
        return {"cycles": cycles, "levels": levels, "equal": equal, "incomparable": incomparable}

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

    def _used(self) -> bytes | str:
        """Call the exercise; return its pickled result, or why there is none."""
        from mempressure.rehearsal.comparison import IncomparableError, pickled

        try:
            return pickled(self.use())
        except IncomparableError as error:
            return _one_line(error)

    def _unsteady(self, first: bytes | str) -> str:
        """Use the package again without unloading it; return why results cannot be compared, empty where they can."""
        from mempressure.rehearsal.comparison import IncomparableError, equal_pickles

        second = self._used()
        if isinstance(first, str) or isinstance(second, str):
            return first if isinstance(first, str) else str(second)
        try:
            if equal_pickles(first, second):
                return ""
        except IncomparableError as error:
            return _one_line(error)
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

    def _step(self, what: str) -> None:
        self._tell({"step": what})


class _FailedError(Exception):
    """The act cannot be played: nothing about a mechanism, but about the package or its exercise."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main(arguments: list[str]) -> int:
    """Play the act that the job names; return the exit status, 0 where it was played to its end."""
    descriptor, parent, job = int(arguments[0]), int(arguments[1]), json.loads(arguments[2])
    die_with(parent)
    os.set_inheritable(descriptor, False)
    sys.path[:0] = job["path"]
    sys.argv[:] = ["mempressure-rehearsal"]

    def tell(line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(descriptor, data) :]

    stage = Stage(job, tell)
    acts = {"survey": stage.survey, "stop": stage.stop, "recycle": stage.recycle}
    try:
        tell({"done": acts[job["act"]]()})
    except _FailedError as error:
        tell({"failed": error.kind, "message": _one_line(error)})
        return 1
    return 0


def _refusal(reason: str) -> dict[str, Any]:
    return {"refused": reason, "cycles": [], "levels": [], "equal": None}


def _settled_bytes() -> int:
    """Return this process' private memory without what is garbage: 1 MiB more or less of it is no growth."""
    gc.collect()
    release_free_pages()
    return private_bytes()


def _lives(pid: int | None) -> bool:
    try:
        return pid is not None and bool(private_bytes(pid))
    except ProcessLookupError:
        return False


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide the error
        return type(error).__name__


def _one_line(error: BaseException) -> str:
    """Return an error's first paragraph in one line that a terminal can show."""
    text = str(error).split("\n\n")[0]
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}..."


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # What the package registered for the end, and the threads it left behind, are not waited for.
    os._exit(status)
