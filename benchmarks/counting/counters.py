"""Ways to count the classes of a dataset, each from opening the file to the counts; and what only reading it costs.

A worker process imports this: it must not import torch, whose memory and threads would be measured with it.
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
class Tally:
    """What a counter found."""

    counts: list[int] | None
    """Of the labels 0..255; None where it only reads."""
    bytes: int
    """How many bytes of cells it went through, as they are in memory."""
    way: str = ""
    """How ours was read, or where its counts came from."""


def naive(file: Path, slices: int | None = None) -> Tally:
    """Slices of 1,024 grids and np.bincount of each, as people write it; of the first `slices` where given."""
    return _slices(file, NAIVE_GRIDS, slices)


def whole_chunks(file: Path, slices: int | None = None) -> Tally:
    """The same in slices of whole chunks, of 4,096 grids at least."""
    with h5py.File(file) as handle:
        chunks = handle["grids"].chunks
    rows = chunks[0] if chunks else SLICE_GRIDS
    return _slices(file, rows * -(-SLICE_GRIDS // rows), slices)


def ours(file: Path, slices: int | None = None) -> Tally:
    """The scan of `vaefit.cache` on one thread, numpy counting."""
    return _scan(file, 1, NUMPY)


def ours_on_two(file: Path, slices: int | None = None) -> Tally:
    """The scan of `vaefit.cache` on two threads, numpy counting."""
    return _scan(file, 2, NUMPY)


def ours_compiled(file: Path, slices: int | None = None) -> Tally:
    """The scan of `vaefit.cache` on one thread, the compiled counter counting."""
    return _scan(file, 1, build_counter())


def cached(file: Path, slices: int | None = None) -> Tally:
    """`count_dataset` with its cached file in a folder `cache` beside the data."""
    found = count_dataset(file, cache_dir=file.parent / "cache")
    counts = [*found.counts.tolist(), *[0] * (LABELS - found.classes)]
    return Tally(counts, found.cells, found.source)


def decode(file: Path, slices: int | None = None) -> Tally:
    """Read every stored byte and inflate it, nothing more, into memory that the processor's cache holds.

    A shuffle is not undone; other codecs are HDF5's.
    """
    with h5py.File(file) as handle:
        dataset = handle["grids"]
        properties = dataset.id.get_create_plist()
        filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
        if filters <= ZLIB_FILTERS and dataset.chunks is None:
            return Tally(None, _read(file, dataset.id.get_offset(), dataset.nbytes))
        if filters <= ZLIB_FILTERS:
            return Tally(None, _inflate(file, dataset, bool(filters)))
        return Tally(None, _read_chunks(dataset))


def read_whole(file: Path, slices: int | None = None) -> Tally:
    """Let h5py read all cells into one new array, nothing more."""
    with h5py.File(file) as handle:
        return Tally(None, handle["grids"][:].nbytes)


def prepare(counter: str) -> None:
    """Do what a counter needs once a process, which is not a part of its times."""
    if COUNTERS[counter] is ours_compiled:
        build_counter()


Counter = Callable[[Path, int | None], Tally]
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


def _slices(file: Path, grids: int, slices: int | None) -> Tally:
    with h5py.File(file) as handle:
        dataset = handle["grids"]
        end = len(dataset) if slices is None else min(len(dataset), grids * slices)
        counts, size = np.zeros(LABELS, np.int64), 0
        for first in range(0, end, grids):
            block = dataset[first : min(first + grids, end)]
            counts += np.bincount(block.reshape(-1), minlength=LABELS)
            size += block.nbytes
    return Tally(counts.tolist(), size)


def _scan(file: Path, threads: int, counter: ByteCounter) -> Tally:
    with open_grids(Location(file)) as dataset:
        found = scan_dataset(dataset, threads=threads, counter=counter)
        return Tally(found.counts.tolist(), dataset.nbytes, found.route)


def _read(file: Path, offset: int, size: int) -> int:
    """Read a range of the file, over the same buffer."""
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
    """Read all chunks in the file's order, and inflate them; the bytes that come out, of edge chunks what is used."""
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
    """Neighbours in the file, together within one read."""
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
    """libdeflate where it is installed, else zlib; both take the stored bytes and the size that they grow to."""
    try:
        from deflate import zlib_decompress
    except ImportError:
        return lambda stored, size: zlib.decompress(stored, bufsize=size)
    return zlib_decompress


def _read_chunks(dataset: h5py.Dataset) -> int:
    """Read whole chunks through h5py, into the same buffer."""
    rows = dataset.chunks[0]
    buffer, done = np.empty(dataset.chunks, dataset.dtype), 0
    for first in range(0, len(dataset), rows):
        block = buffer[: min(rows, len(dataset) - first)]
        dataset.read_direct(block, np.s_[first : first + len(block)])
        done += block.nbytes
    return done
