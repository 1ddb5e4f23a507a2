"""Fixtures of tests with real servers: processes that end with the test, a Redis, a memory cgroup."""

import glob
import os

import pytest
import redis

from stack.engines import UNPACKED, find_program
from stack.memory_cgroup import MemoryCgroup, can_make_one
from stack.processes import Processes, free_port


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


@pytest.fixture
def memory_cgroup():
    """A memory cgroup of the test's own, without a limit until one is set."""
    if not can_make_one():
        pytest.skip("makes a memory cgroup: needs root, and the v1 controller")
    cgroup = MemoryCgroup(f"mempressure-test-{os.getpid()}")
    yield cgroup
    cgroup.remove()


@pytest.fixture
def cold_file(tmp_path):
    """A file of 150 MiB that is in nobody's page cache: whoever reads it is charged for its pages, and writes none."""
    path = tmp_path / "cold"
    with path.open("wb") as file:
        for _ in range(150):
            file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path
