"""Triggers of a real memory cgroup (v1), fired by a process that fills it."""

import os
import select
import sys

from mempressure.measure.psi_trigger import psi_trigger, v1_pressure_trigger, v1_usage_trigger

MIB = 1 << 20
FILLS = """
import os, sys
if all(os.fork() for _ in range(3)):  # four that read: measured, they stall for half of the time
    held = [bytearray(1 << 20) for _ in range(40)]  # of 64: the page cache has to go
while True:
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20):
            pass
"""


def test_a_cgroup_that_reclaims_wakes_who_waits(memory_cgroup, processes, cold_file):
    memory_cgroup.limit(64 * MIB)
    triggers = [v1_pressure_trigger(memory_cgroup.path), v1_usage_trigger(memory_cgroup.path, 60 * MIB)]
    if os.access("/proc/pressure/memory", os.W_OK):  # what waits in a cgroup waits on the host, too
        triggers.append(psi_trigger("/proc/pressure/memory"))
    polls = []
    for trigger in triggers:
        polls.append(select.poll())
        polls[-1].register(trigger.descriptor, trigger.events)
    assert all(poll.poll(0) == [] for poll in polls)
    processes.start("filler", memory_cgroup.command(sys.executable, "-c", FILLS, str(cold_file)))
    for trigger, poll in zip(triggers, polls, strict=True):
        assert poll.poll(20_000), "the kernel told nothing"
        trigger.drain()
    assert memory_cgroup.kills == 0
    for trigger in triggers:
        trigger.close()
