"""Read a dataset of any size in blocks of bounded memory, each stored chunk once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

MAX_CLASSES = 256
"""Most classes of the loss."""
MAX_LABELS = 1 << 16
"""The labels that are counted are 0 to MAX_LABELS - 1."""

BLOCK_BYTES = 4 << 20
"""Most bytes of a block in memory, unless one stored chunk is larger."""

ROW_BYTES = 64 << 20
"""Most bytes of the grids in one row of chunks, where whole grids are read: (131072, 1, 1) chunks, which h5py chooses
for a million grids of 16 x 16, take 32 MiB and are inflated once."""
ROW_CELLS = 256 << 20
"""The same bound in cells, where grids are assembled tile by tile: h5py chooses such chunks for a billion grids."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Number of cells in a dataclass that msgspec checks when it is read from a file."""


@dataclass(frozen=True)
class Unwritten:
    """Cells that were never written, and hold the fill value."""

    cells: Count
    chunks: Count
    """Chunks of these cells; 0 where the cells lie in no chunks."""
    label: int | None
    """The fill value; None where it was not read."""


Labels = NDArray[np.integer]
Origin = tuple[int, int, int]


@dataclass(frozen=True)
class Tiles:
    """The blocks of a dataset (N, H, W) in row-major order; all are equal except those at its ends."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]

    @classmethod
    def from_dataset(cls, dataset: h5py.Dataset, limit: int = BLOCK_BYTES) -> Tiles:
        """Cut a dataset into blocks of whole chunks (of cells, without chunks), so that no chunk is inflated twice."""
        chunk = dataset.chunks or (1, 1, 1)
        tile = [min(c, s) for c, s in zip(chunk, dataset.shape, strict=True)]
        for axis in (2, 1, 0):  # grown along W, then H, then N
            room = max(1, limit // (math.prod(tile) * dataset.dtype.itemsize))
            tile[axis] = min(dataset.shape[axis], tile[axis] * room)
        return cls(dataset.shape, tuple(tile))

    def __len__(self) -> int:
        return math.prod(self._across)

    def __getitem__(self, number: int) -> tuple[slice, ...]:
        rest, place = number, [0, 0, 0]
        for axis in (2, 1, 0):
            rest, place[axis] = divmod(rest, self._across[axis])
        return tuple(slice(p * t, min(s, (p + 1) * t)) for p, t, s in zip(place, self.tile, self.shape, strict=True))

    @property
    def rows(self) -> int:
        """Number of grids in a row of blocks, or fewer where it would hold more than ROW_CELLS cells."""
        return min(self.tile[0], max(1, ROW_CELLS // math.prod(self.shape[1:])))

    def across(self, first: int, stop: int) -> Iterator[tuple[slice, slice, slice]]:
        """Yield the parts of grids first..stop-1, of whole chunks in H and W, in row-major order."""
        _, height, width = self.tile
        for y in range(0, self.shape[1], height):
            for x in range(0, self.shape[2], width):
                rows, columns = (
                    slice(at, min(s, at + t)) for at, s, t in zip((y, x), self.shape[1:], (height, width), strict=True)
                )
                yield slice(first, stop), rows, columns

    @property
    def _across(self) -> tuple[int, ...]:
        return tuple(-(-s // t) for s, t in zip(self.shape, self.tile, strict=True))


def read(dataset: h5py.Dataset, where: tuple[slice, ...], buffer: NDArray[np.integer] | None = None) -> Labels:
    """Return the labels of a part of the dataset, in the buffer if given; DataError if they cannot be read."""
    size = tuple(part.stop - part.start for part in where)
    block = np.empty(size, dataset.dtype) if buffer is None else buffer[: math.prod(size)].reshape(size)
    try:
        dataset.read_direct(block, where)
    except (OSError, RuntimeError) as error:
        from .filters import unreadable

        raise unreadable(dataset, f"grids {where[0].start} to {where[0].stop - 1} cannot be read", error) from error
    return block


def blocks(dataset: h5py.Dataset) -> Iterator[tuple[Origin, Labels]]:
    """Yield (origin, labels) blocks that tile the (N, H, W) dataset; origin is the index of the block's first cell.

    A block covers whole chunks of the file, so that none is inflated twice. The memory of a block is reused for
    the next. Raises DataError where the stored bytes cannot be read.
    """
    tiles = Tiles.from_dataset(dataset)
    buffer = np.empty(math.prod(tiles.tile), dtype=dataset.dtype)
    for number in range(len(tiles)):
        n, y, x = tiles[number]
        yield (n.start, y.start, x.start), read(dataset, (n, y, x), buffer)


def whole_grids(dataset: h5py.Dataset) -> Iterator[tuple[int, Labels]]:
    """Yield (index of the first grid, grids (n, H, W)) over the dataset; memory is bounded unless one grid is huge."""
    _, height, width = dataset.shape
    rows = dataset.chunks[0] if dataset.chunks else 1
    grid_bytes = height * width * dataset.dtype.itemsize
    if rows * grid_bytes <= ROW_BYTES:
        step = rows * max(1, BLOCK_BYTES // (rows * grid_bytes))
    else:
        step = max(1, BLOCK_BYTES // grid_bytes)  # inflates chunks again and again, but fits into memory
    for first in range(0, dataset.shape[0], step):
        yield first, dataset[first : first + step]
