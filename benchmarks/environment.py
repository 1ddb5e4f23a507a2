"""What a figure was measured on: the machine and the versions."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mempressure import __version__
from stack.engines import find_engines, version_of


def describe() -> dict[str, Any]:
    """Return date, machine and versions."""
    engines = find_engines()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "kernel": platform.release(),
        },
        "versions": {
            "mempressure": __version__,
            "python": platform.python_version(),
            "implementation": sys.implementation.name,
            "prometheus": version_of(engines.prometheus),
            "alertmanager": version_of(engines.alertmanager),
            **{name: version(name) for name in ("gunicorn", "Flask", "pandas")},
        },
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
