"""The packages of a worker as they stand in its state file, and which of them changed since the file was read last."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from mempressure.state import PACKAGE_VALUES, PackageState

ROW = struct.Struct(f"<{len(PACKAGE_VALUES)}d")
"""One package's numbers, `PACKAGE_VALUES`, as they stand in a file."""

_BLOCK = 8
"""Rows that are compared together: most have not changed."""


class PublishedPackages(Sequence[PackageState]):
    """The packages of a worker as it published them: names and numbers apart, put together when one is asked for.

    A scrape looks at what changed only: putting 10,000 packages together takes 40 ms, finding those that changed 0.5.
    Whoever looks at them again and again, as the control loop does in each turn, pays for that once.

    Args:
        options: of each package, as the catalog has them; shared between reads of one catalog, so not to be changed.
        numbers: of all of them, a `ROW` each.
        before: the numbers of as many packages at an earlier read, none where there was no such read.

    Attributes:
        changed: the places of the packages whose numbers are others than `before`, in order.
    """

    __slots__ = ("_before", "_whole", "changed", "numbers", "options")

    def __init__(self, options: Sequence[dict[str, Any]], numbers: bytes, *, before: bytes = b"") -> None:
        self.options = options
        self.numbers = numbers
        self.changed: Sequence[int] = _changed(numbers, before) if before else range(len(options))
        self._before = before
        self._whole: list[PackageState] | None = None

    def __len__(self) -> int:
        return len(self.options)

    @overload
    def __getitem__(self, index: int) -> PackageState: ...
    @overload
    def __getitem__(self, index: slice) -> list[PackageState]: ...
    def __getitem__(self, index: int | slice) -> PackageState | list[PackageState]:
        return self._put_together()[index]

    def __iter__(self) -> Iterator[PackageState]:
        return iter(self._put_together())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal by content, as the lists that writers have

    def __repr__(self) -> str:
        return repr(list(self))

    def values(self, place: int) -> tuple[float, ...]:
        """Return the numbers of one package, `PACKAGE_VALUES`."""
        return ROW.unpack_from(self.numbers, place * ROW.size)

    def changed_since(self, earlier: "PublishedPackages") -> Iterable[int]:
        """Return the places of the packages whose numbers are others than in an earlier read of as many packages."""
        return self.changed if earlier.numbers is self._before else _changed(self.numbers, earlier.numbers)

    def _put_together(self) -> list[PackageState]:
        if self._whole is None:
            named: Iterator[dict[str, Any]] = (
                dict(zip(PACKAGE_VALUES, values, strict=True)) for values in ROW.iter_unpack(self.numbers)
            )
            self._whole = [PackageState(**each, **values) for each, values in zip(self.options, named, strict=True)]
        return self._whole


def _changed(now: bytes, before: bytes) -> list[int]:
    places, size = [], ROW.size
    for block in range(0, len(now), _BLOCK * size):
        end = block + _BLOCK * size
        if now[block:end] != before[block:end]:
            for start in range(block, min(end, len(now)), size):
                if now[start : start + size] != before[start : start + size]:
                    places.append(start // size)  # noqa: PERF401 -- with the slices' bounds in it, nobody reads it
    return places
