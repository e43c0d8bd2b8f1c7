"""Choose the fastest way to read the cells of a dataset, and give the reason."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ..errors import DataError
from ..hdf5.blocks import Unwritten
from ..hdf5.label_view import stored
from .chunk_index import Chunks
from .chunk_reader import StoredChunks
from .contiguous_reader import ContiguousBytes
from .filtered_reader import FilteredChunks
from .h5py_reader import ChunkReads, Slabs
from .histogram import Histogram
from .inflate import choose_inflate

if TYPE_CHECKING:
    import h5py

MAX_CHUNK = 1 << 30
"""Most bytes of one chunk in memory; only a damaged file has a larger one."""
MEMORY = 1 << 26
"""Most bytes of chunks that all threads hold together; each holds one, the first thread a chunk of any size."""
THREADS = 4
"""Most threads by default: memory grows with them, and storage is seldom fast enough for more."""
_UNCHECKED = "HDF5 does not check how many bytes the filters of its chunks give"
_OWN_TYPE = "the stored integers have a type of their own"
_THREADED_CHUNK = 1 << 16
"""A chunk of fewer bytes is counted before another thread has started."""


@dataclass(frozen=True)
class Route:
    """Method that reads a dataset."""

    name: str
    """`contiguous`, `chunks`, `chunks through h5py` or `h5py`."""
    reason: str
    """Reason for the choice, as text."""
    spans: Spans
    threads: int
    """Number of threads that read and count."""
    planes: bool = False
    """True for shuffled cells of several bytes, of which only the plane of the lowest bytes is counted."""
    doubt: str | None = None
    """Why the counts should not be cached; None where they may be."""

    @property
    def cut(self) -> str:
        """Name and number of spans; a scan can resume from a checkpoint of an equal cut."""
        return f"{self.name}/{len(self.spans)}"


def choose_route(dataset: h5py.Dataset, threads: int | None = None) -> Route:
    """Return the fastest route that gives the same counts as h5py; DataError where the file is damaged.

    `threads` is the number of threads; None is one for each processor that this process may use, at most four.
    """
    try:
        if math.prod(dataset.shape) >= 2**63:
            raise OverflowError(f"it says that it holds {math.prod(dataset.shape):,} cells")
        route = _choose(dataset, default_threads() if threads is None else threads)
        return replace(route, threads=max(1, min(route.threads, len(route.spans))))
    except (RuntimeError, KeyError, OSError, OverflowError) as error:
        where = f"{dataset.file.filename}:{dataset.name}"
        do = "Take another copy of it, or write it anew."
        raise DataError("the file is damaged", where, str(error).partition("\n")[0], do) from error


def default_threads(processes: int = 1) -> int:
    """Return the default number of threads of each of some processes on this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, usable // processes))


def _choose(dataset: h5py.Dataset, threads: int) -> Route:
    import h5py

    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        return _chunked(dataset, threads)
    others = {h5py.h5d.VIRTUAL: "the dataset is virtual", h5py.h5d.COMPACT: "the cells lie among the metadata"}
    why_not = others.get(layout) or _not_by_bytes(dataset)
    if why_not is not None:
        return Route("h5py", why_not, Slabs(dataset, _without_source(stored(dataset))), 1)
    offset = dataset.id.get_offset()
    if offset is None:
        nothing = ChunkReads(dataset, Chunks.empty(dataset.shape))
        return Route("chunks", "nothing was ever written: every cell holds the fill value", nothing, 1)
    stretches = ContiguousBytes(dataset, offset)
    return Route("contiguous", "the cells lie in the file one after another", stretches, threads)


