"""The ways in which the same application is run, and what each adds to its command and its environment."""

import sys
from collections.abc import Sequence
from pathlib import Path

WAYS = {
    "plain": "as it is",
    "preloaded": "gunicorn's `--preload`, by hand",
    "own best": "what the server itself offers against memory that grows",
    "managed": "`mempressure run --manage`",
    "shared": "`mempressure run --manage --share`",
}
_RUN = {"managed": ("--manage",), "shared": ("--manage", "--share")}
_TIMEOUT_SECONDS = 60
"""Without use, of what is given back. Under high pressure half of it: within the idle minute, after the last load."""
_MIN_LIFETIME_SECONDS = 10
_NO_ACTUATOR = "http://127.0.0.1:1"


def is_managed(way: str) -> bool:
    """Return whether mempressure manages the application in this way."""
    return way in _RUN


def command(way: str, words: Sequence[str]) -> list[str]:
    """Return what runs an application's command in this way."""
    run = _RUN.get(way)
    return [*words] if run is None else [sys.executable, "-m", "mempressure", "run", *run, "--", *words]


def environment(way: str, app: str, directory: Path, *, budget: int) -> dict[str, str]:
    """Return the settings of a way: of mempressure where it manages, with a budget in bytes; else none.

    Args:
        way: one of `WAYS`.
        app: the application's name.
        directory: for mempressure's files; short, since it holds sockets.
        budget: in bytes; 0 for none.
    """
    if not is_managed(way):
        return {}
    return {
        "MEMPRESSURE_APP": app,
        "MEMPRESSURE_ACTUATOR": _NO_ACTUATOR,
        "MEMPRESSURE_BUDGET": str(budget),
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "run"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        "MEMPRESSURE_CACHE_DIR": str(directory / "cache"),
        "MEMPRESSURE_RECYCLE_MIN_LIFETIME": str(_MIN_LIFETIME_SECONDS),
        "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": str(_TIMEOUT_SECONDS),
    }
