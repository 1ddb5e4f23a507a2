"""`make demo`, as people run it: it proves what it says, and leaves nothing running."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import requests

from stack.engines import ROOT
from tests.support.waiting import until


def processes_of(marker):
    """Return the ids of processes whose environment holds `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in environ:
                found.append(int(entry.name))
    return found


@pytest.fixture
def stack(tmp_path):
    """Start `python -m stack`, with a mark in its environment that its children inherit."""
    mark = f"MEMPRESSURE_TEST_MARK={tmp_path.name}-{os.getpid()}"
    started = []
    # What is killed outright cannot remove its directory; sockets in it need a shorter path than `tmp_path`.
    scratch = tempfile.mkdtemp(prefix="mp-")

    def start(*arguments):
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": scratch, **dict([mark.split("=")])}
        output = (tmp_path / "output").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-m", "stack", *arguments],
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        process.output = tmp_path / "output"
        process.left = lambda: [pid for pid in processes_of(mark) if pid != process.pid]
        started.append((process, output))
        return process

    yield start
    for process, output in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        output.close()
    shutil.rmtree(scratch)


def told_that_it_runs(process):
    """Wait until `up` says that everything runs, and return all that it said."""

    def told():
        text = process.output.read_text()
        assert process.poll() is None, text
        return "Ctrl-C stops everything" in text and text

    return until(told, lambda: f"everything to run, after:\n{process.output.read_text()}", seconds=60)


@pytest.mark.timeout(240)
def test_the_demo_proves_that_the_memory_comes_back_and_no_request_fails(stack, tmp_path, engines):
    figures_file = tmp_path / "demo.json"
    process = stack("demo", "--output", str(figures_file))
    status = process.wait(200)
    told = process.output.read_text()
    assert status == 0, told
    assert "proved:" in told

    figures = json.loads(figures_file.read_text())
    assert figures["used_ratio_before"] >= 0.80
    assert figures["used_ratio_after"] < 0.75
    assert figures["failed_requests"] == 0
    assert figures["requests"] > 1000
    # Where usage climbs slowly, the warning's webhook comes before the crossing of the next threshold.
    assert max(figures["crossed_at"], figures["webhook_at"]) < figures["freed_at"]
    assert figures["reclaimed_bytes"] == sum(row["reclaimed_bytes"] for row in figures["unloads"])
    assert {row["mechanism"] for row in figures["unloads"]} == {"stop", "recycle"}
    stopped = next(row for row in figures["unloads"] if row["mechanism"] == "stop")
    assert (stopped["app"], stopped["package"]) == ("sample", "pandas")
    # A host with pandas holds some 45 MiB, and one or both end, as soon as the first is enough; what was given back is
    # measured, so it cannot be more than was used.
    assert 30 << 20 < stopped["reclaimed_bytes"] < 320 << 20
    assert process.left() == []


@pytest.mark.timeout(120)
def test_ctrl_c_stops_everything_that_up_started_and_nothing_else(stack, engines):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        process = stack("up")
        told = told_that_it_runs(process)
        for part in ("exporter", "actuator", "alertmanager", "prometheus", "sample"):
            assert f"{part} " in told
        _, _, told = told.partition("look at\n")
        pages = dict(re.findall(r"^  (\w+(?: \w+)?) +(http\S+)$", told, re.MULTILINE))
        assert pages.keys() == {"status page", "metrics", "Prometheus", "Alertmanager", "sample"}
        for address in pages.values():
            requests.get(address, timeout=10).raise_for_status()
        assert len(process.left()) >= 5
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.left() == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.timeout(120)
def test_killed_outright_it_leaves_no_process(stack, engines):
    process = stack("up")
    told_that_it_runs(process)
    process.kill()
    process.wait()
    until(lambda: not process.left(), lambda: f"the end of processes {process.left()}", seconds=30)
