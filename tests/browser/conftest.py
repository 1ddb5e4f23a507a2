"""A browser, and what it looks at: the real actuator, and a real gunicorn with the sample whose packages it manages."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.files import publish
from mempressure.state.records import PackageState, WorkerState
from stack.configuration import free_ports
from stack.engines import find_program
from stack.processes import Processes
from stack.system import System, start_sample
from tests.support.servers.actuator_process import Actuator
from tests.support.waiting import until

MIB = 1 << 20
FLAGS = (
    "--no-sandbox",  # it refuses to sandbox for root, and opens nothing but our own page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = "<img src=x onerror=document.title='taken'>\"'&amp;"
"""A name that a worker may publish: it can be printed."""


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright; gone with its driver when the module's tests are.

    Playwright runs an event loop in this thread as long, beside which no other test could start one.
    """
    program = find_program("chromium") or pytest.fail("chromium not found; run: scripts/install-engines chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Open pages in contexts of their own; what they log as errors, or raise, fails the test."""
    contexts, problems = [], []

    def noted(message):
        # That a form was refused, or nobody answered, is shown on the page, and is what the tests are about.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            problems.append(message.text)

    def opened(address, path="/", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", noted)
        page.goto(f"http://{address}{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def directory():
    """A short one: a Unix socket's path has 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="mempressure-"))
    (path / "runtime").mkdir(mode=0o755)
    (path / "state").mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def node(directory):
    """An actuator and the sample, which has pandas and sympy loaded: `address`, `actuator`, `sample`."""
    settings = {
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "runtime"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        "MEMPRESSURE_BUDGET": "512MiB",
        "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "3600",
    }
    actuator = Actuator(directory / "runtime", directory / "state", directory / "actuator.log")
    with Processes(logs=directory / "logs", environ=settings) as processes:
        system = System(free_ports(), directory, processes, {})
        process, ready = start_sample(system, app="shop")
        try:
            actuator.start()
            process.wait_until(lambda: system.healthy("sample", ready))
            for path in ("/report?rows=10", "/derivative?exponent=3"):
                requests.get(system.url("sample") + path, timeout=60).raise_for_status()
            until(lambda: loaded(actuator) >= {"pandas", "sympy"}, "the packages")
            yield SimpleNamespace(address=actuator.address, actuator=actuator, sample=system.url("sample"))
        finally:
            actuator.close()


@pytest.fixture
def withdraw_app(directory):
    """Take back what `publish_app` published."""
    return lambda: _state_file(directory).unlink(missing_ok=True)


@pytest.fixture
def publish_app(directory, withdraw_app):
    """Publish an app that this very process is the only worker of, until the test ends."""
    path = _state_file(directory)

    def published(app, *packages, **options):
        path.parent.mkdir(mode=0o755, exist_ok=True)
        states = [
            PackageState(name=name, mechanism="recycle", source="import", timeout=60.0, loaded=1.0, memory_bytes=MIB)
            for name in packages
        ]
        worker = WorkerState(
            app=app,
            pid=os.getpid(),
            start_ticks=start_ticks(),
            pid_namespace=pid_namespace(),
            started=time.time(),
            sampled=time.time(),
            packages=states,
            **options,
        )
        publish(worker, path)

    yield published
    withdraw_app()


def _state_file(directory):
    return directory / "runtime" / str(os.geteuid()) / f"{os.getpid()}.state"


def loaded(actuator):
    """Return the packages that some worker has loaded."""
    apps = actuator.request("GET", "/api/packages")[2]["data"]["apps"]
    return {package["package"] for app in apps for package in app["packages"] if package["loaded_workers"]}
