"""Ending package processes: asked to end when idle, killed where they do not, or where they run a call for nobody."""

import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mempressure.isolation.processes import Processes, end_call, has_caller, wait_for_end
from mempressure.package_process import descendants
from mempressure.protocol import frames, slots
from mempressure.protocol.addresses import connect
from mempressure.protocol.frames import Channel
from mempressure.protocol.slots import SlotRecord

_KILL_SECONDS = 5.0  # for a killed process to end; only one stuck in the kernel takes longer
_EXIT_SECONDS = 1.0  # from its last message to its end

Asked = Mapping[int, "tuple[Channel, int] | str"]
"""By slot: a connection over which the process answers, and the private bytes that it held; or why it stays."""


class Stopped(NamedTuple):
    """What came of asking processes to end."""

    ended: int
    """How many did."""
    held: int
    """The private memory that they had, in bytes."""
    reason: str | None
    """Why one did not end."""
    problems: list[str]
    """Failures of hooks, and what had to be killed."""


def ask_to_end(processes: Processes, *, measure: Callable[[int], int], idle_for: float | None = None) -> Asked:
    """Ask every process to end if it has nothing to do, without waiting.

    Args:
        processes: of one generation.
        measure: returns the private bytes of a process and of what it started; raises `OSError` where it ended.
        idle_for: seconds; a process that ended a call less than that ago stays.
    """
    asked: dict[int, tuple[Channel, int] | str] = {}
    for number, record in sorted(processes.generation.records().items(), reverse=True):
        call = record.call
        if call and has_caller(record):
            asked[number] = "in use"
        elif call:
            end_call(record, call)
        else:
            path = slots.control_path(processes.generation.directory, number)
            held = _measured(measure, record.pid)  # before it may begin to end
            channel = _asked(path, idle_for)
            asked[number] = "did not answer" if channel is None else (channel, held)
    return asked


def _measured(measure: Callable[[int], int], pid: int) -> int:
    try:
        return measure(pid)
    except OSError:  # it has ended meanwhile
        return 0


def _asked(path: str, idle_for: float | None) -> "Channel | None":
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(1.0)
    try:
        connect(connection, path)
        channel = Channel(connection)
        channel.send(frames.STOP, frames.encode(idle_for))
    except OSError:  # it is ending, or hangs
        connection.close()
        return None
    return channel


def finish(processes: Processes, asked: Asked, *, deadline: float) -> Stopped:
    """Wait for the end of processes that were asked to end; kill those that have not done by the deadline.

    Args:
        processes: of one generation.
        asked: as `ask_to_end` returned it.
        deadline: in seconds of the monotonic clock.
    """
    ended = held = 0
    reasons: list[str] = []
    problems: list[str] = []
    for number, answered in asked.items():
        record = processes.generation.record(number)
        if isinstance(answered, str) or record is None:
            reasons.append(str(answered))
            continue
        channel, size = answered
        reason, told = _outcome(channel, record, deadline)
        problems += told
        if reason is None and not _has_ended(processes, record, deadline):
            reason = "did not end"
        if reason is None:
            ended, held = ended + 1, held + size
        else:
            reasons.append(reason)
    return Stopped(ended, held, reasons[0] if reasons else None, problems)


def kill_all(processes: Processes) -> None:
    """Kill every process, whatever it does."""
    for number in processes.generation.living():
        record = processes.generation.record(number)
        if record is not None:
            record.stopping = 1
            descendants.kill_group(record.pid, record.ticks)
            _has_ended(processes, record, 0.0)


def _outcome(channel: Channel, record: SlotRecord, deadline: float) -> tuple[str | None, list[str]]:
    """Return why a process stays, or None, and what went wrong in its hooks."""
    began = time.monotonic()
    try:
        channel.socket.settimeout(max(0.001, deadline - began))
        answer = channel.receive()
    except TimeoutError:
        if not record.stopping:
            return "in use", []  # a call came before the request
        took = time.monotonic() - began
        return None, [f"its on_unload and exit functions, and its pools, took more than {took:.1f} s"]
    except (EOFError, OSError):
        return None, ["it ended before its on_unload and exit functions were done"]
    finally:
        channel.close()
    value = frames.decode(answer.payload)
    return (value, []) if answer.kind == frames.IN_USE else (None, list(value))


def _has_ended(processes: Processes, record: SlotRecord, deadline: float) -> bool:
    """Wait for the end of a process, and kill what is left of it and of what it started."""
    pid, ticks = record.pid, record.ticks
    child = processes.starter.children.get(pid)
    if not wait_for_end(pid, min(_EXIT_SECONDS, max(0.0, deadline - time.monotonic()))):
        descendants.kill_group(pid, ticks)
    if not wait_for_end(pid, _KILL_SECONDS):
        return False
    if child is None:
        descendants.kill_group(pid, ticks)
    else:
        child.ended.wait(_KILL_SECONDS)
    return True
