"""State files in a runtime directory, one for each worker: writing, listing and removing them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mempressure.config.paths import atomic_write
from mempressure.state.records import WorkerState, encode


def publish(state: WorkerState, path: Path) -> None:
    """Write the state file at `path`, readable by all; it is replaced atomically.

    Raises:
        OSError: the directory is gone, full or not writable.
    """
    # Not forced to the disk: a state lives a second, and the directory is on tmpfs where there is one.
    atomic_write(path, encode(state), mode=0o644, sync=False)


def withdraw(path: Path) -> None:
    """Remove a state file, if it exists."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def state_files(directory: Path) -> Iterator[Path]:
    """Yield the state files in one user's runtime directory."""
    for name in state_file_names(directory):
        yield directory / name


def state_file_names(directory: Path) -> list[str]:
    """Return the names of the state files in one user's runtime directory, sorted."""
    return sorted(name for name in os.listdir(directory) if name.endswith(".state") and not name.startswith("."))
