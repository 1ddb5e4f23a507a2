"""The packages of a worker as they stand in its state file, and which of them changed since the file was read last."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress, count
from operator import is_not, ne, not_
from typing import Any, overload

from mempressure.state.records import PACKAGE_VALUES, PackageState

ROW = struct.Struct(f"<{len(PACKAGE_VALUES)}d")
"""One package's numbers, `PACKAGE_VALUES`, as they stand in a file."""

_BYTES = struct.Struct(f"{ROW.size}s")
_ROWS = 8
"""That make a block, which is compared whole: most have not changed."""
_BLOCK_BYTES = _ROWS * ROW.size

Blocks = Sequence[bytes]
"""The numbers of packages, a `ROW` each, eight of them in each block but the last."""


class PublishedPackages(Sequence[PackageState]):
    """The packages of a worker as it published them: names and numbers apart, put together when one is asked for.

    A scrape looks at what changed only: putting 10,000 packages together takes 40 ms, finding those that changed 0.5.
    Whoever looks at them again and again, as the control loop does in each turn, pays for that once.

    Args:
        options: of each package, as the catalog has them; shared between reads of one catalog, so not to be changed.
        data: a state file.
        start: where in it the numbers begin; there is a `ROW` for each of the options.
        before: the blocks of as many packages at an earlier read, none where there was no such read.

    Attributes:
        blocks: the numbers; those in which nothing changed are the same objects as `before`.
        changed: the places of the packages whose numbers are others than `before`, in order.
    """

    __slots__ = ("_before", "_whole", "blocks", "changed", "options")

    def __init__(self, options: Sequence[dict[str, Any]], data: bytes, *, start: int, before: Blocks = ()) -> None:
        self.options = options
        self.blocks: Blocks
        self.changed: Sequence[int]
        if before:
            self.blocks = _renewed(before, data, start)
            self.changed = _changed(self.blocks, before)
        else:
            end = start + ROW.size * len(options)
            places = range(start, end, _BLOCK_BYTES)
            self.blocks = [data[place : min(place + _BLOCK_BYTES, end)] for place in places]
            self.changed = range(len(options))
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
        block, row = divmod(place, _ROWS)
        return ROW.unpack_from(self.blocks[block], row * ROW.size)

    def changed_since(self, earlier: "PublishedPackages") -> Iterable[int]:
        """Return the places of the packages whose numbers are others than in an earlier read of as many packages."""
        return self.changed if earlier.blocks is self._before else _changed(self.blocks, earlier.blocks)

    def _put_together(self) -> list[PackageState]:
        if self._whole is None:
            rows = chain.from_iterable(map(ROW.iter_unpack, self.blocks))
            self._whole = [
                PackageState(**each, **dict(zip(PACKAGE_VALUES, values, strict=True)))
                for each, values in zip(self.options, rows, strict=True)
            ]
        return self._whole


def _renewed(before: Blocks, data: bytes, start: int) -> Blocks:
    """Return the blocks that stand there: what is alike is compared in place, and neither copied nor kept twice."""
    places, blocks = count(start, _BLOCK_BYTES), list(before)
    for number in compress(count(), map(not_, map(data.startswith, before, places))):
        place = start + number * _BLOCK_BYTES
        blocks[number] = data[place : place + len(before[number])]
    return blocks


def _changed(now: Blocks, before: Blocks) -> list[int]:
    places: list[int] = []
    for number in compress(count(), map(is_not, now, before)):
        rows = map(ne, _BYTES.iter_unpack(now[number]), _BYTES.iter_unpack(before[number]))
        places += compress(count(number * _ROWS), rows)
    return places
