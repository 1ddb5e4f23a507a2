"""The reflex: a thread that wakes the control loop when the kernel reports that tasks stall for memory.

It decides nothing: the loop measures when it is woken, and acts only where usage is at emergency.
"""

import logging
import os
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mempressure.measure.cgroup import Cgroup
from mempressure.measure.memory_controllers import memory_controllers
from mempressure.measure.psi_trigger import Trigger, TriggerError, psi_trigger, v1_pressure_trigger, v1_usage_trigger
from mempressure_actuator.loop.cgroups import v1_limits
from mempressure_actuator.metrics import Metrics

_log = logging.getLogger(__name__)

REST_SECONDS = 0.5
"""Pause after a stall, however many follow: the actions it led to need time to take effect."""
USAGE_STEP = 1 << 20
"""Bytes: a usage trigger is armed anew only if its usage changes by this much."""

_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


@dataclass(frozen=True, slots=True)
class Source:
    """A source of stalls: the host or an app's cgroup, by its file or directory; `usage` is v1's threshold in bytes."""

    kind: str
    path: str
    usage: int = 0

    def arm(self) -> Trigger:
        """Arm the kernel's trigger for it.

        Raises:
            TriggerError: the kernel has no such trigger, or refuses it to this user.
        """
        if self.kind in ("host", "cgroup_v2"):
            return psi_trigger(self.path)
        directory = Path(self.path)
        return v1_usage_trigger(directory, self.usage) if self.usage else v1_pressure_trigger(directory)


def sources(cgroups: Mapping[Cgroup, str], *, limits: Mapping[Path, int], emergency: float, proc: str) -> set[Source]:
    """Return what to wait for: stalls of the host, and of the cgroups that apps run in.

    Args:
        cgroups: those of the apps.
        limits: of the v1 cgroups that limit them, in bytes.
        emergency: ratio of a v1 cgroup's limit at which its usage wakes the loop, too.
        proc: where the kernel's files are.
    """
    found = {Source("host", f"{proc}/pressure/memory")}
    found |= {
        Source("cgroup_v2", str(cgroup.directory / "memory.pressure")) for cgroup in cgroups if cgroup.version == 2
    }
    for directory, limit in limits.items():
        usage = int(emergency * limit) // USAGE_STEP * USAGE_STEP
        found |= {Source("cgroup_v1", str(directory)), Source("cgroup_v1", str(directory), max(USAGE_STEP, usage))}
    return found


class Reflex:
    """Waits for stalls in a thread of its own.

    Args:
        on_stall: called, in that thread, after stalls.
        metrics: counts stalls and shows which triggers this kernel has.
        proc: where the kernel's files are.
    """

    def __init__(self, *, on_stall: Callable[[], None], metrics: Metrics, proc: str = "/proc") -> None:
        self._on_stall = on_stall
        self._metrics = metrics
        self._proc = proc
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reflex", daemon=True)
        self._wanted: frozenset[Source] = frozenset({Source("host", f"{proc}/pressure/memory")})
        self._armed: dict[Source, Trigger] = {}
        self._refused: dict[Source, str] = {}
        for kind in ("host", "app"):
            metrics.reflex_supported.labels(f"{kind}_reflex").set(kind == "app" and bool(memory_controllers(proc=proc)))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and disarm all triggers; further calls do nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        for trigger in self._armed.values():
            trigger.close()
        self._armed.clear()
        os.close(self._wake)

    def watch(self, cgroups: Mapping[Cgroup, str], *, emergency: float) -> None:
        """Wait for stalls of the host and of these cgroups from now on; `emergency` is a ratio."""
        wanted = frozenset(sources(cgroups, limits=v1_limits(cgroups), emergency=emergency, proc=self._proc))
        if wanted != self._wanted:
            self._wanted = wanted
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._rearm()
                self._wait()
            except Exception as error:  # noqa: BLE001 -- an error of one source must not end the thread
                self._metrics.loop_errors.inc()
                _log.error("waiting for stalls failed, tried again: error=%s", error, exc_info=error)
                self._stopping.wait(REST_SECONDS)

    def _rearm(self) -> None:
        """Arm the wanted triggers and disarm the others."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        wanted = self._wanted
        for source in self._armed.keys() - wanted:
            self._armed.pop(source).close()
        self._refused = {source: reason for source, reason in self._refused.items() if source in wanted}
        for source in wanted - self._armed.keys() - self._refused.keys():
            try:
                self._armed[source] = source.arm()
            except TriggerError as error:
                self._refused[source] = str(error)
                _log.warning("no reflex: source=%s reason=%s", source.kind, error)
        self._show()

    def _show(self) -> None:
        refused = {source.kind for source in self._refused}
        armed = {source.kind for source in self._armed}
        show = self._metrics.reflex_supported.labels
        show("host_reflex").set("host" in armed)
        kinds = {"cgroup_v1", "cgroup_v2"}
        if (armed | refused) & kinds:
            show("app_reflex").set(not refused & kinds)
        self._metrics.reflex_triggers.set(len(self._armed))

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        by_descriptor = {}
        for source, trigger in self._armed.items():
            by_descriptor[trigger.descriptor] = source
            poll.register(trigger.descriptor, trigger.events)
        ready = [(by_descriptor[found], events) for found, events in poll.poll() if found in by_descriptor]
        for source, events in ready:
            if events & _BROKEN:  # its cgroup was removed
                self._armed.pop(source).close()
                self._refused[source] = "is gone"
                continue
            self._armed[source].drain()
            self._metrics.stalls.labels(source.kind).inc()
        if any(not events & _BROKEN for _, events in ready):
            self._on_stall()
            self._stopping.wait(REST_SECONDS)
