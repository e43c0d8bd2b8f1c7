"""Which chunks of a dataset are stored, and in what order they lie in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .listed import ListedChunks

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class Chunks:
    """The stored chunks of a dataset, in the order of the file. In an array: a tuple a chunk would take 400 bytes."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    places: NDArray[np.int64]
    """Which chunk of the dataset each is, counted in row-major order."""
    largest: int
    """The most bytes that one of them takes in the file."""

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Chunks | None:
        """The chunks as the file lists them; None where the list is not in order, and HDF5 may miss some of them.

        RuntimeError where the list can be no dataset's, see `ListedChunks`.
        """
        listed = ListedChunks(dataset)
        if not listed.in_order:
            return None
        places = listed.places
        if (np.diff(listed.offsets) < 0).any():
            places = places[np.argsort(listed.offsets, kind="stable")]
        return cls(dataset.shape, dataset.chunks, places, listed.largest)

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Chunks:
        """No chunk at all is stored."""
        return cls(shape, shape, np.zeros(0, np.int64), 0)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def most(self) -> int:
        """How many there are where all are stored."""
        return math.prod(self._across)

    @property
    def cells(self) -> int:
        """How many cells of the dataset the stored chunks hold."""
        total = np.ones(len(self), np.int64)
        rest = self.places
        for axis in (2, 1, 0):
            rest, place = np.divmod(rest, self._across[axis])
            total *= np.minimum(self.chunk[axis], self.shape[axis] - place * self.chunk[axis])
        return int(total.sum())

    def origin(self, number: int) -> tuple[int, int, int]:
        """The index of the first cell of a stored chunk."""
        return self._first_cell(int(self.places[number]))

    def unwritten(self) -> tuple[int, int, int] | None:
        """The index of the first cell of a chunk that is not stored; None where all are."""
        if len(self) == self.most:
            return None
        known = np.sort(self.places)
        gaps = np.flatnonzero(known != np.arange(len(known)))
        return self._first_cell(int(gaps[0]) if gaps.size else len(known))

    def _first_cell(self, place: int) -> tuple[int, int, int]:
        _, y, x = self._across
        rest, last = divmod(place, x)
        return rest // y * self.chunk[0], rest % y * self.chunk[1], last * self.chunk[2]

    def size(self, number: int) -> tuple[int, int, int]:
        """The shape of the part of a chunk that lies in the dataset."""
        n, y, x = (min(c, s - o) for c, s, o in zip(self.chunk, self.shape, self.origin(number), strict=True))
        return n, y, x

    def part(self, first: int, last: int) -> tuple[list[tuple[int, int, int]], list[bool]]:
        """Of these stored chunks, the index of the first cell, and whether all cells lie in the dataset."""
        rest, x = np.divmod(self.places[first:last], self._across[2])
        n, y = np.divmod(rest, self._across[1])
        origins = np.stack([n, y, x], axis=1) * np.array(self.chunk)
        whole = (origins + np.array(self.chunk) <= np.array(self.shape)).all(axis=1)
        return [(n, y, x) for n, y, x in origins.tolist()], whole.tolist()

    def selection(self, number: int) -> tuple[slice, ...]:
        """What h5py reads for a chunk."""
        return tuple(slice(o, o + s) for o, s in zip(self.origin(number), self.size(number), strict=True))

    @property
    def _across(self) -> tuple[int, int, int]:
        n, y, x = (-(-s // c) for s, c in zip(self.shape, self.chunk, strict=True))
        return n, y, x
