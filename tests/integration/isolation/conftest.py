"""Fixtures for package processes that several workers share."""

import pytest

from tests.support.servers.isolated_worker import IsolatedWorker


@pytest.fixture
def start_worker(own_processes):
    """Start a worker of one app; all of a test share their package processes."""
    workers = []

    def start(**options):
        workers.append(IsolatedWorker(**options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def workers(start_worker):
    """Two of them."""
    return start_worker(), start_worker()
