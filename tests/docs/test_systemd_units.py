"""The units in deploy/systemd, as text: that their flags exist, and that nothing opened the sandbox unnoticed."""

import configparser
import shlex
from pathlib import Path

import pytest

from mempressure_actuator import command
from mempressure_exporter import __main__ as exporter

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
DOCS = Path(__file__).parents[2] / "docs" / "security.md"
PARSERS = {"exporter": exporter.argument_parser, "actuator": command.parser}
SERVICES = pytest.mark.parametrize("name", PARSERS)
CLOSED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}


def read(name):
    unit = configparser.ConfigParser(strict=False, delimiters="=", comment_prefixes="#", interpolation=None)
    unit.optionxform = str
    unit.read_string((FOLDER / name).read_text())
    return unit


@SERVICES
def test_every_flag_of_a_unit_exists(name):
    program, *words = shlex.split(read(f"mempressure-{name}.service")["Service"]["ExecStart"])
    assert program.endswith(f"/mempressure-{name}")
    PARSERS[name]().parse_args([word for word in words if word != "$OPTIONS"])
    assert "$OPTIONS" in words


@SERVICES
def test_services_are_shut_in_and_survive_the_pressure(name):
    service = read(f"mempressure-{name}.service")["Service"]
    assert {key: service.get(key) for key in CLOSED} == CLOSED
    assert service["OOMScoreAdjust"] == "-900"
    assert service["MemoryMin"].endswith("M")
    # Bad flags and settings are 2: trying again mends nothing.
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert "PrivateUsers" not in service  # owners of state files would all be nobody


def test_the_actuator_may_finish_what_it_began():
    from mempressure_actuator.server import LIMITS

    assert float(read("mempressure-actuator.service")["Service"]["TimeoutStopSec"]) > LIMITS.stop_seconds


def test_the_exporters_socket_is_where_the_exporter_would_listen():
    assert read("mempressure-exporter.socket")["Socket"]["ListenStream"] == exporter.DEFAULT_ADDRESS
    assert read("mempressure-exporter.service")["Unit"]["Requires"] == "mempressure-exporter.socket"


def test_every_file_is_documented():
    text = DOCS.read_text()
    assert [path.name for path in FOLDER.iterdir() if f"`{path.name}`" not in text] == []
