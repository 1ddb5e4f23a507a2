"""The rival: unloading as people do it who know of `sys.modules` only.

`python -m benchmarks.naive PACKAGE` uses a package, unloads it, uses it again, and prints what came of it as JSON.
"""

import ctypes
import gc
import json
import sys
from collections.abc import Iterable
from typing import Any

from mempressure.measure.process import private_bytes


def unload(package: str) -> int:
    """Delete a package's modules, collect twice and have the C library give pages back; return how many there were."""
    names = [name for name in list(sys.modules) if name.partition(".")[0] == package]
    return forget(names)


def forget(names: Iterable[str]) -> int:
    """Do that to these modules; return how many there were."""
    count = sum(sys.modules.pop(name, None) is not None for name in names)
    gc.collect()
    gc.collect()
    trim()
    return count


def trim() -> None:
    """Have the C library give its free pages back, where it is glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def main(package: str) -> int:
    """Use, unload and use again; the package goes with all that it imported, which is the best case for this way."""
    from benchmarks.exercises import EXERCISES

    exercise = next(exercise for exercise in EXERCISES if exercise.package == package)
    gc.collect()
    trim()
    known, bare = set(sys.modules), private_bytes()
    exercise.run()
    gc.collect()
    trim()
    loaded = private_bytes()
    forget([name for name in sys.modules if name not in known])
    unloaded = private_bytes()
    result = _again(exercise.run, exercise.known)
    gc.collect()
    trim()
    json.dump(
        {
            "added_bytes": loaded - bare,
            "returned_bytes": loaded - unloaded,
            "growth_bytes": private_bytes() - loaded,
            "result": result,
        },
        sys.stdout,
    )
    return 0


def _again(run: Any, known: Any) -> str:
    try:
        return "equal" if run() == known else "wrong"
    except BaseException as error:  # noqa: BLE001 -- whatever comes of it is the result
        return f"fails: {type(error).__name__}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
