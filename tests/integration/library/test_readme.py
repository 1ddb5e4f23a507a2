"""The README's files, run as it says: by gunicorn, beside an actuator that is asked for the memory back."""

import os
import re
import subprocess
import sys

import pytest
import requests

from stack.engines import ROOT
from stack.processes import free_port
from tests.support.waiting import until

README = (ROOT / "README.md").read_text()


@pytest.fixture
def place(tmp_path, runtime_dir):
    """A directory with the README's files, and the environment that its commands run in."""
    for text in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\w+\.py)", text)[1]
        (tmp_path / name).write_text(text)
    exported = dict(re.findall(r"\b(MEMPRESSURE_\w+)=(\S+)", README))
    actuator = f"127.0.0.1:{free_port()}"
    environ = {
        **os.environ,
        **exported,
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "state"),
        "MEMPRESSURE_ACTUATOR": actuator,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "exporter", "actuator")),
    }
    return tmp_path, environ, actuator


def test_the_readmes_application_runs_and_gives_memory_back(place, processes):
    directory, environ, actuator = place
    address = f"127.0.0.1:{free_port()}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", address, "--chdir", str(directory)]
    assert "gunicorn --workers 2 service:app" in README
    processes.start("service", [*gunicorn, "--no-control-socket", "service:app"], environ=environ)
    started = processes.start(
        "actuator", [sys.executable, "-m", "mempressure_actuator", f"--web.listen-address={actuator}"], environ=environ
    )

    def command(*words):
        return subprocess.run(
            [sys.executable, "-m", "mempressure", *words], env=environ, capture_output=True, text=True, check=False
        )

    def answered():
        try:
            return requests.get(f"http://{address}/report", timeout=30).json()
        except requests.ConnectionError:
            return None

    assert until(answered, "an answer") == {"May": 42}
    assert requests.get(f"http://{address}/derivative", timeout=30).text == "3*x**2"
    started.wait_until(lambda: "listening" in started.log.read_text())
    until(lambda: "pandas" in command("packages").stdout, "pandas among the packages")
    told = command("unload", "pandas", "--force")
    assert "shop: pandas was unloaded by stop in" in told.stdout, told
    assert answered() == {"May": 42}
    status = command("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert "512.0 MiB" in status.stdout
