"""Everything at once, until Ctrl-C: with a load that works the sample and lets it fall idle, in turns."""

import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import requests

from app.load import Load
from stack.configuration import USUAL, slack_url_file, usual_ports
from stack.engines import ROOT, Engines, EnginesMissingError, find_engines
from stack.observation import Observer
from stack.story import Story
from stack.system import System, run_system

BUSY_SECONDS = 40.0
IDLE_SECONDS = 50.0
LOGS = ROOT / "build" / "logs" / "up"


def run_up() -> int:
    """Run until interrupted; return 1 if a part ended by itself."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    engines = _engines()
    environ = {} if engines else {"MEMPRESSURE_HEARTBEAT_INTERVAL": "1"}
    slack = slack_url_file()
    print("starting")
    with run_system(
        usual_ports(), engines=engines, logs=LOGS, environ=environ, slack_url_file=slack, say=lambda s: print("  " + s)
    ) as system:
        _print_what_to_see(system, slack_configured=slack is not None)
        status = _run(system, stopping)
    print("stopped")
    return status


def _engines() -> Engines | None:
    try:
        return find_engines()
    except EnginesMissingError as error:
        print(f"{error}; running without them: the actuator evaluates the thresholds itself")
        return None


def _print_what_to_see(system: System, *, slack_configured: bool) -> None:
    token, pages = system.directory / "state" / "token", _pages(system)
    if taken := [str(usual) for name, usual in USUAL.items() if getattr(system.ports, name) != usual]:
        print(f"in use here, so that others stand in for them: the ports {', '.join(taken)}")
    print("\nlook at")
    for what, address in pages.items():
        print(f"  {what:13} {address}")
    if not slack_configured:
        print("  Slack         not configured: SLACK_URL_FILE names a file with its webhook's address")
    print(f"  logs          {LOGS.relative_to(ROOT)}/")
    print("\ntry")
    command, actuator = ".venv/bin/python -m mempressure", f"--actuator {system.url('actuator')}"
    print(f"  {command} status {actuator}")
    print(f"  {command} unload pandas --force {actuator} --token-file {token}")
    print("\nCtrl-C stops everything.\n", flush=True)


def _pages(system: System) -> dict[str, str]:
    """Return what a person can look at in a browser; without the engines less."""
    pages = {"status page": system.url("actuator") + "/", "metrics": system.url("exporter") + "/metrics"}
    if "prometheus" in system.running:
        # Their roots: Debian's Prometheus has its pages under /classic, and its Alertmanager only one that says so.
        pages |= {"Prometheus": system.url("prometheus") + "/", "Alertmanager": system.url("alertmanager") + "/"}
    return pages | {"sample": system.url("sample") + "/report?rows=100"}


def _run(system: System, stopping: threading.Event) -> int:
    load = Load(system.url("sample"))
    load.start()
    story = Story()
    observer = Observer(system, on_usage=story.usage, on_cycle=story.cycle)
    try:
        while not stopping.is_set():
            for change, text, seconds in (
                (load.work, "clients use pandas, matplotlib and sympy", BUSY_SECONDS),
                (load.fall_idle, "clients let them fall idle", IDLE_SECONDS),
            ):
                change()
                story.tell(f"{text} ({load.requests} requests, {len(load.failures)} failed)")
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline and not stopping.wait(0.5):
                    _look(observer)
                    if ended := system.processes.ended():
                        print(f"{ended[0].name} ended by itself; the end of its log:\n{ended[0].log_end()}")
                        return 1
                if stopping.is_set():
                    break
        return 0
    finally:
        print("stopping", flush=True)
        load.stop()


def _look(observer: Observer) -> None:
    """Print what is new; where the actuator does not answer, its end is reported by the watch over the processes."""
    with suppress(requests.RequestException):
        observer.look()
