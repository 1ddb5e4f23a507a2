"""Triggers of a real memory cgroup (v1), fired by a process that fills it."""

import select
import sys

from mempressure.stall import v1_pressure_trigger, v1_usage_trigger

MIB = 1 << 20
FILLS = """
import sys, time
held = [bytearray(1 << 20) for _ in range(40)]  # of 64: the page cache has to go
while True:
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20):
            pass
"""


def test_a_cgroup_that_reclaims_wakes_who_waits(memory_cgroup, processes, cold_file):
    memory_cgroup.limit(64 * MIB)
    triggers = [v1_pressure_trigger(memory_cgroup.path), v1_usage_trigger(memory_cgroup.path, 60 * MIB)]
    polls = []
    for trigger in triggers:
        polls.append(select.poll())
        polls[-1].register(trigger.descriptor, trigger.events)
    assert all(poll.poll(0) == [] for poll in polls)
    processes.start("filler", memory_cgroup.command(sys.executable, "-c", FILLS, str(cold_file)))
    for trigger, poll in zip(triggers, polls, strict=True):
        assert poll.poll(20_000), "the kernel told nothing"
        trigger.drain()
    assert polls[1].poll(0) == []
    assert memory_cgroup.kills == 0
    for trigger in triggers:
        trigger.close()
