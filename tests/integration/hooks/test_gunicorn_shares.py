"""`mempressure run --share` around gunicorn: workers share what is loaded, or run as before."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from mempressure.measure.process import process_memory
from tests.support.waiting import until

DEADLINE = 60.0
MIB = 1 << 20
SERVICE = """
import gc
import json
import os
import sys

import sympy


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    own = sys.modules[__name__]
    return [json.dumps({
        "pid": os.getpid(),
        "frozen": gc.get_freeze_count(),
        "connection": getattr(own, "INODE", None),
        "thread": getattr(own, "THREAD", None) is not None and own.THREAD.is_alive(),
        "variable": os.environ.get("SET_IN_WORKER"),
        "hooks": os.environ.get("HOOKS"),
    }).encode()]
"""
SOCKET = """
import socket
CONNECTION = socket.socketpair()
INODE = os.readlink(f"/proc/self/fd/{CONNECTION[0].fileno()}")
"""
THREAD = """
import threading
THREAD = threading.Thread(target=threading.Event().wait, name="refresher", daemon=True)
THREAD.start()
"""
VARIABLE = """
assert os.environ["SET_IN_WORKER"]
"""
CONFIGURATION = """
import os


def post_fork(server, worker):
    os.environ["SET_IN_WORKER"] = str(os.getpid())
    os.environ["HOOKS"] = os.environ.get("HOOKS", "") + " post_fork"


def pre_fork(server, worker):
    os.environ["HOOKS"] = "pre_fork"


def on_starting(server):
    os.environ["HOOKS"] = "on_starting"
