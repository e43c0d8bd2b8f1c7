"""Read the grids of a dataset by index, from one or more files."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import accumulate
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..shards import Data, Shape, agree, describe, find_shards
from .blocks import Labels, Origin, Tiles, read, whole_grids
from .dataset import open_grids
from .filters import unreadable

PIECE_BYTES = 1 << 20
"""Bytes of the grids in a block of `cuts`, unless one row of chunks has more, which is read in parts: smaller blocks
mix better, and are read nearly as fast."""
MAX_OPEN = 32
"""Most files that are open together: there may be more shards than a process may open."""


class Grids:
    """The grids of one or more shards, one shard after another: index i of a shard is offset + i here."""

    def __init__(self, data: Data) -> None:
        """Open each shard once; DataError as `find_shards`, as `open_grids`, or where they differ in H or W."""
        self._shards = find_shards(data)
        self._open: OrderedDict[int, tuple[ExitStack, h5py.Dataset]] = OrderedDict()
        self._tiles: list[Tiles] = []
        shapes: list[Shape] = []
        dtypes: set[np.dtype[Any]] = set()
        try:
            for number in range(len(self._shards)):
                dataset = self._dataset(number)
                shapes.append(dataset.shape)
                rows = Tiles.from_dataset(dataset, PIECE_BYTES).tile[0]
                self._tiles.append(Tiles(dataset.shape, (rows, *Tiles.from_dataset(dataset).tile[1:])))
                dtypes.add(dataset.dtype)
            agree(zip(self._shards, shapes, strict=True))
        except BaseException:
            self.close()
            raise
        self._bounds = list(accumulate((shape[0] for shape in shapes), initial=0))
        self.shape: Shape = (self._bounds[-1], *shapes[0][1:])
        self.dtype: np.dtype[Any] = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.int64)
        """The dtype of the shards, int64 where theirs differ, so that equal grids have equal bytes."""

    @property
    def name(self) -> str:
        """Short description of the shards."""
        return describe(self._shards)

    def __getitem__(self, index: int) -> Labels:
        """Return grid (H, W) at an index of a list of N items, negative ones included; IndexError for any other."""
        number, inside = self._place(index)
        dataset = self._dataset(number)
        with self._readable(number, f"grid {inside} cannot be read"):
            grid: Labels = dataset[inside]
        return grid.astype(self.dtype, copy=False)

    def at(self, indices: Sequence[int]) -> Labels:
        """Return grids (n, H, W) at the indices, in their order, which may repeat; each shard is read in one selection.

        A stored chunk may hold parts of many grids; grid by grid it would be inflated many times.
        """
        found = np.empty((len(indices), *self.shape[1:]), self.dtype)
        where = [self._place(index) for index in indices]
        for number in sorted({number for number, _ in where}):
            places = [place for place, (n, _) in enumerate(where) if n == number]
            inside, back = np.unique([where[place][1] for place in places], return_inverse=True)
            dataset = self._dataset(number)
            try:
                found[places] = dataset[inside][back]
            except OSError:
                return np.stack([self[index] for index in indices])  # which names the grid that cannot be read
        return found

    def blocks(self) -> Iterator[tuple[int, Labels]]:
        """Yield (index of the first grid, grids (n, H, W)) over all shards, as `whole_grids` does over one dataset."""
        for number, shard in enumerate(self._shards):
            with self._readable(number, "some of the grids cannot be read"), open_grids(shard) as dataset:
                for first, block in whole_grids(dataset):
                    yield self._bounds[number] + first, block.astype(self.dtype, copy=False)

    def cuts(self) -> NDArray[np.int64]:
        """Return (M + 1,), the first grids of blocks of whole rows of chunks, each in one shard, and last N."""
        begins = [np.arange(self._bounds[n], self._bounds[n + 1], tiles.rows) for n, tiles in enumerate(self._tiles)]
        return np.concatenate([*begins, self._bounds[-1:]]).astype(np.int64)

    def pieces(self, first: int, stop: int) -> Iterator[tuple[Origin, Labels]]:
        """Yield (origin in the shard, labels (stop - first, h, w)): parts of the grids from one cut to the next.

        Each stored chunk is read once, and one part at a time; DataError where that fails.
        """
        number, inside = self._place(first)
        for where in self._tiles[number].across(inside, inside + stop - first):
            block = read(self._dataset(number), where)
            yield (inside, where[1].start, where[2].start), block.astype(self.dtype, copy=False)

    def shard_of(self, index: int) -> str:
        """Return the name of the shard that holds a grid."""
        return str(self._shards[self._place(index)[0]])

    def close(self) -> None:
        """Close every file."""
        while self._open:
            self._open.popitem()[1][0].close()

    def _place(self, index: int) -> tuple[int, int]:
        """Return the number of the shard that holds a grid, and the index in it."""
        grids = self._bounds[-1]
        if not -grids <= index < grids:
            raise IndexError(f"{self.name}: there is no grid {index}, only {grids:,}")
        index %= grids
        number = bisect_right(self._bounds, index) - 1
        return number, index - self._bounds[number]

    def _dataset(self, number: int) -> h5py.Dataset:
        """Return the dataset of a shard, opened if necessary; the least recently used one is closed for it."""
        if number not in self._open:
            if len(self._open) == MAX_OPEN:
                self._open.popitem(last=False)[1][0].close()
            stack = ExitStack()
            self._open[number] = stack, stack.enter_context(open_grids(self._shards[number]))
        self._open.move_to_end(number)
        return self._open[number][1]

    @contextmanager
    def _readable(self, number: int, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unreadable(self._dataset(number), what, error) from error


def opened(data: Data) -> closing[Grids]:
    """Context manager: open the grids of a dataset; errors as `Grids`."""
    return closing(Grids(data))
