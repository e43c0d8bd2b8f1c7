"""Walking over a dataset of any size in blocks of bounded memory, each stored chunk read once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

BLOCK_BYTES = 4 << 20
"""Upper bound of a block in memory, unless one stored chunk is larger than that by itself."""

ROW_BYTES = 64 << 20
"""Upper bound of the grids that one row of chunks holds, where whole grids are wanted: (131072, 1, 1) chunks, as h5py
chooses for a million grids of 16 x 16, take 32 MiB and are inflated once."""

Labels = NDArray[np.integer]
Origin = tuple[int, int, int]


def blocks(dataset: h5py.Dataset, limit: int = BLOCK_BYTES) -> Iterator[tuple[Origin, Labels]]:
    """Yield (origin, labels) blocks that tile the (N, H, W) dataset; origin is the index of the block's first cell.

    A block covers whole chunks of the file, so that none is inflated twice. A block is reused once the next is asked
    for. Raises DataError where the stored bytes cannot be read.
    """
    shape = dataset.shape
    tile = _tile(shape, dataset.chunks, dataset.dtype.itemsize, limit)
    buffer = np.empty(math.prod(tile), dtype=dataset.dtype)
    for n in range(0, shape[0], tile[0]):
        for y in range(0, shape[1], tile[1]):
            for x in range(0, shape[2], tile[2]):
                size = tuple(min(t, s - o) for t, s, o in zip(tile, shape, (n, y, x), strict=True))
                block = buffer[: math.prod(size)].reshape(size)
                try:
                    dataset.read_direct(block, np.s_[n : n + size[0], y : y + size[1], x : x + size[2]])
                except OSError as error:
                    raise DataError(
                        f"grids {n} to {n + size[0] - 1} cannot be read",
                        f"{dataset.file.filename}:{dataset.name}",
                        got=str(error).splitlines()[0],
                        do="The file is damaged, or needs a compression filter that is not installed.",
                    ) from error
                yield (n, y, x), block


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


def _tile(shape: tuple[int, ...], chunks: tuple[int, ...] | None, itemsize: int, limit: int) -> tuple[int, ...]:
    """The chunk shape (one cell without chunks), grown along W, then H, then N by whole chunks within `limit`."""
    chunk = chunks or (1, 1, 1)
    tile = [min(c, s) for c, s in zip(chunk, shape, strict=True)]
    for axis in (2, 1, 0):
        room = max(1, limit // (math.prod(tile) * itemsize))
        tile[axis] = min(shape[axis], tile[axis] * room)
    return tuple(tile)