"""


def answers(shop):
    """Ask until both workers have answered; return what each said, by its process id."""
    found = {}

    def both():

        answer = json.loads(shop.get())
        found[answer["pid"]] = answer
        return {worker.pid for worker in shop.serving()} <= found.keys()

    until(both, "an answer of each worker", seconds=DEADLINE)
    return found


def private(shop):
    return [process_memory(worker.pid).private for worker in shop.serving()]


def test_workers_share_what_is_loaded_before_the_fork_and_so_do_their_successors(shop):
    shop.write(service=SERVICE)
    shop.start(shop.gunicorn(), "--manage")
    alone = min(private(shop))
    shop.process.stop()
    shop.start(shop.gunicorn(), "--share")
    answered = answers(shop)
    assert all(answer["frozen"] > 10_000 for answer in answered.values())
    assert max(private(shop)) < alone / 2
    successor = shop.replaced(shop.serving()[0])
    assert process_memory(successor.pid).private < alone / 2
    assert answers(shop)[successor.pid]["frozen"] > 10_000
    assert shop.said == []


def test_the_hooks_of_the_application_itself_are_called_as_ever(shop):
    shop.write(service=SERVICE, gunicorn_conf=CONFIGURATION)
    shop.start(shop.gunicorn("--config", shop.folder / "gunicorn.conf.py"), "--share")
    for pid, answer in answers(shop).items():
        assert (answer["hooks"], answer["variable"]) == ("pre_fork post_fork", str(pid))
        assert answer["frozen"] > 10_000
    assert shop.said == []


def test_its_own_preload_stays_where_it_is_not_shared(shop):
    shop.write(service=SERVICE + THREAD)
    shop.start(shop.gunicorn("--preload"), "--share")
    [said] = shop.said
    assert said.endswith("while the application was loaded before the fork, a thread was started, 'refresher'")
    for answer in answers(shop).values():
        assert (answer["thread"], answer["frozen"]) == (False, 0)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (SOCKET, "while the application was loaded before the fork, a socket was opened, descriptor"),
        (THREAD, "while the application was loaded before the fork, a thread was started, 'refresher'"),
        (VARIABLE, "the application cannot be loaded before the fork: KeyError: 'SET_IN_WORKER'"),
    ],
    ids=["socket", "thread", "variable"],
)
def test_what_cannot_be_shared_runs_as_before_in_the_same_process_and_it_is_said(shop, more, reason):
    shop.write(service=SERVICE + more, gunicorn_conf=CONFIGURATION)
    shop.start(shop.gunicorn("--config", shop.folder / "gunicorn.conf.py"), "--share")
    told = [line for line in shop.said if reason in line]
    assert told == shop.said[:1] == shop.said
    answered = answers(shop)
    assert {worker.supervisor_pid for worker in shop.serving()} == {shop.process.pid}
    assert all(answer["frozen"] == 0 for answer in answered.values())
    if more is SOCKET:
        assert len({answer["connection"] for answer in answered.values()}) == 2  # each has its own
        arbiter = Path(f"/proc/{shop.process.pid}/fd")
        held = {os.readlink(each) for each in arbiter.iterdir()}
        assert held.isdisjoint(answer["connection"] for answer in answered.values())
    if more is THREAD:
        assert all(answer["thread"] for answer in answered.values())
    successor = shop.replaced(shop.serving()[0])
    assert answers(shop)[successor.pid]["frozen"] == 0


def test_an_application_that_cannot_be_loaded_at_all_fails_as_without(shop):
    shop.write(service="raise RuntimeError('no such shop')\n")
    statuses = []
    for options in ([], ["--manage"], ["--share"]):
        # Of two workers that fail at once, the second may end gunicorn 27 in the middle of its own halt, with status 1.
        shop.start(shop.gunicorn("--workers", "1"), *options, workers=0)
        until(lambda: not shop.process.running, "its end", seconds=DEADLINE)
        statuses.append(shop.process.stop())
    assert statuses[0] != 0
    assert statuses == [statuses[0]] * 3
    assert "cannot be loaded before the fork: RuntimeError: no such shop" in shop.said[0]


@pytest.mark.parametrize(
    ("options", "configuration", "reason"),
    [
        (["--reload"], "", "gunicorn runs with --reload"),
        ([], "preload_app = False", "preload_app = False is set in gunicorn's configuration"),
    ],
    ids=["reload", "preload_app"],
)
def test_what_an_application_forbids_is_refused_by_name(shop, options, configuration, reason):
    shop.write(service=SERVICE, gunicorn_conf=configuration)
    shop.start(shop.gunicorn("--config", shop.folder / "gunicorn.conf.py", *options), "--share")
    assert len(shop.said) == 1
    assert f"workers do not share their memory: {reason}" in shop.said[0]
    assert all(answer["frozen"] == 0 for answer in answers(shop).values())


def test_a_configuration_file_that_names_mempressure_does_the_same_as_the_command_line(shop):
    own = "import mempressure.gunicorn\nmempressure.gunicorn.share()\n"
    shop.write(service=SERVICE, gunicorn_conf=own + CONFIGURATION)
    command = shop.gunicorn("--config", shop.folder / "gunicorn.conf.py")
    for options in ([], ["--manage"]):
        shop.start(command, *options)
        for pid, answer in answers(shop).items():
            assert (answer["hooks"], answer["variable"]) == ("pre_fork post_fork", str(pid))
            assert answer["frozen"] > 10_000
        shop.replaced(shop.serving()[0])
        shop.process.stop()


def test_a_reload_keeps_workers_sharing_and_says_what_it_does_not_do(shop):
    shop.write(service=SERVICE)
    shop.start(shop.gunicorn(), "--share")
    before = {worker.pid for worker in shop.serving()}
    os.kill(shop.process.pid, signal.SIGHUP)

    def others():
        workers = shop.serving()
        return len(workers) == 2 and before.isdisjoint({worker.pid for worker in workers})

    until(others, "two other workers", seconds=DEADLINE)
    assert all(answer["frozen"] > 10_000 for answer in answers(shop).values())
    assert shop.said == ["mempressure: SIGHUP loads no new code where workers share it; send SIGUSR2, or restart"]


def test_a_successor_of_the_arbiter_shares_as_well_and_tries_anew(shop):
    shop.write(service=SERVICE + THREAD)
    shop.start(shop.gunicorn(), "--share")
    assert "a thread was started" in shop.said[0]
    shop.write(service=SERVICE)
    old = shop.process.pid
    os.kill(old, signal.SIGUSR2)

    def arbiter():
        found = {worker.supervisor_pid for worker in shop.serving()} - {old}
        return found if len(shop.serving()) == 4 else None

    [new] = until(arbiter, "the new arbiter's workers", seconds=DEADLINE)
    os.kill(old, signal.SIGTERM)
    until(lambda: {worker.supervisor_pid for worker in shop.serving()} == {new}, "the old to be gone", seconds=DEADLINE)
    try:
        assert all(answer["frozen"] > 10_000 for answer in answers(shop).values())
        assert len(shop.said) == 1
    finally:
        os.kill(new, signal.SIGTERM)
        until(lambda: not psutil.pid_exists(new), "its end", seconds=DEADLINE)
