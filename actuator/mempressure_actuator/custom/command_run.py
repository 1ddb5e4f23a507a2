"""Runs a command with fixed arguments: no shell, its own process group, bounded in time and output."""

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mempressure_actuator.custom.definition import Result, readable

MAX_OUTPUT_BYTES = 1 << 20
"""A command that writes more is killed."""
KEPT_OUTPUT_BYTES = 2048
_PIECE = 1 << 16
_POLL_SECONDS = 0.2
"""How often a run checks whether the actuator is stopping."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
VARIABLES = ("action", "node", "scope", "app", "level", "usage", "used_bytes", "total_bytes", "trigger")
"""The action's data that is also in the environment, as PRESSURE_ACTION and so on."""


def run_command(
    arguments: Sequence[str], content: Mapping[str, Any], *, timeout: float, stopping: threading.Event
) -> Result:
    """Run a command with `content` as JSON on its standard input; kill its process group after `timeout` seconds.

    Processes that it leaves in its process group are killed when it ends, too.
    """
    environ = ENVIRONMENT | {f"PRESSURE_{name.upper()}": str(content[name]).replace("\0", "") for name in VARIABLES}
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environ,
            start_new_session=True,
        )
    except OSError as error:
        return Result("failed", f"cannot be started: {error.strerror}")
    assert process.stdin is not None  # noqa: S101 -- for mypy: both are pipes
    assert process.stdout is not None  # noqa: S101 -- as above
    with process.stdout:
        try:
            unprotect(process.pid)
            with suppress(BrokenPipeError), process.stdin:  # the command need not read it
                process.stdin.write(json.dumps(content).encode())  # fits into the pipe, so it does not block
            output, why = _read_output(process, process.stdout, time.monotonic() + timeout, stopping)
        finally:
            # Before wait(): until then the pid, and so the group's number, cannot be reused.
            with suppress(ProcessLookupError, PermissionError):  # macOS answers so for a zombie's group
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    text = readable(output)
    text = f": {text}" if text else ""
    if why == "timeout":
        return Result("timeout", f"killed with its process group after {timeout:g} s{text}")
    if why:
        return Result("failed", f"killed with its process group: {why}{text}")
    return Result("failed" if code else "done", f"exit status {code}{text}")


def unprotect(pid: int, *, proc: str = "/proc") -> None:
    """Reset a command's OOM score adjustment, which it inherits: it must not be protected as the actuator is."""
    path = Path(f"{proc}/{pid}/oom_score_adj")
    with suppress(OSError):  # it has ended already, or proc is restricted
        if int(path.read_text()) < 0:
            path.write_text("0")


def _read_output(
    process: "subprocess.Popen[bytes]", pipe: IO[bytes], deadline: float, stopping: threading.Event
) -> tuple[bytes, str]:
    """Read a process' output until it ends; return the beginning of it, and why the process must be killed, if so."""
    ended = os.pidfd_open(process.pid)
    os.set_blocking(pipe.fileno(), False)
    kept, size, open_pipe = b"", 0, True
    try:
        while True:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            if open_pipe:
                poll.register(pipe.fileno(), select.POLLIN)
            ready = dict(poll.poll(max(0.0, min(_POLL_SECONDS, deadline - time.monotonic())) * 1000))
            if pipe.fileno() in ready:
                piece = os.read(pipe.fileno(), _PIECE)
                open_pipe = bool(piece)
                size += len(piece)
                kept += piece[: KEPT_OUTPUT_BYTES - len(kept)]
            elif ended in ready:  # and all of its output is read
                return kept, ""
            if size > MAX_OUTPUT_BYTES:
                return kept, f"it wrote more than {MAX_OUTPUT_BYTES} bytes"
            if time.monotonic() >= deadline:
                return kept, "timeout"
            if stopping.is_set():
                return kept, "the actuator is stopping"
    finally:
        os.close(ended)
