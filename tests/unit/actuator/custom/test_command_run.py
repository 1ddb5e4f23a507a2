import json
import sys
import threading
import time

import pytest

from mempressure_actuator.custom.command_run import KEPT_OUTPUT_BYTES, VARIABLES, run_command, unprotect
from tests.support.waiting import until

CONTENT = dict.fromkeys(VARIABLES, "") | {"app": "shop; touch /tmp/x $(id) `id`\0", "usage": 0.93, "alert": None}


pytestmark = pytest.mark.usefixtures("any_environment")  # the operator's own commands have a small one


@pytest.fixture
def run():
    """Run Python code as a command; `stopping` may be set meanwhile."""

    def ran(code, *arguments, timeout=10.0, content=CONTENT):
        command = [sys.executable, "-S", "-c", code, *map(str, arguments)]
        return run_command(command, content, timeout=timeout, stopping=ran.stopping)

    ran.stopping = threading.Event()
    return ran


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_what_it_writes_cannot_steer_a_terminal(run):
    assert run(r"print('a\x1b[2Jb\nc')").text == "exit status 0: a\N{REPLACEMENT CHARACTER}[2Jb\nc"


def test_the_payload_is_data(run, tmp_path):
    out = tmp_path / "out"
    code = "import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ), sys.argv], open(sys.argv[1], 'w'))"
    assert run(code, out).outcome == "done"
    received, environ, arguments = json.loads(out.read_text())
    assert received == CONTENT
    assert environ["PRESSURE_APP"] == "shop; touch /tmp/x $(id) `id`"
    assert environ["PRESSURE_USAGE"] == "0.93"
    assert not any(name.startswith("MEMPRESSURE") for name in environ)
    assert arguments == ["-c", str(out)]


def test_a_failure_has_its_status_and_output(run):
    result = run("import sys; print('no such cache', file=sys.stderr); sys.exit(3)")
    assert (result.outcome, result.text) == ("failed", "exit status 3: no such cache")
    result = run_command(["/nonexistent"], CONTENT, timeout=1, stopping=run.stopping)
    assert (result.outcome, result.text) == ("failed", "cannot be started: No such file or directory")


def test_a_command_that_does_not_read_its_input_does_not_fail(run):
    assert run("pass", content=CONTENT | {"app": "x" * 50_000}).outcome == "done"


def test_a_hanging_command_is_killed_with_its_process_group(run, tmp_path):
    pids = tmp_path / "pids"
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(child, os.getpid(), file=open(sys.argv[1], 'w'), flush=True)\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    result = run(code, pids, timeout=1.0)
    assert result.outcome == "timeout"
    assert "after 1 s" in result.text
    assert time.monotonic() - began < 5
    for pid in pids.read_text().split():
        until(lambda pid=pid: gone(pid), "the process to be gone")


def test_what_it_leaves_behind_is_killed_and_does_not_keep_it_waiting(run, tmp_path):
    pid = tmp_path / "pid"
    code = (
        "import os, sys, time\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(child, file=open(sys.argv[1], 'w'), flush=True)\n"
        "    os._exit(0)\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    assert run(code, pid).outcome == "done"
    assert time.monotonic() - began < 5
    until(lambda: gone(pid.read_text().strip()), "the child to be gone")


def test_what_it_writes_is_bounded(run):
    result = run("while True: print('x' * 1000)")
    assert (result.outcome, len(result.text) < KEPT_OUTPUT_BYTES + 200) == ("failed", True)
    assert "wrote more than 1048576 bytes" in result.text
    assert len(run("print('x' * 500_000)").text) < KEPT_OUTPUT_BYTES + 200


def test_it_ends_when_the_actuator_stops(run):
    threading.Timer(0.3, run.stopping.set).start()
    began = time.monotonic()
    result = run("import time; time.sleep(60)")
    assert result.text == "killed with its process group: the actuator is stopping"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("before", "after"), [("-900", "0"), ("0", "0"), ("500", "500")])
def test_it_does_not_inherit_the_actuators_protection(proc, before, after):
    path = proc.write("77/oom_score_adj", f"{before}\n")
    unprotect(77, proc=proc.path)
    assert path.read_text().strip() == after
    unprotect(78, proc=proc.path)  # which has ended already


def test_a_command_can_be_killed_by_the_kernel_like_any_other(run):
    result = run("import time; time.sleep(0.2); print(open('/proc/self/oom_score_adj').read())")
    assert int(result.text.rpartition(":")[2]) >= 0
