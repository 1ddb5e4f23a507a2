"""An application that forks without telling Python, as uWSGI does: the child uses the library in the way it is told to.

Arguments: a use, and a folder, in which the child writes `used` with its pid.
"""

import ctypes
import os
import sys
import time
from pathlib import Path

from mempressure import get_lazy_loader

how, folder = sys.argv[1], Path(sys.argv[2])
loader = get_lazy_loader()
deferred = loader.import_module("sched")
loader.manage("bisect")
import bisect  # noqa: E402 -- tracked, and so after its declaration

work = loader.background_work("in the child")


@loader.resident(name="table")
def table() -> list[int]:
    """Load something that the child then has from its parent."""
    return [1]


table()


def idles() -> bool:
    """Return whether the agent's thread waits, the module armed: it would else hold locks of the interpreter."""
    ages = [time.time() - path.stat().st_mtime for path in folder.glob("runtime/*/*.state")]
    return any(0.2 < age < 0.6 for age in ages) and type(bisect).__name__ == "ArmedModule"


def hold() -> None:
    """Begin background work, for the life of the process."""
    work.__enter__()


USES = {
    "loader": get_lazy_loader,
    "packages": loader.packages,
    "work": hold,
    "import": lambda: deferred.scheduler,
    "module": lambda: bisect.bisect,
    "resident": table,
}
while not idles():
    time.sleep(0.02)
# Holding the interpreter's lock, or another thread could hold it in the child for ever.
if ctypes.PyDLL(None).fork() == 0:
    USES[how]()
    (folder / "new").write_text(str(os.getpid()))
    (folder / "new").rename(folder / "used")
while True:
    time.sleep(1)
