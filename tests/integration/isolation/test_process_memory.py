"""Package processes in a real memory cgroup: room before a load, and what the kernel kills without it."""

import json
import os
import subprocess
import sys

import pytest

from stack.engines import ROOT
from tests.support.programs.isolated_answers import ANSWERS
from tests.support.servers.workers import Workers
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)  # its packages are imported thirty times, at the edge of their memory
# Of what the packages took, one by one. Together, from one zygote, they hold 0.75 of it in memory of their own.
SHARE = 0.5
KNOWN = {name: answer for name, (_, answer) in ANSWERS.items()}


class Worker:
    """`isolated_memory` in a cgroup."""

    def __init__(self, cgroup, environ, how, directory):
        self.cgroup = cgroup
        directory.mkdir()
        self.process = subprocess.Popen(
            cgroup.command(sys.executable, "-m", "tests.support.programs.isolated_memory", how, str(directory)),
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def learn(self):
        """Wait until it knows what each package takes."""
        self.costs = json.loads(self.process.stdout.readline())

    def go(self, *, room):
        """Have it go on with so many bytes beside what it uses now; return what it prints, None where it was killed.

        What uses memory now is the worker alone: a process that is still ending, or what is cached for one that has
        ended, would be room in disguise.
        """
        processes = self.cgroup.path / "cgroup.procs"
        until(lambda: len(processes.read_text().split()) == 1, "only the worker left in its cgroup")
        self.cgroup.drop_cache()
        self.cgroup.limit(self.cgroup.used + room)
        output, _ = self.process.communicate("\n", timeout=280)
        return json.loads(output) if output else None


@pytest.fixture(scope="module")
def read_files():
    """Have the packages' files read outside any cgroup, so that none is charged for them.

    Where the first to read them is in the cgroup, they take 260 MiB of its room and are thrown out and read again for
    minutes at its limit, instead of a kill.
    """
    imports = f"import {', '.join(ANSWERS)}, tests.support.programs.isolated_memory"
    subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=True)


@pytest.fixture
def start(read_files, memory_cgroup, runtime_dir, tmp_path):
    workers = []

    def start(how, *, admission="off"):
        environ = Workers(runtime_dir, "room").environ(MEMPRESSURE_ADMISSION=admission, MEMPRESSURE_BUDGET="0")
        workers.append(Worker(memory_cgroup, environ, how, tmp_path / f"{len(workers)}"))
        workers[-1].learn()
        return workers[-1]

    yield start
    for worker in workers:
        with worker.process:
            worker.process.kill()


@pytest.mark.parametrize("how", ["sequence", "burst"])
def test_loads_that_end_in_the_oom_killer_end_with_admission_in_room_or_a_refusal(start, memory_cgroup, how):
    without = start(how)
    without.go(room=int(sum(without.costs.values()) * SHARE))
    killed = memory_cgroup.kills
    assert killed >= 1

    worker = start(how, admission="on")
    became, unloads = worker.go(room=int(sum(worker.costs.values()) * SHARE))
    assert memory_cgroup.kills == killed
    refused = {name for name, answer in became.items() if answer != KNOWN[name]}
    for name in refused:
        assert became[name].startswith(f"MemoryBudgetExceeded: no room to load package {name!r}: it took ")
    assert len(refused) < len(KNOWN)
    if how == "sequence":
        assert not refused
        assert unloads >= 1
    else:
        assert refused


def test_a_process_that_the_kernel_kills_for_memory_fails_its_call_only(start, memory_cgroup):
    worker = start("greedy")
    became, _ = worker.go(room=2 * max(worker.costs.values()))
    assert memory_cgroup.kills == 1
    assert became["eat"].startswith("ProcessDiedError: the package process of pandas")
    assert "was killed by SIGKILL (as the kernel does when memory runs out)" in became["eat"]
    assert (became["deaths"], became["pandas"]) == (1, KNOWN["pandas"])
