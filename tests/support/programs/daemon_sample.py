"""An application that declares its packages, leads, and then closes descriptors that it has not opened, as daemons do.

Arguments: how it does that, and a folder. It writes `started` there with its pid once its own files are open, and once
`finish` is there what has become of them to `finished`.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import daemon

from mempressure import get_lazy_loader

FILES = 40
CONTENT = b"ledger\n"


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
while not list(folder.glob("runtime/*/*.state")) or not list(folder.glob("runtime/*/control.lock")):
    time.sleep(0.02)
if how == "closerange":
    close_all()
    serve(folder)
else:
    error = open(folder / "error", "w")  # noqa: SIM115 -- for the life of the process
    with daemon.DaemonContext(detach_process=how == "detach", stderr=error, stdout=error, umask=0o022):
        serve(folder)
