"""The operator's commands as real processes, on a real application under gunicorn, with and without an actuator."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.node_reader import read_node
from stack.processes import Processes, free_port
from tests.support.servers.actuator_process import Actuator
from tests.support.servers.terminal import Terminal
from tests.support.waiting import until

APPLICATION = """
from mempressure import get_lazy_loader
from functions import total

loader = get_lazy_loader()
loader.manage("decimal", keep_loaded=True)
import decimal


def application(environ, start_response):
    body = str(total([1, 2])).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
FUNCTIONS = """
from mempressure import get_lazy_loader


@get_lazy_loader().isolated("statistics", timeout=0.0)
def total(numbers):
    import statistics
    return statistics.fsum(numbers)
"""


@pytest.fixture
def environment(tmp_path, runtime_dir):
    return {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "state"),
        "MEMPRESSURE_CACHE_DIR": str(tmp_path / "cache"),
        "MEMPRESSURE_NODE": "n1",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "COLUMNS": "80",
    }


@pytest.fixture
def shop(tmp_path, environment, runtime_dir):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "service.py").write_text(APPLICATION)
    (folder / "functions.py").write_text(FUNCTIONS)
    port = free_port()
    with Processes(logs=tmp_path / "logs", environ=environment | {"MEMPRESSURE_APP": "shop"}) as processes:
        command = [sys.executable, "-m", "gunicorn", "service:application", "--no-control-socket"]
        server = processes.start("shop", [*command, "--chdir", str(folder), "--bind", f"127.0.0.1:{port}"])

        def holds():
            apps = read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem))).apps
            workers = [worker for app in apps.values() for worker in app.workers if worker.serving]
            return any(
                package.loaded for worker in workers for package in worker.packages if package.mechanism == "stop"
            )

        def answers():
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                    connection.request("GET", "/")
                    return connection.getresponse().read() == b"3.0" and holds()
            except OSError:
                return False

        server.wait_until(answers)
        yield


@pytest.fixture
def actuator(tmp_path, runtime_dir, environment):
    process = Actuator(runtime_dir, tmp_path / "state", tmp_path / "actuator.log")
    process.start()
    environment["MEMPRESSURE_ACTUATOR"] = process.address
    yield process
    process.close()


