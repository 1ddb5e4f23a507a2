"""A process of an application with a cache: told by lines on standard input by how many MiB it grows."""

import sys
import time

from mempressure import get_lazy_loader

loader = get_lazy_loader()
cache: list[bytearray] = []


@loader.on_pressure("high")
def drop(level: str) -> None:
    """Drop the cache, and say when that was."""
    print(f"called {level} {time.monotonic()}", flush=True)  # noqa: T201 -- for who waits for it
    cache.clear()


for line in sys.stdin:
    cache.extend(bytearray(b"x") * (1 << 20) for _ in range(int(line)))
    print(f"grown {line.strip()} {time.monotonic()}", flush=True)  # noqa: T201 -- likewise
