import os
import time

import pytest

from mempressure.config.configuration import load_configuration
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state import node_reader
from mempressure.state.app_workers import AppWorkers
from mempressure.state.node import AppReading, NodeReading


@pytest.fixture
def app_workers(runtime_dir):
    def make(baseline):
        environ = {"MEMPRESSURE_APP": "shop", "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir)}
        return AppWorkers(load_configuration(environ=environ), baseline=baseline)

    return make


@pytest.mark.parametrize(
    ("baseline", "host", "app", "room"),
    [
        (80.0, 100, 100, True),
        (81.0, 100, 500, False),
        (81.0, 500, 100, False),
        (80.0, 100, None, True),
        (-1.0, 500, 500, False),  # the memory of a fresh worker is unknown
    ],
)
def test_one_worker_more_must_fit_with_a_quarter_to_spare(app_workers, monkeypatch, baseline, host, app, room):
    memory = None if app is None else MemoryReading(1000, app)
    apps = {"shop": AppReading("shop", 0, None, (), memory)}
    monkeypatch.setattr(node_reader, "read_node", lambda *_, **__: NodeReading(0.0, MemoryReading(1000, host), apps))
    assert app_workers(baseline).has_room() is room


def test_the_apps_workers_are_found_in_the_runtime_directory(app_workers, publish_worker):
    publish_worker(pid=os.getpid(), pid_namespace="another", sampled=time.time())
    assert [worker.pid for worker in app_workers(1.0).workers()] == [os.getpid()]


def test_what_cannot_be_read_is_no_sibling_and_no_room(app_workers, monkeypatch, caplog):
    def unreadable(*_, **__):
        raise OSError("no /proc")

    monkeypatch.setattr(node_reader, "read_node", unreadable)
    assert (app_workers(1.0).workers(), app_workers(1.0).has_room()) == ([], False)
    assert "no /proc" in caplog.text
