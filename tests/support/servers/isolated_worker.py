"""Workers of one app with package processes, as real processes that a test drives."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading

import psutil

from stack.engines import ROOT

PROGRAM = "tests.support.programs.isolated_worker"


class IsolatedWorker:
    """A process that evaluates expressions; see `tests.support.programs.isolated_worker`.

    Args:
        environ: variables beside those of this process.
        before: a command that it is started by, which takes its command line as arguments.
    """

    def __init__(self, *, environ=None, before=(), **options):
        self.process = subprocess.Popen(
            [*before, sys.executable, *options.pop("flags", ()), "-m", PROGRAM],
            cwd=options.pop("cwd", ROOT),
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self._lock = threading.Lock()

    @property
    def pid(self):
        return self.process.pid

    def __call__(self, expression):
        """Return the value of an expression; fail where it raises."""
        self.send(expression)
        return self.receive()

    def failure(self, expression):
        """Return the name and the text of what an expression raises."""
        self.send(expression)
        kind, text = self._answer()
        assert kind != "ok", f"{expression} gave {text!r}"
        return kind, text

    def send(self, expression):
        self.process.stdin.write(json.dumps(expression) + "\n")
        self.process.stdin.flush()

    def receive(self):
        kind, value = self._answer()
        if kind != "ok":
            raise AssertionError(f"{kind}: {value}")
        return value

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the worker ended with status {self.process.wait()}")
        return json.loads(line)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """End it in an orderly way, and return its status."""
        self.process.stdin.close()
        return self.process.wait(timeout=60)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        with self.process:
            self.process.kill()


def ended(pids, *, seconds):
    """Return those of these processes that have ended after so many seconds, zombies included."""
    deadline_poll = select.poll()
    waiting = {}
    gone = set()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            gone.add(pid)
            continue
        waiting[descriptor] = pid
        deadline_poll.register(descriptor, select.POLLIN)
    try:
        while waiting:
            found = deadline_poll.poll(seconds * 1000)
            if not found:
                break
            for descriptor, _ in found:
                deadline_poll.unregister(descriptor)
                gone.add(waiting.pop(descriptor))
                os.close(descriptor)
    finally:
        for descriptor in waiting:
            os.close(descriptor)
    return gone


def lives(pid):
    """Return whether a process lives, and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
