"""Fixtures of tests with real servers: processes that end with the test, and a Redis."""

import glob

import pytest
import redis

from stack.engines import UNPACKED, find_program
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