@pytest.fixture
def mempressure(environment):
    environment.setdefault("MEMPRESSURE_ACTUATOR", f"127.0.0.1:{free_port()}")

    def run(*arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", "mempressure", *arguments],
            env={**os.environ, **environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_an_operator_looks_unloads_sets_and_looks_back(actuator, shop, mempressure):
    assert mempressure("status").stdout.startswith(f"n1: as reported by the actuator at http://{actuator.address}\n")
    (app,) = json.loads(mempressure("packages", "--json").stdout)["apps"]
    assert {row["package"]: row["loaded_workers"] for row in app["packages"]} == {"decimal": 1, "statistics": 1}

    done = mempressure("unload", "statistics")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shop: statistics was unloaded by stop in 1 worker, ")
    again = mempressure("unload", "statistics", "--json")
    assert (again.returncode, json.loads(again.stdout)["results"][0]["skipped_reason"]) == (1, "is not loaded")
    history = mempressure("history", "--limit", "1", "--kind", "acted")
    assert history.returncode == 0
    assert "stop statistics in shop: done in 1 worker" in history.stdout
    assert json.loads(mempressure("history", "--json").stdout)["total_cycles"] >= 1

    done = mempressure("thresholds", "set", "emergency=0.97", "warning=0.5")
    assert (done.returncode, done.stderr) == (0, "")
    held = json.loads(mempressure("thresholds", "get", "--json").stdout)["thresholds"]
    assert held == {"warning": 0.5, "unload_packages": 0.8, "aggressive_unload": 0.85, "emergency": 0.97}
    rows = json.loads(mempressure("status", "--json").stdout)["settings"]["settings"]
    assert {"name": "emergency", "value": "0.97", "origin": "set through the API"} in rows


def test_an_exit_code_tells_of_an_alert(actuator, publish_worker, mempressure):
    """An app at 92 % of its budget, with thresholds above that and below; the host is below the upper ones."""
    budget = {"budget_bytes": 100 << 20, "proportional_bytes": float(92 << 20)}
    own = {"start_ticks": start_ticks(), "pid_namespace": pid_namespace()}
    publish_worker(app="shop", pid=os.getpid(), **own, **budget, sampled=time.time())
    high = ("warning=0.98", "unload_packages=0.985", "aggressive_unload=0.99", "emergency=0.995")
    for low, alerts in (("warning=0.98", []), ("warning=0.9", ["warning"])):
        assert mempressure("thresholds", "set", *high, low).returncode == 0
        summary = json.loads(mempressure("status", "--json").stdout)["pressure"]
        assert [alert["level"] for alert in summary["current_alerts"] if alert["app"] == "shop"] == alerts
        host = summary["system_memory"]["percent"]
        assert host < 90, f"this machine uses {host} % of its memory: too much to tell"
        for more in ((), ("--json",)):
            assert mempressure("status", "--exit-code", *more).returncode == len(alerts)
        assert mempressure("status").returncode == 0


REFUSED = [
    (("unload", "nothing"), 3, "no worker of app here tracks 'nothing'; known are decimal, statistics"),
    (("unload", "statistics", "--app", "other"), 3, "no app 'other' has workers here; known are shop"),
    (("unload", "../gc"), 3, "there is no such path"),
    (("thresholds", "set", "warning=0.99"), 2, "threshold unload_packages=0.8 must be above warning=0.99"),
    (("thresholds", "set", "warning=nan"), 2, "'warning=nan' cannot be used; send a ratio above 0"),
    (("thresholds", "set", "danger=0.9"), 2, "'danger=0.9' is no threshold"),
    (("thresholds", "set"), 2, "send such as warning=0.6"),
    (("thresholds", "get", "warning=0.6"), 2, "send set to change something"),
    (("history", "--limit", "0"), 2, "'0' cannot be used; send a whole number from 1 to 1000"),
    (("status", "--watch", "0"), 2, "'0' cannot be used; send seconds from 0.1 to 86400"),
    (("unload", "statistics", "--token-file", "/nonexistent"), 2, "/nonexistent: No such file or directory"),
    (
        ("unload", "statistics", "--token-file", "/proc/self/environ"),
        2,
        "it is what the actuator's token file holds; send --token-file",
    ),
    (("unload", "statistics", "--token-file", "/proc/sys/kernel/random/uuid"), 5, "the token is wrong"),
]


def test_what_cannot_be_done_is_told_in_a_line(actuator, shop, mempressure):
    for arguments, status, message in REFUSED:
        done = mempressure(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), arguments
        assert message in done.stderr
        assert done.stderr.startswith("mempressure: error: ")
        assert done.stderr.count("\n") == 1


def test_without_an_actuator_the_machine_is_read(shop, mempressure, environment):
    here = f"n1: no actuator answers at http://{environment['MEMPRESSURE_ACTUATOR']}, so this machine was read\n"
    for command in ("status", "packages"):
        done = mempressure(command)
        assert (done.returncode, done.stderr) == (0, "")
        assert " ".join(done.stdout.split()).startswith(" ".join(here.split()))
        assert "statistics" in done.stdout
    answer = json.loads(mempressure("status", "--json").stdout)
    assert answer["answered_by_actuator"] is False
    assert answer["pressure"]["system_memory"]["total"] > 0
    assert mempressure("thresholds", "get").stdout.startswith("No actuator answers at ")


@pytest.mark.parametrize(
    "arguments",
    [("unload", "statistics"), ("thresholds", "set", "warning=0.5"), ("history",)],
    ids=lambda words: words[0],
)
def test_without_an_actuator_nothing_is_changed_and_the_remedy_is_named(mempressure, arguments):
    done = mempressure(*arguments)
    assert (done.returncode, done.stdout) == (4, "")
    assert "start it with mempressure-actuator, or, if it is elsewhere, set MEMPRESSURE_ACTUATOR" in done.stderr


def test_another_machine_is_not_mistaken_for_this_one(mempressure):
    done = mempressure("status", "--actuator", "host.invalid:1")
    assert (done.returncode, done.stdout) == (4, "")
    assert "no actuator answers at http://host.invalid:1" in done.stderr


def test_the_token_is_asked_for_on_a_terminal(actuator, shop, environment, tmp_path):
    token = actuator.token()
    elsewhere = {"MEMPRESSURE_STATE_DIR": str(tmp_path / "elsewhere")}
    command = [sys.executable, "-m", "mempressure", "unload", "statistics"]
    terminal = Terminal(command, os.environ | environment | elsewhere)  # which getpass opens
    terminal.read_until(b"): ")
    terminal.type(token.encode() + b"\n")
    assert terminal.wait() == 0, terminal.shown
    assert b"was unloaded by stop" in terminal.shown
    assert token.encode() not in terminal.shown


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_watching_goes_on_until_it_is_interrupted(environment, mempressure, more):
    with subprocess.Popen(
        [sys.executable, "-m", "mempressure", "status", "--watch", "0.1", *more],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 -- no thread here
    ) as process:
        looks = 0
        while looks < 3:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            looks += line.startswith("{") if more else line.startswith("n1: ")
            assert not more or json.loads(line)["node"] == "n1"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")


def test_watching_on_a_terminal_leaves_it_as_it_was(environment, mempressure):
    command = [sys.executable, "-m", "mempressure", "status", "--watch", "0.1"]
    terminal = Terminal(command, os.environ | environment | {"TERM": "xterm"})
    terminal.read_until(b"unload_packages", times=2)
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.wait() == 130, terminal.shown
    assert terminal.shown.index(b"\x1b[?1049h") < terminal.shown.rindex(b"\x1b[?1049l")
    assert b"Traceback" not in terminal.shown


def test_a_reader_that_had_enough(environment, mempressure):
    command = f"{sys.executable} -m mempressure status --watch 0.1 --json | head -1"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert until(lambda: done.stdout.count("\n") == 1, "the line")
