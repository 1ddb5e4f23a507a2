"""Fixtures of the actuator as a process, and of a worker that it manages."""

import pytest

from tests.support.doubles.fake_worker import FakeWorker
from tests.support.servers.actuator_process import Actuator


@pytest.fixture
def actuator(tmp_path, runtime_dir):
    """An actuator on the test's directories, to be started; it ends with the test."""
    process = Actuator(runtime_dir, tmp_path / "state", tmp_path / "log")
    yield process
    process.close()


@pytest.fixture
def worker(runtime_dir):
    """A worker at 92 % of its budget, whose state is not published yet."""
    made = FakeWorker(runtime_dir)
    yield made
    made.close()


@pytest.fixture
def published(worker):
    """The worker, once it published its state and takes orders."""
    worker.publish()
    worker.listen()
    return worker
