"""The chunk index of a dataset: its stored chunks, in file order, checked against damage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

_BATCH = 4096
"""Chunks that are collected as Python objects, which take ten times the memory, before they become an array."""
_SHUFFLE, _FLETCHER32 = 2, 3
"""HDF5's numbers of the filters that keep the size of a chunk, or add a checksum to it."""
_MANY, _MANY_TIMES = 1_000_000, 1000


@dataclass(frozen=True)
class Chunks:
    """The stored chunks of a dataset, in file order, as an array: a tuple per chunk would take 400 bytes."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    places: NDArray[np.int64]
    """The row-major number of each chunk in the dataset."""
    largest: int
    """Size in bytes of the largest chunk in the file."""

    @classmethod
    def from_dataset(cls, dataset: h5py.Dataset) -> Chunks | None:
        """Read the chunk index; None where it is not in order, so that HDF5 may not find some of its chunks.

        RuntimeError where no dataset can have such an index, see `ChunkIndex`.
        """
        index = ChunkIndex(dataset)
        if not index.in_order:
            return None
        places, offsets = index.listed()
        if (np.diff(offsets) < 0).any():
            places = places[np.argsort(offsets, kind="stable")]
        return cls(dataset.shape, dataset.chunks, places, index.largest)

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Chunks:
        """Return the chunks of a dataset of which none is stored."""
        return cls(shape, shape, np.zeros(0, np.int64), 0)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def most(self) -> int:
        """Number of chunks if all are stored."""
        return math.prod(_across(self.shape, self.chunk))

    @property
    def cells(self) -> int:
        """Number of cells of the dataset in stored chunks."""
        return int(np.minimum(self.chunk, self.shape - self.origins()).prod(axis=1).sum())

    def origins(self, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """Return the indices (n, rank) of the first cells of these stored chunks."""
        return _origins(self.places[first:last], self.shape, self.chunk)

    def unwritten(self) -> tuple[int, ...] | None:
        """Return the index of the first cell of a chunk that is not stored; None where all are."""
        if len(self) == self.most:
            return None
        gaps = np.flatnonzero(np.sort(self.places) != np.arange(len(self)))
        missing = gaps[:1] if gaps.size else np.array([len(self)])
        return tuple(_origins(missing, self.shape, self.chunk)[0].tolist())

    def inside(self, first: int, last: int) -> list[bool]:
        """Return, for each of these stored chunks, whether all of its cells lie in the dataset."""
        ends = self.origins(first, last) + np.array(self.chunk)
        return list((ends <= np.array(self.shape)).all(axis=1).tolist())

    def within(self, number: int) -> tuple[slice, ...]:
        """Return the part of a stored chunk that lies in the dataset."""
        return tuple(slice(part.stop - part.start) for part in self.selection(number))

    def selection(self, number: int) -> tuple[slice, ...]:
        """Return the part of the dataset that a stored chunk holds."""
        (origin,) = self.origins(number, number + 1).tolist()
        return tuple(slice(o, min(o + c, s)) for o, c, s in zip(origin, self.chunk, self.shape, strict=True))


class ChunkIndex:
    """The chunks of a dataset in the order in which HDF5 lists them.

    Reading raises RuntimeError where no dataset can have such an index: a chunk is listed twice, lies outside the
    dataset or beyond the end of the file, has another size than its cells though no filter compressed it, or is smaller
    than its checksum; or so few chunks are listed, out of order, that reading the whole dataset instead would never
    end. It stops at the first such chunk: the index of a damaged file may be endless.
    """

    largest: int
    """Size in bytes of the largest chunk in the file."""
    in_order: bool
    """True where every chunk comes after the one before and has an address, an order that HDF5's search relies on."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._shape, self._chunk, self._rank = dataset.shape, dataset.chunks, len(dataset.shape)
        self._most = math.prod(_across(self._shape, self._chunk))
        self._bytes = math.prod(self._chunk) * dataset.dtype.itemsize
        self._end = np.uint64(dataset.file.id.get_filesize())
        creation = dataset.id.get_create_plist()
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        # a bit of a chunk's mask means that its filter was not applied; without these, a chunk is as large as its cells
        self._resizing = sum(1 << bit for bit, code in enumerate(filters) if code not in (_SHUFFLE, _FLETCHER32))
        self._checksums = [1 << bit for bit, code in enumerate(filters) if code == _FLETCHER32]
        self._batch: list[tuple[int, ...]] = []
        self._parts: list[NDArray[np.int64]] = []
        self._last, self._absent, self.largest, self.in_order = -1, 0, 0, True
        dataset.id.chunk_iter(self._add)
        self._check_batch()
        self._check_order()
        stored = sum(part.shape[1] for part in self._parts)
        if not self.in_order and self._most > max(_MANY, _MANY_TIMES * stored):
            raise RuntimeError(f"its list of chunks is not in order, and names {stored:,} of {self._most:,}")

    def listed(self) -> NDArray[np.int64]:
        """Return (2, n): the row-major number of each chunk, and its address in the file."""
        return np.concatenate(self._parts, axis=1)

    def _add(self, info: h5py.h5d.StoreInfo) -> None:
        if info.chunk_offset is None:  # HDF5 reads a chunk without an address as if it was never written
            self.in_order = False
            self._absent += 1
            if self._absent > self._most:
                raise RuntimeError(f"its list of chunks names more than the {self._most:,} it has")
            return
        self._batch.append((*info.chunk_offset, info.filter_mask, info.byte_offset, info.size))
        if len(self._batch) == _BATCH:
            self._check_batch()
            if len(self._parts).bit_count() == 1:  # so that all checks together take no longer than two at the end
                self._check_order()

    def _check_batch(self) -> None:
        found = np.array(self._batch, np.uint64).reshape(-1, self._rank + 3)
        self._batch.clear()
        origins, (masks, offsets, sizes) = found[:, : self._rank], found[:, self._rank :].T
        chunk = np.array(self._chunk, np.uint64)
        outside = ((origins >= np.array(self._shape, np.uint64)) | (origins % chunk != 0)).any(axis=1)
        for at in np.flatnonzero(outside)[:1]:
            where = tuple(origins[at].tolist())
            raise RuntimeError(f"its list of chunks has one at {where}, where the dataset has none")
        least = np.zeros(len(found), np.uint64)
        for bit in self._checksums:
            least += np.where(masks & bit == 0, np.uint64(4), np.uint64(0))
        for at in np.flatnonzero(sizes < least)[:1]:
            raise RuntimeError(f"a chunk takes {sizes[at]:,} bytes, fewer than the {least[at]:,} of its checksum")
        uncompressed = masks & self._resizing == self._resizing
        for at in np.flatnonzero(uncompressed & (sizes != self._bytes + least))[:1]:
            expected = self._bytes + int(least[at])
            raise RuntimeError(f"a chunk that no filter made smaller takes {sizes[at]:,} bytes, not {expected:,}")
        # the sum of both may exceed 64 bits
        for at in np.flatnonzero((sizes > self._end) | (offsets > self._end - np.minimum(sizes, self._end)))[:1]:
            last = int(offsets[at]) + int(sizes[at])
            raise RuntimeError(f"a chunk reaches to byte {last:,}, and the file has {self._end:,}")
        across = _across(self._shape, self._chunk)
        places = np.ravel_multi_index(tuple((origins // chunk).astype(np.int64).T), across)
        self.in_order &= bool((np.diff(places, prepend=self._last) > 0).all())
        self._last = int(places[-1]) if places.size else self._last
        self.largest = max(self.largest, int(sizes.max(initial=0)))
        self._parts.append(np.stack([places, offsets.astype(np.int64)]))

    def _check_order(self) -> None:
        """Raise RuntimeError for a chunk that is listed twice, which is impossible in an index that is in order."""
        if self.in_order:
            return
        places, times = np.unique(self.listed()[0], return_counts=True)
        if times.max(initial=0) > 1:
            twice = _origins(places[times.argmax()][None], self._shape, self._chunk)[0]
            raise RuntimeError(f"its list of chunks names the one at {tuple(twice.tolist())} twice")


def _across(shape: tuple[int, ...], chunk: tuple[int, ...]) -> tuple[int, ...]:
    """Return the number of chunks along each axis."""
    return tuple(-(-s // c) for s, c in zip(shape, chunk, strict=True))


def _origins(places: NDArray[np.int64], shape: tuple[int, ...], chunk: tuple[int, ...]) -> NDArray[np.int64]:
    origins: NDArray[np.int64] = np.stack(np.unravel_index(places, _across(shape, chunk)), axis=1) * np.array(chunk)
    return origins
