"""Reserved memory: what a load under way is known to take, until it shows in measurements."""

from collections.abc import Callable


class Reservation:
    """The cost of one load, from before it until it is over.

    Args:
        cost: bytes; 0 where it is not known.
        on_release: called once, with the reservation.

    Attributes:
        pid: the process that takes the memory, once it is known; what it holds already is reserved no more.
    """

    def __init__(self, cost: int, *, on_release: "Callable[[Reservation], None]" = lambda _: None) -> None:
        self.cost = cost
        self.pid: int | None = None
        self._on_release = on_release

    def release(self) -> None:
        """Give up what is left of it; again without effect."""
        self._on_release(self)

    def __enter__(self) -> None:
        """Reserved already."""

    def __exit__(self, *_: object) -> None:
        self.release()


Reserve = Callable[[str, int], Reservation]
"""(package, its last measured cost or 0) -> its reservation; raises `MemoryBudgetExceeded`."""
