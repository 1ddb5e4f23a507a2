"""A gunicorn service with a resident: let go under pressure by the actuator, when idle by its worker, loaded again."""

import http.client
import sys
from contextlib import closing

import pytest

from stack.engines import ROOT
from stack.processes import free_port
from tests.support.servers.workers import Workers
from tests.support.waiting import until

SIZE = 64 << 20
BUDGET = "97MiB"
"""Of which the worker and its arbiter take a quarter, and with the resident nine tenths."""


class Service(Workers):
    """The sample under gunicorn with one worker."""

    def start(self, processes, *, keep_loaded):
        self.port = free_port()
        program = [sys.executable, "-m", "gunicorn", "tests.support.programs.resident_sample:app"]
        options = ["--no-control-socket", "--chdir", str(ROOT), "--bind", f"127.0.0.1:{self.port}", "--threads", "4"]
        environ = self.environ(SAMPLE_KEEP_LOADED=str(keep_loaded).lower(), MEMPRESSURE_BUDGET=BUDGET)
        self.process = processes.start("service", [*program, *options], environ=environ)
        self.process.wait_until(lambda: len(self.serving()) == 1, seconds=60)

    def get(self, path):
        """Return the two numbers that are answered: the worker's pid, and a size."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            return tuple(map(int, connection.getresponse().read().split()))

    def resident(self, name):
        """Return the state of a resident as the worker published it last."""
        (worker,) = self.all()
        return next(package for package in worker.packages if package.name == name)

    def loaded(self, name):
        return bool(self.resident(name).loaded)


@pytest.fixture
def service(processes, runtime_dir):
    """A function that starts the service; returns it."""
    service = Service(runtime_dir, "shop")

    def start(*, keep_loaded):
        service.start(processes, keep_loaded=keep_loaded)
        return service

    return start


def test_under_pressure_the_actuator_has_it_let_go_and_the_next_call_loads_it_again(service, actuator):
    shop = service(keep_loaded=True)  # so that idle alone it stays
    actuator.start(MEMPRESSURE_HEARTBEAT_INTERVAL="0.1", MEMPRESSURE_RECYCLE="never")
    pid, size = shop.get("/table")
    assert size == SIZE
    until(lambda: shop.loaded("shop.table"), "the load to be published")
    assert 0.85 < shop.app.memory.usage < 1, "strategy high, which overrides keep_loaded"
    assert shop.resident("shop.table").memory_bytes == pytest.approx(SIZE, rel=0.1)

    until(lambda: not shop.loaded("shop.table"), lambda: f"its release: {actuator.text()}", seconds=30)
    until(lambda: outcomes(actuator)[:1] == ["relieved"], lambda: f"relief in {actuator.history()}", seconds=20)
    (action,) = [each for cycle in actuator.history() for each in cycle["actions"] if each["mechanism"] == "release"]
    assert (action["result"], action["packages"], action["workers"]) == ("done", ["shop.table"], 1)
    assert action["reclaimed_bytes"] == pytest.approx(SIZE, rel=0.1)
    assert shop.app.memory.usage < 0.5
    state = shop.resident("shop.table")
    assert (state.source, state.mechanism, state.unloads) == ("resident", "release", 1)
    reclaimed = actuator.metric('mempressure_actuator_reclaimed_bytes_total{mechanism="release"}')
    assert reclaimed == action["reclaimed_bytes"]

    assert shop.get("/table") == (pid, SIZE)
    until(lambda: shop.resident("shop.table").loads == 2, "the second load to be published")


def test_a_request_has_it_let_go_by_name(service, actuator):
    shop = service(keep_loaded=True)
    shop.get("/table")
    actuator.start(MEMPRESSURE_RECYCLE="never", LAZY_LOADING_UNLOADING_ENABLE_MEMORY_PRESSURE_UNLOADING="false")
    until(lambda: shop.loaded("shop.table"), "the load to be published")
    _, _, answer = actuator.request("POST", "/api/packages/shop.table/unload", {"force": True})
    (result,) = answer["data"]["results"]
    assert (result["mechanism"], result["workers"], result["errors"]) == ("release", 1, [])
    assert result["reclaimed_bytes"] == pytest.approx(SIZE, rel=0.1)
    _, _, answer = actuator.request("GET", "/api/packages")
    packages = {package["package"]: package for package in answer["data"]["apps"][0]["packages"]}
    table = packages["shop.table"]
    assert (table["source"], table["mechanism"], table["loaded_workers"]) == ("resident", "release", 0)


def test_what_is_idle_its_worker_lets_go_by_itself(service):
    shop = service(keep_loaded=False)
    pid, _ = shop.get("/table")
    for number in range(8):
        shop.get(f"/block/{number}")
    until(lambda: shop.loaded("shop.table") and shop.loaded("shop.blocks"), "the loads to be published")
    until(
        lambda: not shop.loaded("shop.table") and not shop.loaded("shop.blocks"),
        lambda: f"both to be let go: {shop.resident('shop.table')} {shop.resident('shop.blocks')}",
        seconds=20,
    )
    assert shop.resident("shop.table").reclaimed_bytes == pytest.approx(SIZE, rel=0.1)
    assert shop.get("/table") == (pid, SIZE)


def outcomes(actuator):
    return [cycle["outcome"] for cycle in actuator.history() if cycle["outcome"] != "skipped"]
