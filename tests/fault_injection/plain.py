"""The counts that plain h5py and np.bincount give: what every other reader must agree with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

WAYS = ("slices", "chunks", "whole", "open")
"""In slices along N of some KiB; chunk by chunk as h5py lists them; all at once; not at all, only opened."""
SLICE_BYTES = 1 << 10
MOST_BYTES = 64 << 20
"""Of a piece that is read at once; HDF5 would take more, and fail or not as the machine has it."""


class NotGridsError(Exception):
    """The file is whole, but holds no dataset of integers of three dimensions."""


def plain_counts(file: str, dataset: str | None, way: str = "slices") -> dict[int, int]:
    """Label to count, of those that occur; whatever h5py raises, or NotGridsError.

    Raises MemoryError for a piece that has to be read at once and is too large.
    """
    found: dict[int, int] = {}
    with h5py.File(file, "r") as handle:
        grids = _only(handle) if dataset is None else handle[dataset]
        if not isinstance(grids, h5py.Dataset) or grids.dtype.kind not in "iu" or grids.ndim != 3 or not grids.size:
            raise NotGridsError(f"{grids!r}")
        for piece in _pieces(grids, way):
            size = grids.dtype.itemsize * math.prod(s.stop - s.start for s in piece)
            if size > MOST_BYTES:
                raise MemoryError(f"a piece of {size} bytes")
            values = grids[piece].reshape(-1)
            low, high = int(values.min()), int(values.max())
            if low >= 0 and high < 65536:
                counts = np.bincount(values.astype(np.int64))
                part = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
            else:
                part = {int(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)}
            for label, count in part.items():
                found[label] = found.get(label, 0) + count
    return found


def _pieces(grids: h5py.Dataset, way: str) -> Iterator[tuple[slice, ...]]:
    n, height, width = grids.shape
    if way == "open":
        return
    if way == "chunks" and grids.chunks is not None:
        yield from grids.iter_chunks()
        return
    step = n if way == "whole" else max(1, SLICE_BYTES // (height * width * grids.dtype.itemsize))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step)), slice(0, height), slice(0, width)


def _only(handle: h5py.File) -> Any:
    held: list[h5py.Dataset] = []
    handle.visititems(lambda _, item: held.append(item) if isinstance(item, h5py.Dataset) else None)
    grids = [item for item in held if item.ndim == 3 and item.dtype.kind in "iu"]
    if len(grids) != 1:
        raise NotGridsError(f"{len(grids)} datasets could be the grids")
    return grids[0]
