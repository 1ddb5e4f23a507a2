"""Starts one throw-away process of a rehearsal, reads its reports, and ends it, also where it hangs or crashes."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from mempressure.errors import MempressureError

_STDERR_BYTES = 4096


class RehearsalError(MempressureError):
    """A package could not be rehearsed.

    Attributes:
        kind: not_installed, import_failed, exercise_missing, exercise_failed, exercise_unsteady, timed_out or crashed.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def play(job: Mapping[str, Any], *, step_seconds: float, on_step: Callable[[], None]) -> dict[str, Any]:
    """Play one act (see `mempressure.rehearsal.stage`) in a process of its own and return what it found.

    Args:
        job: what `Stage` takes.
        step_seconds: how long the process may take from one step to the next.
        on_step: called after each step.

    Raises:
        RehearsalError: the act could not be played to its end.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as stderr, open(reader, "rb", buffering=0) as lines:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mempressure.rehearsal.stage", str(writer), str(os.getpid()), _text(job)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[writer],
                env=_environment(),
                process_group=0,  # what the package starts is ended with it, and Ctrl-C is for this process
            )
        finally:
            os.close(writer)
        try:
            return _listen(process, lines, stderr, job=job, step_seconds=step_seconds, on_step=on_step)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment() -> dict[str, str]:
    """Return this process's environment variables, with `PYTHONPATH` such that `mempressure` can be imported."""
    inherited = os.environ.get("PYTHONPATH")
    home = os.fspath(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": home if not inherited else f"{inherited}{os.pathsep}{home}"}


def _listen(
    process: subprocess.Popen[bytes],
    lines: IO[bytes],
    stderr: IO[bytes],
    *,
    job: Mapping[str, Any],
    step_seconds: float,
    on_step: Callable[[], None],
) -> dict[str, Any]:
    pending = b""
    deadline = time.monotonic() + step_seconds
    while True:
        if not select.select([lines], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise RehearsalError(
                "timed_out", f"{_doing(job)} took more than {step_seconds:g} s; --timeout allows longer"
            )
        data = lines.read(65536)
        if not data:
            raise RehearsalError("crashed", f"{_doing(job)} {_end(process)}{_last_line(stderr)}")
        *whole, pending = (pending + data).split(b"\n")
        for line in whole:
            report = json.loads(line)
            if "failed" in report:
                raise RehearsalError(report["failed"], report["message"])
            on_step()
            if "done" in report:
                done: dict[str, Any] = report["done"]
                return done
        deadline = time.monotonic() + step_seconds


def _text(job: Mapping[str, Any]) -> str:
    # The console script's directory is no place for modules; the working directory is, as for `python -m`.
    return json.dumps({"path": [os.getcwd()], **job})


def _doing(job: Mapping[str, Any]) -> str:
    return "importing it" if not job["exercise"] else f"importing it, or the exercise {job['exercise']},"


def _end(process: subprocess.Popen[bytes]) -> str:
    """Say how the process went; it has closed its end of the pipe, and is gone or about to be."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5.0)
    status = process.returncode
    if status is None:
        return "closed its descriptors"
    if status >= 0:
        return f"ended the process with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    out_of_memory = " (as the kernel does when memory runs out)" if status == -signal.SIGKILL else ""
    return f"crashed the process: {name}{out_of_memory}"


def _last_line(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_BYTES))
    text = stderr.read().decode(errors="replace").strip()
    last = "".join(char for char in text.splitlines()[-1] if char.isprintable()) if text else ""
    return f"; the last line of its stderr: {last[:200]}" if last else ""
