"""Counters of the classes of a dataset, each from opening the file to the counts; and reading alone.

A worker process imports this module. It must not import torch, whose memory and threads would be measured too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from vaefit.cache.dataset_counts import count_dataset
from vaefit.cache.hdf5.dataset import open_grids
from vaefit.cache.location import Location
from vaefit.cache.scan import scan_dataset
from vaefit.cache.scan.native_counter import NUMPY, ByteCounter, build_counter

with suppress(ImportError):
    import hdf5plugin  # noqa: F401  # h5py finds its filters once it is imported

LABELS = 256
NAIVE_GRIDS = 1024
SLICE_GRIDS = 4096
READ_BYTES = 4 << 20
ZLIB_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}

Chunk = tuple[int, int]
"""Offset and size in the file."""


@dataclass(frozen=True)
class CounterResult:
    """Result of a counter."""

    counts: list[int] | None
    """Counts of the labels 0..255; None for a counter that only reads."""
    bytes: int
    """Bytes of cells that were counted, as in memory."""
    way: str = ""
    """Route of our scan, or source of its counts."""


def naive(file: Path, slices: int | None = None) -> CounterResult:
    """Count by np.bincount of slices of 1,024 grids, the first `slices` if given."""
    return _slices(file, NAIVE_GRIDS, slices)


def whole_chunks(file: Path, slices: int | None = None) -> CounterResult:
    """Count by np.bincount of whole chunks, at least 4,096 grids each."""
    with h5py.File(file) as handle:
        chunks = handle["grids"].chunks
    rows = chunks[0] if chunks else SLICE_GRIDS
    return _slices(file, rows * -(-SLICE_GRIDS // rows), slices)


def ours(file: Path, slices: int | None = None) -> CounterResult:
    """Count by the scan of `vaefit.cache` with numpy, on one thread."""
    return _scan(file, 1, NUMPY)


def ours_on_two(file: Path, slices: int | None = None) -> CounterResult:
    """Count by the scan of `vaefit.cache` with numpy, on two threads."""
    return _scan(file, 2, NUMPY)


def ours_compiled(file: Path, slices: int | None = None) -> CounterResult:
    """Count by the scan of `vaefit.cache` with the compiled counter, on one thread."""
    return _scan(file, 1, build_counter())


def cached(file: Path, slices: int | None = None) -> CounterResult:
    """Count by `count_dataset`, with its cached file in the folder `cache` beside the data."""
    found = count_dataset(file, cache_dir=file.parent / "cache")
    counts = [*found.counts.tolist(), *[0] * (LABELS - found.classes)]
    return CounterResult(counts, found.cells, found.source)


def decode(file: Path, slices: int | None = None) -> CounterResult:
    """Read and inflate every stored byte, into a buffer that fits into the processor's cache.

    A shuffle is not undone; HDF5 decodes other codecs.
    """
    with h5py.File(file) as handle:
        dataset = handle["grids"]
        properties = dataset.id.get_create_plist()
        filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
        if filters <= ZLIB_FILTERS and dataset.chunks is None:
            return CounterResult(None, _read(file, dataset.id.get_offset(), dataset.nbytes))
        if filters <= ZLIB_FILTERS:
            return CounterResult(None, _inflate(file, dataset, bool(filters)))
        return CounterResult(None, _read_chunks(dataset))


def read_whole(file: Path, slices: int | None = None) -> CounterResult:
    """Read all cells with h5py into one new array."""
    with h5py.File(file) as handle:
        return CounterResult(None, handle["grids"][:].nbytes)


def prepare(counter: str) -> None:
    """Build what a counter needs once per process, outside its times."""
    if COUNTERS[counter] is ours_compiled:
        build_counter()


Counter = Callable[[Path, int | None], CounterResult]
COUNTERS: dict[str, Counter] = {
    "naive": naive,
    "whole_chunks": whole_chunks,
    "ours": ours,
    "ours_on_two": ours_on_two,
    "ours_compiled": ours_compiled,
    "cached": cached,
    "decode": decode,
    "read_whole": read_whole,
}


def _slices(file: Path, grids: int, slices: int | None) -> CounterResult:
    with h5py.File(file) as handle:
        dataset = handle["grids"]
        end = len(dataset) if slices is None else min(len(dataset), grids * slices)
        counts, size = np.zeros(LABELS, np.int64), 0
        for first in range(0, end, grids):
            block = dataset[first : min(first + grids, end)]
            counts += np.bincount(block.reshape(-1), minlength=LABELS)
            size += block.nbytes
    return CounterResult(counts.tolist(), size)


def _scan(file: Path, threads: int, counter: ByteCounter) -> CounterResult:
    with open_grids(Location(file)) as dataset:
        found = scan_dataset(dataset, threads=threads, counter=counter)
        return CounterResult(found.counts.tolist(), dataset.nbytes, found.route)


def _read(file: Path, offset: int, size: int) -> int:
    """Read a range of the file into one buffer; return the bytes that were read."""
    buffer, done = memoryview(bytearray(READ_BYTES)), 0
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        while done < size:
            got = stream.readinto(buffer[: min(READ_BYTES, size - done)])
            if not got:
                break
            done += got
    return done


def _inflate(file: Path, dataset: h5py.Dataset, compressed: bool) -> int:
    """Read and inflate all chunks in the order of the file; return the bytes of cells in them."""
    found: list[Chunk] = []
    dataset.id.chunk_iter(lambda info: found.append((info.byte_offset, info.size)))
    chunk_bytes = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    inflate = _inflater()
    buffer, done = bytearray(READ_BYTES), 0
    with file.open("rb", buffering=0) as stream:
        for run in _runs(sorted(found)):
            start = run[0][0]
            size = run[-1][0] + run[-1][1] - start
            if size > len(buffer):
                buffer = bytearray(size)
            view = memoryview(buffer)[:size]
            stream.seek(start)
            if stream.readinto(view) < size:
                break
            for offset, stored in run:
                chunk = view[offset - start : offset - start + stored]
                done += len(inflate(chunk, chunk_bytes)) if compressed else len(chunk)
    return min(done, int(dataset.nbytes))


def _runs(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    """Yield adjacent chunks that fit into one read."""
    run = chunks[:1]
    for offset, size in chunks[1:]:
        adjoins = run[-1][0] + run[-1][1] == offset
        if adjoins and offset + size - run[0][0] <= READ_BYTES:
            run.append((offset, size))
        else:
            yield run
            run = [(offset, size)]
    if run:
        yield run


def _inflater() -> Callable[[memoryview, int], bytes | bytearray]:
    """Return libdeflate if it is installed, else zlib; both take the stored bytes and the inflated size."""
    try:
        from deflate import zlib_decompress
    except ImportError:
        return lambda stored, size: zlib.decompress(stored, bufsize=size)
    return zlib_decompress


def _read_chunks(dataset: h5py.Dataset) -> int:
    """Read whole chunks through h5py into one buffer; return the bytes that were read."""
    rows = dataset.chunks[0]
    buffer, done = np.empty(dataset.chunks, dataset.dtype), 0
    for first in range(0, len(dataset), rows):
        block = buffer[: min(rows, len(dataset) - first)]
        dataset.read_direct(block, np.s_[first : first + len(block)])
        done += block.nbytes
    return done
