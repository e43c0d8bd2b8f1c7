"""Which chunks of a dataset are stored, and in what order they lie in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

_BATCH = 4096
"""Chunks that are listed as Python objects, which take ten times as much, before they become arrays."""


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
        """The chunks as the file lists them; None where the list contradicts itself, as that of a damaged file may.

        RuntimeError where chunks without a filter are said to be of another size than they are: HDF5 itself would then
        read too much or too little.
        """
        filtered = dataset.id.get_create_plist().get_nfilters() > 0
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        shape, chunk, end = dataset.shape, dataset.chunks, dataset.file.id.get_filesize()
        steps, across = np.array(chunk), [-(-s // c) for s, c in zip(shape, chunk, strict=True)]
        if math.prod(across) >= 2**63:
            return None
        batch: list[tuple[int, ...]] = []
        parts: list[NDArray[np.int64]] = []
        fits, largest = True, 0

        def note(info: h5py.h5d.StoreInfo) -> None:
            batch.append((*info.chunk_offset, info.byte_offset, info.size))
            if len(batch) == _BATCH:
                pack()

        def pack() -> None:
            nonlocal fits, largest
            found = np.array(batch, np.int64).reshape(-1, 5)
            batch.clear()
            origins, offsets, sizes = found[:, :3], found[:, 3], found[:, 4]
            inside = (origins >= 0) & (origins < np.array(shape)) & (origins % steps == 0)
            # a size first, for the sum may be beyond 63 bits
            fits &= bool(
                inside.all() and (offsets >= 0).all() and (sizes <= end).all() and (offsets <= end - sizes).all()
            )
            if not filtered and (sizes != chunk_bytes).any():
                wrong = int(sizes[sizes != chunk_bytes][0])
                raise RuntimeError(f"a chunk without a filter takes {wrong:,} bytes, not {chunk_bytes:,}")
            largest = max(largest, int(sizes.max(initial=0)))
            at = origins // steps
            parts.append(np.stack([(at[:, 0] * across[1] + at[:, 1]) * across[2] + at[:, 2], offsets]))

        try:
            dataset.id.chunk_iter(note)
            pack()
        except (OverflowError, TypeError):  # an index or address beyond 63 bits, or none
            return None
        places, offsets = np.concatenate(parts, axis=1)
        if not fits or (np.diff(places) <= 0).any():  # HDF5 lists chunks in order, and finds one by that order
            return None
        if (np.diff(offsets) < 0).any():
            places = places[np.argsort(offsets, kind="stable")]
        return cls(shape, chunk, places, largest)

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
