import os
import signal
import subprocess
import sys
import time

import pytest

from mempressure_actuator.custom.definition import ProcessSignal
from mempressure_actuator.custom.signalling import send_signal


@pytest.fixture
def target():
    """A process that is ended with the test."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def signalled(tmp_path):
    """Write a PID file and have the process that it names signalled."""

    def send(text, *, name="TERM", mode=0o644, age=0.0):
        path = tmp_path / "pid"
        path.write_text(str(text))
        path.chmod(mode)
        os.utime(path, (time.time() - age, time.time() - age))
        return send_signal(ProcessSignal(pid_file=str(path), name=name))

    return send


def test_the_process_that_the_file_names_gets_it(signalled, target):
    result = signalled(f"{target.pid}\n", name="USR1")
    assert (result.outcome, result.text) == ("done", f"SIGUSR1 sent to process {target.pid}")
    assert target.wait(5) == -signal.SIGUSR1


def test_a_process_that_is_younger_than_the_file_is_another_one(signalled, target):
    result = signalled(target.pid, age=3600)
    assert result.outcome == "failed"
    assert f"is older than process {target.pid}, which has reused the pid" in result.text
    assert target.poll() is None


@pytest.mark.parametrize("text", ["", "abc", "1", "0", "-5", "12 13", "99999999999", "own"])
def test_what_may_not_be_signalled_is_refused(signalled, text):
    result = signalled(os.getpid() if text == "own" else text)
    assert result.outcome == "failed"
    assert "is not the pid of a process that may be signalled" in result.text


def test_a_file_that_others_can_write_to_is_refused(signalled, target):
    assert "only its owner can write to" in signalled(target.pid, mode=0o666).text
    assert target.poll() is None


def test_a_link_is_refused(tmp_path, target):
    (tmp_path / "real").write_text(str(target.pid))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "Too many levels" in send_signal(ProcessSignal(pid_file=str(tmp_path / "link"), name="TERM")).text


def test_a_process_that_is_gone(signalled, target):
    target.kill()
    target.wait()
    assert "which is gone" in signalled(target.pid).text
    assert "No such file" in send_signal(ProcessSignal(pid_file="/nonexistent/pid", name="TERM")).text


def test_a_users_file_may_name_their_own_processes_only(tmp_path, target):
    if os.geteuid() != 0:
        pytest.skip("gives files away: needs root")
    path = tmp_path / "pid"
    path.write_text(str(target.pid))
    os.chown(path, 65534, -1)
    assert "belongs to uid 65534" in send_signal(ProcessSignal(pid_file=str(path), name="TERM")).text
    assert target.poll() is None
