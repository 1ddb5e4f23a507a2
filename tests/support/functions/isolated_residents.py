"""A function that a test isolates, and a resident that it uses."""

import os

from mempressure import LazyLoader

loader = LazyLoader(with_agent=False)
loads = []


@loader.resident(timeout=0.0)
def table():
    """Load the table."""
    loads.append(os.getpid())
    return list(range(10))


def looked_up(place):
    """Return an entry, the process of each load of the table, and the process that answers."""
    return table()[place], loads, os.getpid()
