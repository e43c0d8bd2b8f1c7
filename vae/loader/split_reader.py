"""Reader of the grids of one role, block by block; it checks the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError
from vaefit.cache.hdf5.blocks import Labels
from vaefit.cache.hdf5.grids import Grids, opened
from vaefit.cache.scan.histogram import outside_classes, wrong_label
from vaefit.cache.shards import Data

from .split import ROLES, Role, Split

KeepReading = Callable[[], bool]
"""Returns False where reading should stop."""


@dataclass(frozen=True)
class SplitReader:
    """Reads the grids of one role from a dataset that is cut into blocks of whole chunks."""

    data: Data
    split: Split
    role: Role
    classes: int
    ignore_index: int | None
    shape: tuple[int, int]
    """H, W."""
    dtype: np.dtype[np.integer]
    """uint8, or wider where the ignored label does not fit."""
    cuts: NDArray[np.int64]
    """(M + 1,), the first grid of each of M blocks, then N."""
    sizes: NDArray[np.int64]
    """(M,), number of grids of the role in each block."""

    @classmethod
    def from_split(cls, data: Data, split: Split, role: Role, classes: int, ignore_index: int | None) -> SplitReader:
        """Return a reader; no grid is read yet.

        Raises DataError as `Grids`, where the split is of another dataset, and where no grid has the role.
        """
        with opened(data) as grids:
            cuts, shape, stored, name = grids.cuts(), grids.shape, grids.dtype, grids.name
        number = ROLES.index(role)
        sizes = [np.count_nonzero(split.roles(*pair) == number) for pair in pairwise(cuts.tolist())]
        if sum(sizes) != split.size(role):
            got = f"{shape[0]:,} grids, of which {sum(sizes):,} are for {role}, not {split.size(role):,}"
            raise DataError("the dataset is not the one that was split", name, got, "Split it anew.")
        if not any(sizes):
            raise DataError(f"the split has no grid for {role}", name, do="Use another role, or another split.")
        fits = ignore_index is None or 0 <= ignore_index <= 255 or stored == np.uint8
        dtype = np.uint8 if fits else np.int16 if -(2**15) <= (ignore_index or 0) < 2**15 else np.int64
        return cls(data, split, role, classes, ignore_index, shape[1:], np.dtype(dtype), cuts, np.array(sizes))

    @property
    def size(self) -> int:
        """Number of grids of the role."""
        return int(self.sizes.sum())

    @property
    def bytes(self) -> int:
        """Bytes of these grids in memory."""
        return self.size * self.shape[0] * self.shape[1] * self.dtype.itemsize

    def read(self, grids: Grids, blocks: NDArray[np.integer], keep_reading: KeepReading = lambda: True) -> Labels:
        """Return the grids (n, H, W) of the role in these blocks, one block after another, in `dtype`.

        Besides them a few chunks are in memory. Reading stops where `keep_reading()` is False; the rest is undefined
        then. Raises DataError where the data cannot be read, and for a label outside the classes that is not ignored,
        in a grid of any role.
        """
        found = np.empty((int(self.sizes[blocks].sum()), *self.shape), self.dtype)
        filled = 0
        for block in blocks.tolist():
            first, stop = int(self.cuts[block]), int(self.cuts[block + 1])
            own = np.flatnonzero(self.split.roles(first, stop) == ROLES.index(self.role))
            out = found[filled : filled + int(self.sizes[block])]
            for origin, piece in grids.pieces(first, stop):
                if not keep_reading():
                    return found
                in_range = int(piece.min()) >= 0 and int(piece.max()) < self.classes  # fast, and enough for most data
                if not in_range and outside_classes(piece, self.classes, self.ignore_index).any():
                    raise wrong_label(grids.shard_of(first), origin, piece, self.classes, self.ignore_index)
                (_, height, width), (_, y, x) = piece.shape, origin
                out[:, y : y + height, x : x + width] = piece.take(own, axis=0)
            filled += len(out)
        return found
