"""Reader of chunks that only HDF5's filters decode, which checks the number of bytes that they give.

HDF5 does not: of too few bytes, the cells behind them are whatever the memory held before. A filter of ours, which HDF5
calls last, compares the number. As no filter can be added to a file that is only read, the chunks are copied, as they
are stored, to a file in memory whose filters are those of the dataset and ours.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..hdf5.blocks import Labels, read
from ..hdf5.filters import decoded_bytes, unreadable
from ..hdf5.label_view import whole_numbers
from .chunk_index import Chunks
from .h5py_reader import ChunkSpans
from .histogram import Histogram

if TYPE_CHECKING:
    import h5py

SPAN_BYTES = 1 << 22
"""Bytes of cells in a span of smaller chunks."""
_SIZE_CHECK = 61_853
"""Number of our filter. It lets nothing pass but chunks of the size that is its parameter."""
_OPTIONAL = 1
"""HDF5's flag of a filter that it need not have."""
_wrong = threading.local()
_numbers = itertools.count()


class FilteredChunks(ChunkSpans):
    """Spans of stored chunks with any filters; for one thread."""

    def __init__(self, dataset: h5py.Dataset, chunks: Chunks) -> None:
        """RuntimeError where HDF5 would not decode the copy of a chunk as it decodes the chunk."""
        import h5py

        self._bytes = math.prod(chunks.chunk) * int(dataset.dtype.itemsize)
        super().__init__(dataset, chunks, max(1, SPAN_BYTES // self._bytes))
        self._where = f"{dataset.file.filename}:{dataset.name}"
        creation = dataset.id.get_create_plist()
        self._filters = [creation.get_filter(i) for i in range(creation.get_nfilters())]
        self._type = dataset.id.get_type().copy()
        self._creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        self._creation.set_chunk(chunks.chunk)
        self._creation.set_filter(_size_check(), _OPTIONAL, (self._bytes,))
        for number, (code, _, values, _) in enumerate(self._filters, 1):
            self._add_filter(number, code, values)

    def _add_filter(self, number: int, code: int, values: tuple[int, ...]) -> None:
        """Add a filter that has the parameters `values` in a copy; RuntimeError where it cannot be made to.

        A filter may put parameters of its own before those that it is given, or in place of them.
        """
        before = self._creation
        for own in range(len(values) + 1):
            self._creation = before.copy()
            self._creation.set_filter(code, _OPTIONAL, values[own:])
            with suppress(OSError, RuntimeError, ValueError), self._copy(1) as copied:
                if copied.id.get_create_plist().get_filter(number)[2] == values:
                    return
        raise RuntimeError("a filter has unusual parameters")

    def _count(self, first: int, last: int, histogram: Histogram) -> None:
        with self._copy(last - first) as copied:
            hidden = [i for i in range(first, last) if not self._take(i, copied, i - first)]
            cells = self._decoded(copied, first)
        parts = [cells]
        if hidden or not all(self._chunks.inside(first, last)):
            parts = [
                # h5py may read a hidden one still, and else gives the error
                read(self._dataset, self._chunks.selection(i)) if i in hidden else chunk[self._chunks.within(i)]
                for i, chunk in enumerate(np.split(cells, last - first), first)
            ]
        for part in parts:
            labels = np.ascontiguousarray(whole_numbers(part, self._where))
            histogram.add(labels.reshape(-1).view(np.uint8))

    @contextmanager
    def _copy(self, chunks: int) -> Iterator[h5py.Dataset]:
        """Give a dataset in memory for so many chunks, one after another along its first axis."""
        import h5py

        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fapl_core(1 << 20, False)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)  # an error may hold the dataset
        file = h5py.h5f.create(b"vaefit-chunks-%d" % next(_numbers), h5py.h5f.ACC_TRUNC, fapl=access)
        try:
            n, *rest = self._chunks.chunk
            space = h5py.h5s.create_simple((chunks * n, *rest))
            yield h5py.Dataset(h5py.h5d.create(file, b"cells", self._type, space, self._creation))
        finally:
            file.close()

    def _take(self, number: int, copied: h5py.Dataset, place: int) -> bool:
        """Copy a chunk as it is stored; False where HDF5 does not find it, or it has no bytes."""
        origin = tuple(self._chunks.origins(number, number + 1)[0].tolist())
        try:
            mask, stored = self._dataset.id.read_direct_chunk(origin)
        except (OSError, RuntimeError, ValueError):
            return False
        if not stored:  # a copy cannot hold it
            return False
        code, _, values, _ = self._filters[-1]
        if not mask >> len(self._filters) - 1 & 1:
            # the filters before it may add some bytes, such as a checksum
            given = decoded_bytes(code, values, stored, 2 * self._bytes + 1024)
            if given is not None and given > 2 * self._bytes + 1024:
                raise self._error(origin[0], f"{given:,} bytes or more")
        # a bit of the mask tells that the filter of this number was not applied; ours is number 0
        first = (place * self._chunks.chunk[0], *[0] * (len(origin) - 1))
        copied.id.write_direct_chunk(first, stored, mask << 1)
        return True

    def _decoded(self, copied: h5py.Dataset, first: int) -> Labels:
        _wrong.size, origin = None, int(self._chunks.origins(first, first + 1)[0][0])
        cells = np.empty(copied.shape, self._dataset.dtype)
        try:
            copied.read_direct(cells)
        except (OSError, RuntimeError) as error:
            if _wrong.size is not None:
                # a filter may take the number of its error for that of the bytes
                got = f"{_wrong.size:,} bytes" if _wrong.size < 1 << 62 else "an error"
                raise self._error(origin, got) from error
            raise unreadable(self._dataset, f"grids from {origin} on cannot be read", error) from error
        return cells

    def _error(self, grid: int, got: str) -> DataError:
        got = f"{got}, not {self._bytes:,}, in a chunk from grid {grid} on"
        return DataError("the file is damaged: a chunk has another size", self._where, got, "Take another copy of it.")


class _Filter(ctypes.Structure):
    """HDF5's H5Z_class2_t."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encodes", ctypes.c_uint),
        ("decodes", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
    )


@cache
def _size_check() -> int:
    """Register our filter with HDF5, and return its number."""
    import h5py

    size, number, memory = ctypes.c_size_t, ctypes.c_uint, ctypes.c_void_p
    interface = ctypes.CFUNCTYPE(size, number, size, ctypes.POINTER(number), size, memory, memory)

    def compare(
        flags: int, parameters: int, values: ctypes.Array[ctypes.c_uint], size: int, room: int, data: int
    ) -> int:
        """Return the number of bytes; 0, which HDF5 takes for a failure, where it is not the parameter."""
        if parameters == 1 and values[0] == size:
            return size
        _wrong.size = size
        return 0

    check = interface(compare)
    entry = _Filter(1, _SIZE_CHECK, 1, 1, b"vaefit: size of a chunk", filter=ctypes.cast(check, ctypes.c_void_p))
    h5py.h5z.register_filter(ctypes.addressof(entry))
    _KEPT.extend((check, entry))  # HDF5 holds their addresses
    return _SIZE_CHECK


_KEPT: list[object] = []
