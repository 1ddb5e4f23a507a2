"""An application that declares its packages, leads, and then closes descriptors that it has not opened, as daemons do.

Arguments: how it does that, and a folder. It writes `started` there with its pid once its own files are open, and once
`finish` is there what has become of them to `finished`.
"""

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

import daemon

from mempressure import get_lazy_loader

FILES = 40
CONTENT = b"ledger\n"
WAITING = (["wait", "select"], ["select", "wait"])


def waits() -> bool:
    """Return whether the threads of agent and control loop wait, for half a second yet: each has published and turned.

    A file that a thread has open for a moment, such as a module that it imports, cannot stand being closed by another.
    """
    ages = [time.time() - path.stat().st_mtime for path in folder.glob("runtime/*/*.state")]
    threads = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
    return any(0.1 < age < 0.4 for age in ages) and [frame.f_code.co_name for frame in threads] in WAITING


def close_all() -> None:
    """Close what is open besides standard input, output and error."""
    os.closerange(3, 4096)


def write(path: Path, content: str) -> None:
    """Create a file with its content at once."""
    new = path.with_suffix(".new")
    new.write_text(content)
    new.rename(path)


def serve(folder: Path) -> None:
    """Open files under the numbers that have become free, and look after them until told to finish."""
    files = [os.open(folder / f"ledger{number}", os.O_RDWR | os.O_CREAT) for number in range(FILES)]
    for file in files:
        os.write(file, CONTENT)
    write(folder / "started", str(os.getpid()))
    while not (folder / "finish").exists():
        loader._changed()
        time.sleep(0.02)
    lost = [
        number
        for number, file in enumerate(files)
        if not os.path.samestat(os.fstat(file), os.stat(folder / f"ledger{number}"))
        or os.pread(file, 100, 0) != CONTENT
    ]
    loader.close()
    open_still = [number for number, file in enumerate(files) if os.pread(file, 100, 0) == CONTENT]
    write(folder / "finished", json.dumps({"lost": lost, "closed": FILES - len(open_still)}))


how, folder = sys.argv[1], Path(sys.argv[2])
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
loader = get_lazy_loader()
loader.start()
while not list(folder.glob("runtime/*/control.lock")) or not waits():
    time.sleep(0.02)
if how == "closerange":
    close_all()
    serve(folder)
else:
    error = open(folder / "error", "w")  # noqa: SIM115 -- for the life of the process
    with daemon.DaemonContext(detach_process=how == "detach", stderr=error, stdout=error, umask=0o022):
        serve(folder)
