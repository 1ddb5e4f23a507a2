"""Fixtures of tests with real servers: processes that end with the test, a Redis, a memory cgroup."""

import glob
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from stack.engines import UNPACKED, find_program
from stack.processes import Processes, free_port
from tests.waiting import until


@pytest.fixture
def processes(tmp_path):
    """Starts processes and ends them after the test."""
    with Processes(logs=tmp_path / "logs", environ={}) as processes:
        yield processes


@pytest.fixture
def redis_url(processes, tmp_path):
    """A Redis of the test's own."""
    port = free_port()
    program = find_program("redis-server") or pytest.fail(
        "redis-server not found; run: scripts/install-engines redis-server"
    )
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": tmp_path}
    words = (str(word) for name, value in options.items() for word in (f"--{name}", value))
    # Where it was unpacked, its libraries are beside it.
    libraries = glob.glob(str(UNPACKED.with_name("lib") / "*-linux-gnu"))
    server = processes.start("redis", [program, *words], environ={"LD_LIBRARY_PATH": ":".join(libraries)})

    def answers():
        try:
            return redis.Redis(port=port).ping()
        except redis.ConnectionError:
            return False

    server.wait_until(answers)
    return f"redis://127.0.0.1:{port}"


class MemoryCgroup:
    """A real memory cgroup (v1) for the processes that `command` starts.

    Args:
        path: its directory under the memory controller.
    """

    def __init__(self, path):
        self.path = path

    def command(self, *words):
        """Return a command that runs `words` in it."""
        return ["/bin/sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(self.path), *words]

    def limit(self, size):
        """Set its limit to so many bytes, for memory and swap together where swap is counted."""
        (self.path / "memory.limit_in_bytes").write_text(str(size))

    @property
    def used(self):
        """Its working set in bytes."""
        fields = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        return int((self.path / "memory.usage_in_bytes").read_text()) - int(fields["total_inactive_file"])

    @property
    def kills(self):
        """How many processes in it the kernel has killed for want of memory."""
        lines = (self.path / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def remove(self):
        """Kill what is left in it and remove it."""

        def removed():
            for pid in (self.path / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                self.path.rmdir()
            except OSError:  # what was killed is still ending
                return False
            return True

        until(removed, "the cgroup to be empty")


@pytest.fixture
def memory_cgroup():
    """A memory cgroup of the test's own, without a limit until one is set."""
    controller = Path("/sys/fs/cgroup/memory")
    path = controller / f"mempressure-test-{os.getpid()}"
    if not (controller / "cgroup.procs").exists() or not os.access(controller, os.W_OK):
        pytest.skip("makes a memory cgroup: needs root, and the v1 controller")
    path.mkdir()
    cgroup = MemoryCgroup(path)
    yield cgroup
    cgroup.remove()
