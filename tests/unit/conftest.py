"""Fixtures for the modules that a package process is made of."""

import os
import signal
import threading
from contextlib import contextmanager

import pytest

from mempressure.errors import ProcessDiedError
from mempressure.isolation.package import IsolatedPackage
from tests.support.functions import isolated_functions
from tests.support.waiting import until


@pytest.fixture
def process():
    """A package process of "json"; it is stopped in the end."""
    package = IsolatedPackage("json", processes=1)
    yield package
    package.close()


@pytest.fixture
def doomed_call(process, tmp_path):
    """A call of 30 s that runs in another thread during a `with` block, in which its process is to die."""

    @contextmanager
    def doomed():
        started, failures = tmp_path / "started", []

        def call():
            try:
                process.call(isolated_functions.__name__, "touch_then_wait", (str(started), 30))
            except ProcessDiedError as error:
                failures.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        until(started.exists, "the call to begin")
        yield
        caller.join(timeout=5)
        assert len(failures) == 1

    return doomed


@pytest.fixture
def signal_after():
    """Send this process a signal from another thread once a file exists; returns the thread."""
    # A shell's background jobs inherit SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(path, number):
        def send():
            until(path.exists, "the call to begin")
            os.kill(os.getpid(), number)

        sender = threading.Thread(target=send)
        sender.start()
        return sender

    yield start
    signal.signal(signal.SIGINT, before)
