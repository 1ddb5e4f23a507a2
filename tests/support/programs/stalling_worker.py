"""A worker whose package process holds pandas, idle, and which then fills its cgroup's memory and page cache.

Arguments: a file larger than the cgroup can cache, and one that says, once it is there, how many mebibytes to hold.
"""

import sys
import time
from pathlib import Path

from app.reports import monthly_sums

MIB = 1 << 20


def main() -> None:
    path, begin = Path(sys.argv[1]), Path(sys.argv[2])
    assert monthly_sums([{"month": 1, "amount": 2}]) == {1: 2}
    Path(f"{begin}.ready").touch()
    while not begin.exists():
        time.sleep(0.02)
    held = [bytearray(b"x") * MIB for _ in range(int(begin.read_text()))]
    while held:  # the kernel has to take back cache for cache
        with path.open("rb") as file:
            while file.read(MIB):
                pass
        time.sleep(0.02)


if __name__ == "__main__":
    main()
