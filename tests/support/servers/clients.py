"""Threads that ask a server again and again, for as long as a block lasts."""

import threading
from collections.abc import Callable, Iterable


class Clients:
    """Runs each of `asks` in a thread of its own until the block ends; each returns soon after `enough` is set."""

    def __init__(self, asks: Iterable[Callable[[], object]]) -> None:
        self.enough = threading.Event()
        self._threads = [threading.Thread(target=ask) for ask in asks]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.enough.set()
        for thread in self._threads:
            thread.join()
