"""Package processes under load: calls while they are killed and unloaded, callers interrupted and workers forked."""

import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.forking import in_child
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.usefixtures("no_process_left")


def test_a_process_killed_between_calls_fails_no_call(package, isolate):
    square = isolate(functions.square)
    for number in range(20):
        square(0)
        os.kill(package.process_pid, signal.SIGKILL)
        assert square(number) == number * number
    until(lambda: package.process_deaths == 20, "the count of 20 deaths")
    assert package.loads == 21


# One that comes between the making of a socket and the line that keeps it leaves it to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_interruptions_at_any_moment_never_give_a_wrong_answer(package, isolate):
    class Stopped(BaseException):
        pass

    def alarm(number, frame):
        raise Stopped

    square, array = isolate(functions.square), np.arange(100_000.0)
    echo, generator, interrupted = isolate(functions.echo), random.Random(7), 0
    previous = signal.signal(signal.SIGALRM, alarm)
    try:
        for number in range(80):
            square(0)
            try:
                signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-6, 1e-3))
                echo(array * number)
                square(number)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stopped:
                interrupted += 1
            assert square(number) == number * number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 5
    assert package.process_deaths == 0


def test_eight_threads_call_while_another_unloads(package, isolate):
    square, make = isolate(functions.square), isolate(functions.make_array)
    ended = threading.Event()
    wrong, reclaimed, refused = [], [], set()

    def call(seed):
        generator = random.Random(seed)
        number = 0
        while number < 60 or package.unloads < 5:  # whether it is idle just then is up to chance
            number += 1
            try:
                if square(number) != number * number:
                    wrong.append(number)
                if number % 10 == 0 and not np.array_equal(make(50_000 + seed), np.arange(50_000.0 + seed)):
                    wrong.append(number)
            except BaseException as error:  # noqa: BLE001 - any failure counts
                wrong.append(error)
            if ended.wait(generator.choice([0, 0, 0.001, 0.03])):
                return

    def unload():
        while not ended.wait(0.0005):  # without a pause it would keep the callers from running
            held, reason = package.unload()
            if reason is None:
                reclaimed.append(held)
            else:
                refused.add(reason)

    unloader = threading.Thread(target=unload)
    unloader.start()
    with ThreadPoolExecutor(8) as pool:
        wait([pool.submit(call, seed) for seed in range(8)], timeout=60)
        ended.set()
    unloader.join()
    assert wrong == []
    assert len(reclaimed) == package.unloads >= 5
    assert min(reclaimed) > 0
    assert "in use" in refused
    assert refused <= {"in use", "not loaded"}
    assert (package.active_calls, package.process_deaths) == (0, 0)
    package.unload()
    assert package.unload() == (0, "not loaded")


def test_a_hundred_cycles_leak_nothing(package, isolate):
    pid = isolate(functions.pid)
    pid()
    package.unload()
    files, threads, seen = functions.open_files(), threading.active_count(), set()
    for _ in range(100):
        seen.add(pid())
        assert package.unload()[0] > 0
    until(lambda: functions.open_files() <= files, lambda: f"{functions.open_files()} open files to become {files}")
    assert threading.active_count() == threads
    assert psutil.Process().children() == []
    assert (len(seen), package.loads, package.unloads, package.refaults) == (100, 101, 101, 100)
    assert package.process_deaths == 0  # an end that was asked for is none, however quick


def test_forks_during_calls_of_other_threads(package, isolate):
    square, array, echo = isolate(functions.square), np.arange(50_000.0), isolate(functions.echo)
    ended, wrong = threading.Event(), []

    def call():
        number = 0
        while not ended.is_set():
            number += 1
            try:
                if square(number) != number * number or not np.array_equal(echo(array), array):
                    wrong.append(number)
            except BaseException as error:  # noqa: BLE001 - any failure counts
                wrong.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()

    def child():
        assert square(5) == 25
        assert package.loads == 1
        package.close()

    for _ in range(10):
        in_child(child)
    ended.set()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert package.loads == 1


def test_forks_while_processes_start_inherit_nothing_of_them(package, isolate):
    pid = isolate(functions.pid)
    before, failures = len(kept()), []

    def start_and_stop():
        for _ in range(10):
            if pid() == os.getpid():
                failures.append("ran here")
            package.unload()

    def child():
        assert len(kept()) <= before, kept()

    thread = threading.Thread(target=start_and_stop)
    thread.start()
    children = 0
    while thread.is_alive():
        in_child(child)
        children += 1
    thread.join()
    assert failures == []
    assert children > 10


def kept():
    """Return what this process has open that would keep a process, a lock or a call waiting."""
    with open("/proc/net/unix") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    listening = {f"socket:[{row[6]}]" for row in rows if int(row[3], 16) & 0x10000}
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if link in listening or link.endswith(("/life", "/users", "/start", "/lock"))]


def test_a_daemonic_worker_may_have_package_processes():
    code = f"""
import multiprocessing, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.support.functions import isolated_functions as functions
def work():
    print(functions.factorial(5), multiprocessing.current_process().daemon, flush=True)
if __name__ == "__main__":
    functions.factorial(3)
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start(); process.join()
"""
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (program.returncode, program.stdout, program.stderr) == (0, "120 True\n", "")
