import os
import select
from pathlib import Path

import pytest

from mempressure.measure.psi_trigger import STALL, TriggerError, psi_trigger, v1_pressure_trigger, v1_usage_trigger


def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))


@pytest.fixture
def cgroup(tmp_path):
    """A directory with the files of a v1 cgroup, which are not the kernel's."""
    for name in ("memory.pressure_level", "memory.usage_in_bytes", "cgroup.event_control"):
        (tmp_path / name).write_text("")
    return tmp_path


def test_this_kernel_takes_the_trigger_or_it_says_why():
    if not os.path.exists("/proc/pressure/memory"):
        with pytest.raises(TriggerError, match="takes no trigger: No such file"):
            psi_trigger("/proc/pressure/memory")
        return
    trigger = psi_trigger("/proc/pressure/memory")
    poll = select.poll()
    poll.register(trigger.descriptor, trigger.events)
    assert all(not events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))
    trigger.drain()
    trigger.close()


def test_a_copy_is_not_written_to(proc):
    path, before = f"{proc.path}/pressure/memory", open_descriptors()
    with pytest.raises(TriggerError, match="not a file of the kernel"):
        psi_trigger(path)
    assert Path(path).read_text().startswith("some avg10=")
    assert open_descriptors() == before


def test_the_trigger_is_one_that_needs_no_privilege_and_ends_with_nul():
    kind, stall, window = STALL.rstrip(b"\0").split()
    assert (kind, STALL[-1], int(window) % 2_000_000) == (b"some", 0, 0)
    assert 0 < int(stall) < int(window)


def test_what_is_written_for_a_v1_cgroup(cgroup):
    trigger = v1_usage_trigger(cgroup, 1 << 20)
    event, watched, argument = (cgroup / "cgroup.event_control").read_text().split()
    assert (int(event), argument) == (trigger.descriptor, str(1 << 20))
    assert int(watched) != trigger.descriptor
    trigger.close()
    (cgroup / "cgroup.event_control").write_text("")
    trigger = v1_pressure_trigger(cgroup)
    assert (cgroup / "cgroup.event_control").read_text().endswith(" medium")
    os.eventfd_write(trigger.descriptor, 3)
    trigger.drain()
    trigger.drain()  # nothing new is no error
    trigger.close()


@pytest.mark.parametrize("missing", ["memory.pressure_level", "cgroup.event_control"])
def test_a_cgroup_that_offers_none_leaves_nothing_open(cgroup, missing):
    (cgroup / missing).unlink()
    before = open_descriptors()
    with pytest.raises(TriggerError, match=r"memory\.pressure_level takes no trigger: No such file"):
        v1_pressure_trigger(cgroup)
    assert open_descriptors() == before
