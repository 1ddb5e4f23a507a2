"""The spawner: how it starts package processes, that it reaps each of them, and what a fork leaves of it."""

import os
import re
import select
import signal
import sys
import threading

import pytest

from mempressure.errors import ProcessDiedError, ProcessStartError
from mempressure.isolation.process import PackageProcess
from tests.support.forking import in_child
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__

pytestmark = pytest.mark.usefixtures("no_process_left")


def test_a_module_in_the_working_directory_cannot_shadow_what_a_process_starts_with(tmp_path, monkeypatch):
    (tmp_path / "socket.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    process = PackageProcess("json", MODULE)
    assert process.call(MODULE, "nothing") is None
    process.stop()


@pytest.mark.parametrize("executable", ["/no/such/python", "", None])
def test_an_interpreter_that_cannot_be_started_is_named(executable, monkeypatch):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(ProcessStartError, match=re.escape(f"started with {executable!r}")):
        PackageProcess("json", MODULE)


def test_a_process_killed_between_calls_is_reaped_without_any_call(process):
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.ended, "the process's end")
    assert not process.usable


def test_an_end_is_noticed_though_a_process_it_left_holds_the_connection(capfd):
    process = PackageProcess("json", MODULE)
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        process.call(MODULE, "fork_in_c_then_die")
    process.stop()
    os.kill(int(capfd.readouterr().out), signal.SIGKILL)


def test_a_process_outlives_the_thread_that_asked_for_it():
    processes = []
    thread = threading.Thread(target=lambda: processes.append(PackageProcess("json", MODULE)))
    thread.start()
    thread.join()
    assert processes[0].call(MODULE, "pid") == processes[0].pid
    # A process dies within microseconds of its thread; a poll on the process gives it time to.
    descriptor = os.pidfd_open(processes[0].pid)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(300) == []
    os.close(descriptor)
    processes[0].stop()


def test_a_forked_child_has_none_of_the_parents_processes(process):
    def child():
        assert process.ended
        assert not process.usable
        process.kill()
        process.stop()
        other = PackageProcess("json", MODULE)
        assert other.call(MODULE, "pid") == other.pid != process.pid
        other.stop()

    in_child(child)
    assert process.call(MODULE, "pid") == process.pid
