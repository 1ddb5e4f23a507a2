import os
import select
import signal
import threading

import pytest

from mempressure.measure.psi_trigger import Trigger, TriggerError, psi_trigger
from mempressure_exporter.wakeups import Wakeups
from tests.support.waiting import until


@pytest.fixture
def event():
    """A descriptor that a trigger waits for; the trigger closes it."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def named():
    return [thread for thread in threading.enumerate() if thread.name == "wakeups"]


def test_each_wakeup_is_counted_once(event):
    wakeups = Wakeups(lambda: Trigger(event, select.POLLIN))
    for count in (1, 2, 3):
        os.eventfd_write(event, 1)
        until(lambda count=count: wakeups.count == count, "the wakeup to be counted")
    assert wakeups.refused == ""
    wakeups.close()
    assert (wakeups.count, named()) == (3, [])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(event)
    wakeups.close()  # once more does no harm


def test_a_refused_trigger_is_reported_and_starts_no_thread():
    def refuses():
        raise TriggerError("/proc/pressure/memory takes no trigger: Read-only file system")

    wakeups = Wakeups(refuses)
    assert wakeups.refused.endswith("Read-only file system")
    assert named() == []
    wakeups.close()


def test_counting_ends_when_the_kernel_removes_the_trigger(caplog):
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakeups = Wakeups(lambda: Trigger(reader, select.POLLPRI))
    os.close(writer)  # poll returns POLLHUP, as it returns POLLERR for a cgroup that was removed
    until(lambda: wakeups.refused, "the end to be seen")
    assert "wakeups are no longer counted" in caplog.text
    wakeups.close()
    assert named() == []


def test_no_signal_is_delivered_to_its_thread(event):
    wakeups = Wakeups(lambda: Trigger(event, select.POLLIN))
    (thread,) = named()
    with open(f"/proc/self/task/{thread.native_id}/status") as file:
        blocked = int(next(line for line in file if line.startswith("SigBlk:")).split()[1], 16)
    assert all(blocked >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    wakeups.close()


def test_the_kernels_own_trigger_is_armed_and_disarmed():
    try:
        psi_trigger("/proc/pressure/memory").close()
    except TriggerError as error:
        pytest.skip(f"this kernel offers none: {error}")
    before = len(os.listdir("/proc/self/fd"))
    wakeups = Wakeups(lambda: psi_trigger("/proc/pressure/memory"))
    assert wakeups.refused == ""
    wakeups.close()
    assert len(os.listdir("/proc/self/fd")) == before
