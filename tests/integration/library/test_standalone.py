"""The control loop inside applications: real processes, a package that is really unloaded, and an actuator."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from mempressure.state.node_reader import read_node
from stack.engines import ROOT
from stack.processes import free_port
from tests.support.servers.actuator_process import Actuator
from tests.support.waiting import until

LEADS = "control loop of this process leads"
FOLLOWS = "control loop of this process follows"
STANDS_BY = "control loop of this process stands by"


class Application:
    """One process of the app "shop", with the control loop in it once it is told so."""

    def __init__(self, name, environ, folder):
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.programs.standalone_process"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environ,
                cwd=ROOT,
                text=True,
                start_new_session=True,
            )
        self.says("ready")

    def text(self):
        return self.log.read_text()

    def says(self, words, *, times=1):
        until(lambda: self.text().count(words) >= times, lambda: f"{words!r} in {self.text()}", seconds=20)

    def do(self, word):
        done = self.text().count(f"done: {word}") + 1
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.says(f"done: {word}", times=done)

    def unloaded(self, package):
        return f"mechanism=stop packages={package} workers=1" in self.text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.process.stdin.close()
        if self.process.poll() is None:
            self.kill()
        # A forked child of it may be left.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def environ(runtime_dir, state_dir, port):
    """A budget that one package above 150 MiB takes past its thresholds, and that two processes without fit into."""
    return os.environ | {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_APP": "shop",
        "MEMPRESSURE_BUDGET": "200MiB",
        "MEMPRESSURE_ACTUATOR": f"127.0.0.1:{port}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }


@pytest.fixture
def start(environ, tmp_path):
    applications = []

    def start(name, **more):
        applications.append(Application(name, environ | more, tmp_path))
        return applications[-1]

    yield start
    for application in applications:
        application.close()


@pytest.fixture
def actuator(runtime_dir, state_dir, tmp_path):
    actuator = Actuator(runtime_dir, state_dir, tmp_path / "actuator.log")
    yield actuator
    actuator.close()


@pytest.fixture
def held(runtime_dir):
    """A function that returns by how many processes the package is held now."""

    def held():
        reading = read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem)))
        workers = reading.apps["shop"].workers if "shop" in reading.apps else ()
        return sum(package.loaded for worker in workers for package in worker.packages)

    return held


def unloaded_by(application, user, package, held):
    """Have `user` load the package, and wait until the loop in `application` has unloaded it."""
    user.do(package)
    until(lambda: application.unloaded(package), application.text, seconds=20)
    until(lambda: held() == 0, "the package to be gone", seconds=20)


def test_one_leads_another_takes_over_and_an_actuator_before_all(start, actuator, port, held):
    first, second = start("first"), start("second")
    first.do("start")
    first.says(LEADS)
    second.do("start")
    second.says(FOLLOWS)
    unloaded_by(first, second, "statistics", held)  # what idles in the process that follows
    assert "action:" not in second.text()

    first.kill()
    second.says(LEADS)
    unloaded_by(second, second, "fractions", held)

    actuator.start(f"--web.listen-address=127.0.0.1:{port}", MEMPRESSURE_HEARTBEAT_INTERVAL="0.2")
    second.says(STANDS_BY)
    second.do("calendar")
    until(lambda: done(actuator) == ["calendar"], actuator.text, seconds=20)
    assert held() == 0
    assert not second.unloaded("calendar")

    actuator.stop(signal.SIGKILL)
    second.says(LEADS, times=2)
    unloaded_by(second, second, "colorsys", held)

    third = start("third")
    third.do("start")
    third.says(FOLLOWS)
    second.do("stop")
    third.says(LEADS)
    unloaded_by(third, third, "sched", held)


def done(actuator):
    actions = [action for cycle in actuator.history() for action in cycle["actions"]]
    return [package for action in actions if action["result"] == "done" for package in action["packages"]]


def test_a_forked_child_takes_part_and_holds_nothing_of_its_parent_s(start, held):
    parent, other = start("parent"), start("other")
    parent.do("start")
    parent.says(LEADS)
    other.do("start")
    other.says(FOLLOWS)
    parent.do("fork")
    parent.process.wait()
    # The child that lives on leads now, or the other: the parent's lock went with the parent.
    until(lambda: parent.text().count(LEADS) + other.text().count(LEADS) == 2, "another leader", seconds=20)
    unloaded_by(other if LEADS in other.text() else parent, other, "statistics", held)


def test_nothing_is_unloaded_where_nobody_started_it_or_unloading_is_off(start, held):
    plain = start("plain")
    off = start("off", LAZY_LOADING_UNLOADING_ENABLE_MEMORY_PRESSURE_UNLOADING="false")
    off.do("start")
    off.says(LEADS)
    plain.do("statistics")
    off.says("memory pressure: level=")  # a turn has looked at it
    until(lambda: held() == 1, "the package to be published")
    assert "action:" not in off.text() + plain.text()
