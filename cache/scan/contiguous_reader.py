"""Reader of a contiguous dataset: bytes of the file, read outside HDF5's global lock."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .histogram import Bytes, Histogram

if TYPE_CHECKING:
    import h5py

SPAN_BYTES = 1 << 22
"""Bytes of a span: few enough that threads share the work and progress is visible."""
READ_BYTES = 1 << 20
"""Bytes per read: enough for slow storage, few enough to stay in the processor's cache."""


class ContiguousBytes:
    """Spans of a contiguous dataset, in file order."""

    unwritten = None

    def __init__(self, dataset: h5py.Dataset, offset: int) -> None:
        # HDF5's own handle: the name may by now belong to another file
        self._handle = int(dataset.file.id.get_vfd_handle())
        self._where = f"{dataset.file.filename}:{dataset.name}"
        self._offset, self._bytes = offset, int(dataset.size) * int(dataset.dtype.itemsize)
        self._own = threading.local()

    def __len__(self) -> int:
        return -(-self._bytes // SPAN_BYTES)

    def count(self, number: int, histogram: Histogram) -> None:
        """Count one span; DataError where the file ends before it does."""
        end = min((number + 1) * SPAN_BYTES, self._bytes)
        for start in range(number * SPAN_BYTES, end, READ_BYTES):
            histogram.add(self._read(self._offset + start, min(READ_BYTES, end - start)))

    def _read(self, offset: int, size: int) -> Bytes:
        """Return bytes of the file, valid until the thread's next read."""
        if not hasattr(self._own, "memory"):
            self._own.memory = np.empty(READ_BYTES, np.uint8)
        read: Bytes = self._own.memory[:size]
        view, done = memoryview(read.data), 0
        while done < size:
            try:
                got = os.preadv(self._handle, [view[done:]], offset + done)
            except OSError as error:
                what = "the file cannot be read"
                raise DataError(what, self._where, error.strerror or str(error), "Check the disk.") from error
            if got == 0:
                what, got_nothing = "the file is damaged: it ends before its cells do", f"no byte at {offset + done:,}"
                raise DataError(what, self._where, got_nothing, "Take another copy of it.")
            done += got
        return read
