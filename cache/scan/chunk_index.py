"""Which chunks of a dataset are stored, and in what order they lie in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py


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
    def from_dataset(cls, dataset: h5py.Dataset) -> Chunks | None:
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
    def empty(cls, shape: tuple[int, ...]) -> Chunks:
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


_BATCH = 4096
"""Chunks that are listed as Python objects, which take ten times as much, before they become arrays."""
_SHUFFLE, _FLETCHER32 = 2, 3
"""HDF5's numbers of the filters after which the size of a chunk is known: the same, and that of a checksum more."""
_CHECKSUM = np.uint64(4)
_MANY, _MANY_TIMES = 1_000_000, 1000


class ListedChunks:
    """The chunks of a dataset in the order in which HDF5 lists them."""

    places: NDArray[np.int64]
    """Which chunk of the dataset each is, counted in row-major order."""
    offsets: NDArray[np.int64]
    """Where in the file each begins."""
    largest: int
    """The most bytes that one of them takes in the file."""
    in_order: bool
    """Each comes after the one before it, and has a place in the file: HDF5 finds a chunk by that order."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        """Read the list; RuntimeError where it can be no dataset's.

        That is where a chunk is in it twice, lies outside the dataset or beyond the end of the file, where one that no
        filter made smaller is of another size than its cells, or one is smaller than its checksum, and where so few are
        listed, out of order, that to walk over all of the dataset would never end. Reading stops there: the list of a
        damaged file may have no end.
        """
        shape, chunk = dataset.shape, dataset.chunks
        self._shape, self._chunk = np.array(shape, np.uint64), np.array(chunk, np.uint64)
        self._across = [-(-s // c) for s, c in zip(shape, chunk, strict=True)]
        self._bytes = math.prod(chunk) * dataset.dtype.itemsize
        self._end = dataset.file.id.get_filesize()
        creation = dataset.id.get_create_plist()
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        # bits of a chunk's mask, each of which leaves out a filter; a chunk without the first is as large as its cells
        self._resizing = sum(1 << bit for bit, code in enumerate(filters) if code not in (_SHUFFLE, _FLETCHER32))
        self._checksums = [1 << bit for bit, code in enumerate(filters) if code == _FLETCHER32]
        self._batch: list[tuple[int, ...]] = []
        self._parts: list[NDArray[np.int64]] = []
        self._last, self._absent, self.largest, self.in_order = -1, 0, 0, True

        wrong = dataset.id.chunk_iter(self._note) or self._pack() or self._twice() or self._endless()
        if wrong:
            raise RuntimeError(wrong)
        self.places, self.offsets = np.concatenate(self._parts, axis=1)

    def _note(self, info: h5py.h5d.StoreInfo) -> str | None:
        """What HDF5 calls with each chunk, until the answer is what is wrong."""
        if info.chunk_offset is None:  # listed without an address, which HDF5 reads as if it was never written
            self.in_order = False
            self._absent += 1
            most = math.prod(self._across)
            return f"its list of chunks names more than the {most:,} it has" if self._absent > most else None
        self._batch.append((*info.chunk_offset, info.filter_mask, info.byte_offset, info.size))
        if len(self._batch) < _BATCH:
            return None
        wrong = self._pack()
        # now and then, so that all of these looks together take no longer than two at the end
        return wrong or (self._twice() if len(self._parts).bit_count() == 1 else None)

    def _pack(self) -> str | None:
        """Make arrays of what was noted; what is wrong with it, if anything."""
        found = np.array(self._batch, np.uint64).reshape(-1, 6)
        self._batch.clear()
        origins, masks, offsets, sizes = found[:, :3], found[:, 3], found[:, 4], found[:, 5]
        if (at := _first((origins >= self._shape) | (origins % self._chunk != 0))) is not None:
            return f"its list of chunks has one at {tuple(origins[at].tolist())}, where the dataset has none"
        least = np.zeros(len(found), np.uint64)
        for bit in self._checksums:
            least += (masks & bit == 0) * _CHECKSUM
        if (at := _first(sizes < least)) is not None:
            return f"a chunk takes {sizes[at]:,} bytes, fewer than the {least[at]:,} of its checksum"
        as_cells = masks & self._resizing == self._resizing
        if (at := _first(as_cells & (sizes != self._bytes + least))) is not None:
            return f"a chunk that no filter made smaller takes {sizes[at]:,} bytes, not {self._bytes + least[at]:,}"
        # a size first, for the sum may be beyond 64 bits
        if (at := _first(sizes > self._end)) is None:
            at = _first(offsets > self._end - sizes)
        if at is not None:
            last = int(offsets[at]) + int(sizes[at])
            return f"a chunk reaches to byte {last:,}, and the file has {self._end:,}"
        across = (origins // self._chunk).astype(np.int64)
        places = (across[:, 0] * self._across[1] + across[:, 1]) * self._across[2] + across[:, 2]
        self.in_order &= bool((np.diff(places, prepend=self._last) > 0).all())
        self._last = int(places[-1]) if places.size else self._last
        self.largest = max(self.largest, int(sizes.max(initial=0)))
        self._parts.append(np.stack([places, offsets.astype(np.int64)]))
        return None

    def _twice(self) -> str | None:
        """Which chunk is listed twice, if one is; in a list that is in order none can be."""
        if self.in_order:
            return None
        places, times = np.unique(np.concatenate(self._parts, axis=1)[0], return_counts=True)
        if times.max(initial=0) < 2:
            return None
        place = np.unravel_index(int(places[times.argmax()]), self._across)
        origin = tuple(int(p) * int(c) for p, c in zip(place, self._chunk, strict=True))
        return f"its list of chunks names the one at {origin} twice"

    def _endless(self) -> str | None:
        """What is wrong where the whole dataset has to be walked over, and holds next to nothing."""
        most, stored = math.prod(self._across), sum(part.shape[1] for part in self._parts)
        if self.in_order or most <= _MANY or most <= _MANY_TIMES * stored:
            return None
        return f"its list of chunks is not in order, and names {stored:,} of {most:,}"


def _first(wrong: NDArray[np.bool_]) -> int | None:
    """The first row in which anything is true."""
    rows = wrong.any(axis=1) if wrong.ndim == 2 else wrong
    return int(rows.argmax()) if rows.any() else None
