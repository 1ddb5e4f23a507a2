"""Loads and lets go large objects in a process of their own, and prints as JSON what was measured, in MiB."""

import gc
import json
import sys

from mempressure.loader import LazyLoader
from mempressure.residents.load_cost import LoadCost
from mempressure.residents.reclaim import reclaim

MIB = 1 << 20
SIZE = 48 * MIB


class Node:
    """Something large that refers to itself."""

    def __init__(self):
        self.me = self
        self.data = bytearray(b"x") * SIZE


def main():
    gc.disable()  # only the library's own collections free cycles
    loader = LazyLoader(with_agent=False)
    found = {}
    with LoadCost() as cost:
        held = bytearray(b"x") * SIZE
    found["load"] = cost.growth
    with LoadCost() as cost:
        del held
    found["unload"] = cost.growth
    found["plain"] = reclaim([bytearray(b"x") * SIZE], expected=SIZE)
    found["cycle"] = reclaim([Node()], expected=SIZE)
    found["small cycle"] = reclaim([Node()], expected=MIB - 1)
    gc.collect()

    model = loader.resident(name="model")(Node)
    model()
    found["resident"] = model.size_bytes
    found["resident reclaimed"] = model.release().reclaimed_bytes

    cached = loader.cache(name="cached", maxsize=2)(lambda number: bytearray(b"%d" % (number % 10)) * SIZE)
    for number in range(6):  # four of which take the place of others
        cached(number)
    found["cache"] = cached.size_bytes
    found["cache reclaimed"] = cached.release().reclaimed_bytes
    json.dump({name: round(size / MIB) for name, size in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
