"""What the command of the actuator refuses, in one line and with which status."""

import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from tests.support.servers.actuator_process import DEADLINE, Actuator


def test_a_second_actuator_on_the_same_state_is_refused(actuator, tmp_path):
    actuator.start()
    second = Actuator(actuator.runtime, actuator.state_dir, tmp_path / "log2")
    second.process = None
    environment = {"MEMPRESSURE_RUNTIME_DIR": str(actuator.runtime), "MEMPRESSURE_STATE_DIR": str(actuator.state_dir)}
    refused = run("--web.listen-address=127.0.0.1:0", **environment)
    assert refused.returncode == 2
    assert "another actuator holds" in one_line(refused)


def run(*flags, **environment):
    command = [sys.executable, "-m", "mempressure_actuator", *flags]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def one_line(finished):
    (line,) = finished.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("flags", "environment", "named"),
    [
        (["--web.listen-address=nonsense"], {}, "'nonsense'"),
        (["--web.listen-address=127.0.0.1:99999"], {}, "127.0.0.1:99999"),
        (["--path.procfs=/nowhere"], {}, "--path.procfs=/nowhere cannot be used: /nowhere/meminfo cannot be read"),
        (["--log.level=loud"], {}, "loud"),
        (["--log.format=xml"], {}, "xml"),
        (["--nonsense"], {}, "--nonsense"),
        (["--dry"], {}, "--dry"),
        ([], {"MEMPRESSURE_LEASE": "soon"}, "MEMPRESSURE_LEASE='soon'"),
        ([], {"MEMPRESSURE_CONFIG": "/nowhere.yml"}, "/nowhere.yml"),
        ([], {"LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD": "0.5"}, "MEMORY_PRESSURE_THRESHOLD=0.5"),
    ],
)
def test_bad_input_is_named_in_one_line(flags, environment, named, tmp_path):
    flags = flags if any("listen" in flag for flag in flags) else [*flags, "--web.listen-address=127.0.0.1:0"]
    finished = run(*flags, **{"MEMPRESSURE_STATE_DIR": str(tmp_path / "state")} | environment)
    assert finished.returncode == 2
    assert named in one_line(finished)
    assert finished.stdout == ""


def test_a_port_in_use_is_named_in_one_line(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        finished = run(f"--web.listen-address={address}", MEMPRESSURE_STATE_DIR=str(tmp_path / "state"))
    assert finished.returncode == 1
    assert one_line(finished).endswith(f"cannot listen on --web.listen-address={address}: Address already in use")


def test_an_address_of_another_machine_is_named_in_one_line(tmp_path):
    finished = run("--web.listen-address=192.0.2.1:0", MEMPRESSURE_STATE_DIR=str(tmp_path / "state"))
    assert finished.returncode == 1
    assert "192.0.2.1:0" in one_line(finished)


def test_a_token_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text("x" * 43)
    path.chmod(0o644)
    finished = run(
        f"--token-file={path}", "--web.listen-address=127.0.0.1:0", MEMPRESSURE_STATE_DIR=str(tmp_path / "state")
    )
    assert finished.returncode == 2
    assert f"chmod 600 {path}" in one_line(finished)


def test_a_state_directory_open_to_others_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    finished = run("--web.listen-address=127.0.0.1:0", MEMPRESSURE_STATE_DIR=str(tmp_path / "state"))
    assert finished.returncode == 2
    assert "chmod go-w" in one_line(finished)


def test_version():
    finished = run("--version")
    assert (finished.returncode, finished.stdout.split()[0]) == (0, "mempressure-actuator")
