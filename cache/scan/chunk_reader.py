"""Reader of stored chunks: HDF5 gives their raw bytes, and threads inflate them outside its global lock."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..hdf5.filters import decoded_bytes
from .chunk_index import Chunks
from .h5py_reader import ChunkSpans, read_chunk
from .histogram import Bytes, Histogram
from .inflate import choose_inflate

if TYPE_CHECKING:
    import h5py

SPAN_BYTES = 1 << 22
"""Bytes of cells in a span of smaller chunks: few enough that threads share the work and progress is visible."""
JOINED_BYTES = 1 << 20
"""Bytes of small chunks that are counted together."""


class StoredChunks(ChunkSpans):
    """Spans of stored chunks with known filters.

    Every chunk is read through HDF5: a chunk that a damaged index hides from HDF5 stays hidden here.
    """

    def __init__(self, dataset: h5py.Dataset, chunks: Chunks, filters: list[int]) -> None:
        self._itemsize = int(dataset.dtype.itemsize)
        self._bytes = math.prod(chunks.chunk) * self._itemsize
        super().__init__(dataset, chunks, max(1, SPAN_BYTES // self._bytes))
        self._inflate = choose_inflate()[0] if filters else None
        self._shuffled = len(filters) == 2 and self._itemsize > 1  # of single bytes it changes nothing
        # the bits of a chunk's mask that tell which filters were left out for it
        self._deflate_bit, self._shuffle_bit = (1 << len(filters) - 1, 1) if filters else (0, 0)
        self._alone = 2 * self._bytes > JOINED_BYTES
        self._own = threading.local()

    def _count(self, first: int, last: int, histogram: Histogram) -> None:
        origins, whole = self._chunks.origins(first, last).tolist(), self._chunks.inside(first, last)
        room, filled = self._memory("together", JOINED_BYTES), 0
        for i, origin, all_inside in zip(range(first, last), origins, whole, strict=True):
            mask, cells = self._read(tuple(origin))
            if cells is None:  # h5py may read it still, and else gives the error
                histogram.add(read_chunk(self._dataset, self._chunks, i))
            elif self._shuffled and not mask & self._shuffle_bit:
                planes = np.frombuffer(cells, np.uint8).reshape(self._itemsize, -1)
                histogram.add_shuffled(planes if all_inside else self._inside(planes, i))
            elif not all_inside:
                histogram.add(self._inside(np.frombuffer(cells, np.uint8), i))
            elif self._alone:
                histogram.add(np.frombuffer(cells, np.uint8))
            else:
                room.data[filled : filled + self._bytes] = cells
                filled += self._bytes
                if filled + self._bytes > JOINED_BYTES:
                    histogram.add(room[:filled])
                    filled = 0
        histogram.add(room[:filled])
        # kept until the next span: if freed now, the C library returns the memory to the system each time, and to
        # allocate it again takes longer than the count
        self._own.last = cells

    def _read(self, origin: tuple[int, ...]) -> tuple[int, bytes | bytearray | memoryview | None]:
        """Return the filter mask of a chunk and its inflated bytes, still shuffled; None where that fails."""
        try:
            # new memory for a few bytes costs less than to say where they are to go
            out = self._memory("stored", self._chunks.largest) if self._alone else None
            mask, stored = self._dataset.id.read_direct_chunk(origin, out=out)
        except (OSError, RuntimeError, ValueError):
            return 0, None
        cells: bytes | bytearray | memoryview | None = stored
        if self._inflate is not None and not mask & self._deflate_bit:
            cells = self._inflate(memoryview(stored), self._bytes)
        size = len(cells) if cells is not None else decoded_bytes(1, (), stored, self._bytes) or 0
        if cells is None and size <= self._bytes:
            return mask, None
        if size != self._bytes:
            # of fewer bytes HDF5 would read on in foreign memory, for more it would take all memory that they need
            where = f"{self._dataset.file.filename}:{self._dataset.name}"
            got = f"{size:,} bytes{'' if cells else ' or more'}, not {self._bytes:,}, in the chunk of grid {origin[0]}"
            raise DataError("the file is damaged: a chunk has another size", where, got, "Take another copy of it.")
        return mask, cells

    def _memory(self, purpose: str, size: int) -> Bytes:
        """Return a buffer that a thread keeps for a purpose."""
        if not hasattr(self._own, purpose):
            setattr(self._own, purpose, np.empty(size, np.uint8))
        memory: Bytes = getattr(self._own, purpose)
        return memory

    def _inside(self, raw: Bytes, number: int) -> Bytes:
        """Return the bytes of the cells inside the dataset, for a chunk that reaches beyond it; planes stay planes."""
        inside = self._chunks.within(number)
        if raw.ndim == 2:
            every_plane = (slice(None), *inside)
            return np.ascontiguousarray(raw.reshape(-1, *self._chunks.chunk)[every_plane]).reshape(len(raw), -1)
        cells = raw.reshape(*self._chunks.chunk, self._itemsize)[inside]
        return np.ascontiguousarray(cells).reshape(-1)
