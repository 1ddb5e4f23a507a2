"""A worker whose five package processes hold memory. The agent is the library's own; its orders are noted by id.

It is not run as `__main__`, from which package processes could not import: see `command`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from mempressure import get_lazy_loader
from mempressure.worker.managed import ManagedWorker

PACKAGES = ("wave", "mailbox", "imaplib", "poplib", "ftplib")
"""What is isolated: names only, nothing of them is imported."""
HELD_BYTES = 24 << 20
ORDERS_VARIABLE = "HOARDER_ORDERS"
"""Environment variable: the file of the orders (id, what, package), one a line, each as often as it was carried out."""

_held = bytearray()


def hold() -> int:
    """Take memory, once a process, and return how much is held."""
    if not _held:
        _held.extend(b"\x01" * HELD_BYTES)
    return len(_held)


def command(*, again: bool) -> list[str]:
    """Return the command of a worker that fills its package processes once, or as often as they are emptied."""
    return [sys.executable, "-c", f"from benchmarks.hoarder import work; work(again={again})"]


def work(*, again: bool) -> None:
    """Fill the package processes, and keep on doing so or wait, until the process is ended."""
    _note_orders(Path(os.environ[ORDERS_VARIABLE]))
    loader = get_lazy_loader()
    holders = [loader.isolated(package)(hold) for package in PACKAGES]
    for holder in holders:
        holder()
    while True:
        time.sleep(0.1)
        for holder in holders:
            if again and not holder.package.process_pids:
                holder()


def _note_orders(path: Path) -> None:
    """Have each order's id written to `path` before it is carried out."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    carry_out = ManagedWorker.carry_out

    def noted(worker: ManagedWorker, order: Any) -> Any:
        os.write(descriptor, f"{order.id} {order.op} {order.package}\n".encode())
        return carry_out(worker, order)

    setattr(ManagedWorker, "carry_out", noted)  # noqa: B010 -- it observes, and changes nothing
