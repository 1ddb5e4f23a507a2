"""Where Prometheus and Alertmanager are: Debian's packages, installed or unpacked into `.engines`."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / ".engines" / "usr" / "bin"


@dataclass(frozen=True, slots=True)
class Engines:
    """The paths of the programs."""

    prometheus: str
    alertmanager: str
    promtool: str
    amtool: str


class EnginesMissingError(Exception):
    """Prometheus or Alertmanager is not on this machine."""


def find_program(name: str) -> str | None:
    """Return the path of a program of the engines, None where there is none."""
    unpacked = UNPACKED / name
    return shutil.which(name) or (str(unpacked) if unpacked.exists() else None)


def find_engines() -> Engines:
    """Return where the engines are.

    Raises:
        EnginesMissingError: one is missing; the message says how to get it.
    """
    names = ("prometheus", "prometheus-alertmanager", "promtool", "amtool")
    paths = [find_program(name) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise EnginesMissingError(f"{', '.join(missing)} not found; run: make engines")
    return Engines(*(path for path in paths if path))


def version_of(program: str) -> str:
    """Return the version that a program of the engines prints of itself."""
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", result.stdout + result.stderr)
    return found.group(1).rstrip(",") if found else "unknown"
