"""Readers through h5py, for every layout."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from ..hdf5.blocks import Tiles, Unwritten, read
from .chunk_index import Chunks
from .histogram import Bytes, Histogram

if TYPE_CHECKING:
    import h5py


class Slabs:
    """Spans of any dataset: blocks of bounded size."""

    def __init__(self, dataset: h5py.Dataset, unwritten: Unwritten | None = None) -> None:
        self._dataset, self._tiles, self.unwritten = dataset, Tiles.from_dataset(dataset), unwritten
        self._buffer = np.empty(math.prod(self._tiles.tile), dataset.dtype)

    def __len__(self) -> int:
        return len(self._tiles)

    def count(self, number: int, histogram: Histogram) -> None:
        """Count one block; only one thread may call it."""
        histogram.add(read(self._dataset, self._tiles[number], self._buffer).reshape(-1).view(np.uint8))


class ChunkSpans(ABC):
    """Spans of `each` stored chunks, and a last span of the cells that were never written, which are not read."""

    def __init__(self, dataset: h5py.Dataset, chunks: Chunks, each: int) -> None:
        self._dataset, self._chunks, self._each = dataset, chunks, each
        self.unwritten = unwritten(dataset, chunks)

    def __len__(self) -> int:
        return -(-len(self._chunks) // self._each) + (self.unwritten is not None)

    def count(self, number: int, histogram: Histogram) -> None:
        """Count the chunks of one span, or in the last span the cells that were never written."""
        first = number * self._each
        last = min(first + self._each, len(self._chunks))
        if first < last:
            self._count(first, last, histogram)
        else:
            histogram.add_unwritten(self.unwritten)

    @abstractmethod
    def _count(self, first: int, last: int, histogram: Histogram) -> None:
        """Count the stored chunks from `first` to before `last`."""


class ChunkReads(ChunkSpans):
    """Spans of one stored chunk each."""

    def __init__(self, dataset: h5py.Dataset, chunks: Chunks) -> None:
        super().__init__(dataset, chunks, 1)

    def _count(self, first: int, last: int, histogram: Histogram) -> None:
        histogram.add(read_chunk(self._dataset, self._chunks, first))


def read_chunk(dataset: h5py.Dataset, chunks: Chunks, number: int) -> Bytes:
    """Return the bytes of the cells of one stored chunk; DataError if they cannot be read."""
    return read(dataset, chunks.selection(number)).reshape(-1).view(np.uint8)


def unwritten(dataset: h5py.Dataset, chunks: Chunks) -> Unwritten | None:
    """Return the cells that were never written, None without any; DataError as `read`."""
    cell = chunks.unwritten()
    if cell is None:
        return None
    # such a cell is read: HDF5 crashes if asked for the fill value of some damaged files
    label = int(read(dataset, tuple(slice(o, o + 1) for o in cell)).item())
    missing = chunks.most - len(chunks) if dataset.chunks else 0
    return Unwritten(math.prod(chunks.shape) - chunks.cells, missing, label)
