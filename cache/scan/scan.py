"""Scan a dataset: count its spans in order and add up the counts, from the start or from a checkpoint."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from ..errors import DataError
from ..hdf5.blocks import MAX_LABELS, Count, Unwritten, blocks
from ..label_notes import RENUMBER
from .histogram import MAX_CLASSES, Histogram, OutsideLabelError, Part, add_counts, outside_classes, wrong_label
from .native_counter import ByteCounter, choose_counter
from .route import Route, choose_route

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py


@dataclass(frozen=True)
class Checkpoint:
    """The counts of the first spans of a scan; valid only while the data does not change."""

    route: str
    """Cut of the dataset into spans; a checkpoint of another cut is useless."""
    spans: Count
    """Number of counted spans."""
    cells: Count
    """Number of cells in these spans."""
    counts: Annotated[tuple[Count, ...], Meta(min_length=MAX_CLASSES, max_length=MAX_LABELS)]
    """Counts of the labels from 0, see `Part`."""
    outside: Count
    """Number of cells with the ignored label, where that is outside 0..65535."""

    def __post_init__(self) -> None:
        if sum(self.counts) + self.outside != self.cells:
            raise ValueError("the counts are not those of its cells")


Each = Callable[[Checkpoint, int], None]
"""Callback after each span, in order, with the checkpoint and the number of cells of the dataset."""


@dataclass(frozen=True)
class Scan(Part):
    """The counts of a whole dataset or of some of its spans, and how it was read."""

    cut: str
    """Cut of the dataset into spans; parts of one cut add up."""
    route: str
    """Name of the route, see `Route`."""
    reason: str
    """Reason for the route, and the counter that was used."""
    threads: int
    """Number of threads that read and counted."""
    resumed: int
    """Number of cells that a checkpoint had counted."""
    unwritten: Unwritten | None
    """The cells of the whole dataset that were never written."""
    doubt: str | None
    """Why the counts should not be cached; None where they may be."""


def scan_dataset(
    dataset: h5py.Dataset,  # (N, H, W) integers
    ignore_index: int | None = None,
    threads: int | None = None,
    resume: Checkpoint | None = None,
    each: Each | None = None,
    counter: ByteCounter | None = None,
    which: Callable[[int], range] | None = None,
) -> Scan:
    """Count every cell of an open dataset, or those of some spans.

    Args:
        threads: number of threads that inflate and count; None is one for each processor that this process may use, at
            most four, if the layout gains from them.
        resume: checkpoint of an earlier scan of the same data; a checkpoint of another route is ignored.
        counter: counter of single bytes; None is the fastest for the number of cells.
        which: from the number of spans to the numbers of those to count, for a scan that does not resume; None is all.

    Raises DataError for the first label that is neither in 0..65535 nor ignored, with its position, and for bytes that
    cannot be read.
    """
    total = math.prod(dataset.shape)
    with _label_errors_located(dataset, ignore_index):
        route = choose_route(dataset, threads)
        start = Checkpoint(route.cut, 0, 0, (0,) * MAX_CLASSES, 0)
        if resume is not None and resume.route == route.cut:
            start = resume
        counts, outside, cells = np.array(start.counts, np.int64), start.outside, start.cells
        numbers = range(start.spans, len(route.spans)) if which is None else which(len(route.spans))
        if counter is None:
            left = total - cells if which is None else total * len(numbers) // max(1, len(route.spans))
            fast = dataset.dtype == np.uint8 or route.planes
            counter = choose_counter(left if fast else 0, route.threads)
        parts = _parts(route, numbers, dataset, ignore_index, counter)
        for number, part in enumerate(parts, start.spans + 1):
            counts, outside, cells = add_counts(counts, part.counts), outside + part.outside, cells + part.cells
            if each is not None:
                each(Checkpoint(route.cut, number, cells, tuple(counts.tolist()), outside), total)
    reason = f"{route.reason}; {counter.told}"
    return Scan(
        counts,
        outside,
        cells,
        route.cut,
        route.name,
        reason,
        route.threads,
        start.cells,
        route.spans.unwritten,
        route.doubt,
    )


def first_wrong_label(dataset: h5py.Dataset, classes: int, ignore_index: int | None, instead: str = "") -> DataError:
    """Find the first label outside 0..classes-1 that is not ignored, and return its error.

    `instead` is the advice besides correcting the data; by default to ignore the label, or to number the labels anew
    where others are outside too.
    """
    where = f"{dataset.file.filename}:{dataset.name}"
    first: DataError | None = None
    labels: set[int] = set()
    for origin, block in blocks(dataset):
        outside = outside_classes(block, classes, ignore_index)
        if not outside.any():
            continue
        first = first or wrong_label(where, origin, block, classes, ignore_index, instead)
        labels.update(np.unique(block[outside]).tolist())
        if instead or len(labels) > 1 or not -(2**63) <= min(labels) < 2**63:
            break
    if first is None:
        return DataError("the dataset changed while it was read", where, do="Run the command again.")
    if not instead and (len(labels) > 1 or labels.pop() >= 2**63):
        return DataError(first.what, first.where, first.got, RENUMBER)
    return first


@contextmanager
def _label_errors_located(dataset: h5py.Dataset, ignore_index: int | None) -> Iterator[None]:
    """Raise the DataError for the first wrong label, or for a file that became shorter, where HDF5 reads zeros."""
    size = _size(dataset)
    try:
        yield
    except OutsideLabelError:
        raise first_wrong_label(dataset, MAX_LABELS, ignore_index) from None
    if _size(dataset) < size:
        where = f"{dataset.file.filename}:{dataset.name}"
        got = f"{_size(dataset):,} bytes, before {size:,}"
        raise DataError("the file was cut while it was counted", where, got, "Run the command again.")


def _size(dataset: h5py.Dataset) -> int:
    """Return the size in bytes of the file at the dataset's path now; 0 without a file."""
    try:
        return Path(dataset.file.filename).stat().st_size
    except OSError:
        return 0


def _parts(
    route: Route, numbers: range, dataset: h5py.Dataset, ignore_index: int | None, counter: ByteCounter
) -> Iterator[Part]:
    """Yield the counts of these spans, in order, counted by the threads of the route."""
    own = threading.local()

    def count(number: int) -> Part:
        if not hasattr(own, "histogram"):
            own.histogram = Histogram(dataset.dtype, ignore_index, counter.count)
        route.spans.count(number, own.histogram)
        part: Part = own.histogram.take()
        return part

    threads = route.threads
    if threads == 1:
        yield from map(count, numbers)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        running: deque[Future[Part]] = deque()
        for number in numbers:
            running.append(pool.submit(count, number))
            if len(running) > 2 * threads:  # no thread is idle, and few results wait
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
