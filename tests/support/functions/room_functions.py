"""Functions that test_room runs in package processes."""

import os
import time

SIZE = 48 << 20

_held = []


def hold(started="", until=""):
    """Hold 48 MiB from now on; say on the file system that the call has begun, and wait for another file."""
    if not _held:
        _held.append(bytearray(os.urandom(4096)) * (SIZE // 4096))
    if started:
        open(started, "w").close()
    while until and not os.path.exists(until):
        time.sleep(0.005)
    return os.getpid()


def refuse():
    raise RuntimeError("not this one")
