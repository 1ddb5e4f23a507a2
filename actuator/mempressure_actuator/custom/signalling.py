"""Sends a signal to the process that a PID file names, unless its pid has been reused since."""

import os
import re
import signal
import stat
from pathlib import Path

from mempressure.measure.process import start_ticks
from mempressure_actuator.custom.definition import ProcessSignal, Result

SLACK_SECONDS = 2.0
"""A process starts before it writes its file; the slack covers the time of boot, which has whole seconds."""


def send_signal(target: ProcessSignal, *, proc: str = "/proc") -> Result:
    """Send the signal; fail if other users could have written the file, or if the process is newer than the file."""
    try:
        pid, written, owner = _named(Path(target.pid_file))
        process = os.pidfd_open(pid)
    except _RefusedError as refusal:
        return Result("failed", str(refusal))
    except ProcessLookupError:
        return Result("failed", f"{target.pid_file} names process {pid}, which is gone")
    try:
        # From here on the descriptor refers to this process, even if its pid is reused.
        if _started(pid, proc=proc) > written + SLACK_SECONDS:
            return Result("failed", f"{target.pid_file} is older than process {pid}, which has reused the pid")
        if owner not in (0, os.geteuid()) and Path(f"{proc}/{pid}").stat().st_uid != owner:
            return Result("failed", f"{target.pid_file} belongs to uid {owner}, and process {pid} does not")
        signal.pidfd_send_signal(process, signal.Signals[f"SIG{target.name}"])
    except (OSError, ValueError) as error:
        return Result("failed", f"process {pid} of {target.pid_file}: {error}")
    finally:
        os.close(process)
    return Result("done", f"SIG{target.name} sent to process {pid}")


class _RefusedError(Exception):
    """The PID file cannot be trusted or read."""


def _named(path: Path) -> tuple[int, float, int]:
    """Return the pid in a file, when the file was written (Unix seconds), and its owner's uid."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _RefusedError(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        text = os.read(descriptor, 64)
    except OSError as error:
        raise _RefusedError(f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
        raise _RefusedError(f"{path} is not a regular file that only its owner can write to")
    match = re.fullmatch(rb"\s*(\d{1,10})\s*", text)
    if match is None or int(match[1]) in (0, 1, os.getpid()):
        raise _RefusedError(f"{path} holds {text[:20]!r}, which is not the pid of a process that may be signalled")
    return int(match[1]), status.st_mtime, status.st_uid


def _started(pid: int, *, proc: str) -> float:
    """Return when a process started, in Unix seconds."""
    boot = re.search(r"^btime (\d+)$", Path(proc, "stat").read_text(), re.MULTILINE)
    if boot is None:
        raise ValueError(f"{proc}/stat has no btime")
    return int(boot[1]) + start_ticks(pid, proc=proc) / os.sysconf("SC_CLK_TCK")
