"""Fixtures for the worker's side of package processes."""

import os
import signal
import threading
from contextlib import contextmanager

import pytest

from mempressure.errors import ProcessDiedError
from tests.support.functions import isolated_functions
from tests.support.waiting import until

MODULE = isolated_functions.__name__


@pytest.fixture
def call(package):
    """Call one of `isolated_functions` in the process of `package`."""
    return lambda name, *args, **kwargs: package.call(MODULE, name, args, kwargs)


@pytest.fixture
def make_call(make_package):
    """Make a package with these options; return a function that calls one of `isolated_functions` in its process."""

    def make(name="json", **options):
        package = make_package(name, **options)

        def call(function, *args, **kwargs):
            return package.call(MODULE, function, args, kwargs)

        call.package = package
        return call

    return make


@pytest.fixture
def doomed_call(call, tmp_path):
    """A call of 30 s that runs in another thread during a `with` block, in which its process is to die."""

    @contextmanager
    def doomed():
        started, failures = tmp_path / "started", []

        def make():
            try:
                call("touch_then_wait", str(started), 30)
            except ProcessDiedError as error:
                failures.append(error)

        caller = threading.Thread(target=make)
        caller.start()
        until(started.exists, "the call to begin")
        yield failures
        caller.join(timeout=30)
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