def _chunked(labels: h5py.Dataset, threads: int) -> Route:
    import h5py

    dataset = stored(labels)
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk_bytes > MAX_CHUNK:
        where = f"{dataset.file.filename}:{dataset.name}"
        do = "The file is damaged; or write it anew in smaller chunks."
        raise DataError("one chunk does not fit into memory", where, f"{chunk_bytes:,} bytes", do)
    creation = dataset.id.get_create_plist()
    pipeline = [creation.get_filter(i) for i in range(creation.get_nfilters())]
    filters = [code for code, _, _, _ in pipeline]
    doubt = _UNCHECKED if filters else None
    growing = [axis for axis, most in enumerate(dataset.maxshape) if most is None]
    if len(growing) == 1 and growing != [0]:
        why = "HDF5 may list the chunks of a dataset wrongly that may grow in H or W alone"
        return Route("h5py", why, Slabs(labels), 1, doubt=doubt)
    chunks = Chunks.from_dataset(dataset)
    if chunks is None:
        return Route("h5py", "the list of chunks is not in order", Slabs(labels), 1, doubt=doubt)
    known = [[], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]]
    itemsize = dataset.dtype.itemsize
    # what HDF5 refuses to undo, or undoes in another way
    usual = all(
        v == (itemsize,) if code == h5py.h5z.FILTER_SHUFFLE else len(v) == 1 and v[0] <= 9 for code, _, v, _ in pipeline
    )
    if labels.dtype != dataset.dtype or not _of_plain_integers(dataset):
        why = _OWN_TYPE
    elif filters not in known or not usual:
        names = (name.decode(errors="replace") or str(code) for code, _, _, name in pipeline)
        why = f"only h5py undoes the filter {' and '.join(names)}"
    else:
        how = f"inflated by {choose_inflate()[1]}" if filters else "without a filter"
        threads = min(threads, MEMORY // chunk_bytes) if chunk_bytes >= _THREADED_CHUNK else 1
        reader, planes = StoredChunks(dataset, chunks, filters), len(filters) == 2 and itemsize > 1
        return Route("chunks", f"chunks taken as they are stored, {how}", reader, threads, planes)
    if not filters and labels is dataset and len(chunks) < chunks.most:
        return Route("chunks through h5py", f"{why}; not every chunk was written", ChunkReads(dataset, chunks), 1)
    if not filters:
        return Route("h5py", why, Slabs(labels), 1)
    with suppress(OSError, RuntimeError, TypeError, ValueError):
        return Route("chunks through h5py", why, FilteredChunks(dataset, chunks), 1)
    return Route("h5py", why, Slabs(labels), 1, doubt=_UNCHECKED)


def _without_source(dataset: h5py.Dataset) -> Unwritten | None:
    """Return the cells of a virtual dataset that no source has, where none has two; None for another dataset."""
    if not dataset.is_virtual:
        return None
    left = int(dataset.size)
    for target, *_ in dataset.virtual_sources():
        try:
            left -= target.get_select_npoints()
        except RuntimeError:  # a source without limits
            return None
    return Unwritten(left, 0, None) if left > 0 else None


def _not_by_bytes(dataset: h5py.Dataset) -> str | None:
    """Return why the cells of a contiguous dataset cannot be read as bytes of the file; None where they can."""
    file = dataset.file
    if not hasattr(os, "preadv"):
        return "this system does not read at an offset"
    if file.driver != "sec2":
        return f"the file is opened by the driver {file.driver}"
    if file.userblock_size:
        return "the file begins with a user block"
    if dataset.external:
        return "the cells lie in external raw files"
    if not _of_plain_integers(dataset):
        return _OWN_TYPE
    stored = dataset.id.get_storage_size()
    if dataset.id.get_offset() is not None and stored < dataset.nbytes:
        raise RuntimeError(f"it holds {stored:,} bytes of the {dataset.nbytes:,} that its cells take")
    return None


def _of_plain_integers(dataset: h5py.Dataset) -> bool:
    """True where the cells are stored as in numpy: whole bytes without unused bits."""
    import h5py

    return bool(dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype))


class Spans(Protocol):
    """Interface of a reader: the spans of a dataset, which together hold each cell once, in any order."""

    @property
    def unwritten(self) -> Unwritten | None:
        """The cells that were never written; None without any, or where that is not known."""

    def __len__(self) -> int: ...

    def count(self, number: int, histogram: Histogram) -> None:
        """Add the cells of a span to a histogram; threads may call it concurrently, each with its own histogram.

        Raises OutsideLabelError as the histogram does, and DataError for bytes that cannot be read.
        """
