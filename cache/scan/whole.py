"""One pass over a dataset: its spans in order, their counts added up, from the start or from where a scan stopped."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..compiled_count import ByteCounter, choose_counter
from ..errors import DataError
from ..histogram import MAX_CLASSES, Histogram, OutsideLabelError, Part, outside_classes, wrong_label
from ..stream import blocks
from .route import Route, choose_route

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py


@dataclass(frozen=True)
class Checkpoint:
    """What the first spans of a scan hold. It may be continued only on data that has not changed since."""

    route: str
    """How the dataset was cut into spans; another cutting makes the checkpoint useless."""
    spans: int
    """How many spans are counted."""
    cells: int
    """How many cells they hold."""
    counts: tuple[int, ...]
    """Counts of the labels 0..255."""
    outside: int
    """Cells with the ignored label, where that lies outside 0..255."""


Each = Callable[[Checkpoint, int], None]
"""Called after each span, in order, with where the scan stands and the cells of the whole dataset."""


@dataclass(frozen=True)
class Scan:
    """Counts of a whole dataset, and how they were taken."""

    counts: NDArray[np.int64]
    """(256,), cells of each label 0..255."""
    outside: int
    """Cells with the ignored label, where that lies outside 0..255."""
    route: str
    """Which way the cells were read, in one word."""
    reason: str
    """Why that way, and what counted them."""
    threads: int
    """How many threads read and counted at once."""
    resumed: int
    """Cells that a checkpoint had counted already."""


def scan(
    dataset: h5py.Dataset,  # (N, H, W) integers
    ignore_index: int | None = None,
    threads: int | None = None,
    resume: Checkpoint | None = None,
    each: Each | None = None,
    counter: ByteCounter | None = None,
) -> Scan:
    """Count every cell of an open dataset.

    Args:
        threads: how many inflate and count at once; None is one for each processor that this process may use, at most
            four, as far as the layout gains from them.
        resume: where an earlier scan of the same data stopped; one of another route is ignored.
        counter: what counts single bytes; None is the one that is fastest for as many cells as are left.

    Raises DataError for the first label that is neither in 0..255 nor ignored, with its position, and for bytes that
    cannot be read.
    """
    size = _size(dataset)
    route = choose_route(dataset, threads)
    start = Checkpoint(route.cut, 0, 0, (0,) * MAX_CLASSES, 0)
    if resume is not None and resume.route == route.cut:
        start = resume
    counts, outside, cells = np.array(start.counts, np.int64), start.outside, start.cells
    total = math.prod(dataset.shape)
    if counter is None:
        counter = choose_counter(total - cells if dataset.dtype == np.uint8 or route.planes else 0, route.threads)

    def histogram() -> Histogram:
        return Histogram(dataset.dtype, ignore_index, counter.count)

    try:
        for number, part in enumerate(_parts(route, start.spans, histogram), start.spans + 1):
            counts, outside, cells = counts + part.counts, outside + part.outside, cells + part.cells
            if each is not None:
                each(Checkpoint(route.cut, number, cells, tuple(counts.tolist()), outside), total)
    except OutsideLabelError:
        raise first_wrong_label(dataset, MAX_CLASSES, ignore_index) from None
    if _size(dataset) < size:  # HDF5 reads zeros where a file that it has open was cut off
        where = f"{dataset.file.filename}:{dataset.name}"
        got = f"{_size(dataset):,} bytes, before {size:,}"
        raise DataError("the file was cut while it was counted", where, got, "Run the command again.")
    return Scan(counts, outside, route.name, f"{route.reason}; {counter.told}", route.threads, start.cells)


def first_wrong_label(dataset: h5py.Dataset, classes: int, ignore_index: int | None, instead: str = "") -> DataError:
    """The error for a label outside 0..classes-1 that is not ignored, found by another look at all labels.

    `instead` is what to do about it besides mending the data; by default to ignore the label.
    """
    where = f"{dataset.file.filename}:{dataset.name}"
    for origin, block in blocks(dataset):
        if outside_classes(block, classes, ignore_index).any():
            return wrong_label(where, origin, block, classes, ignore_index, instead)
    return DataError("the dataset changed while it was read", where, do="Run the command again.")


def _size(dataset: h5py.Dataset) -> int:
    """Bytes of the file that is named as the dataset's is, now; 0 where there is none."""
    try:
        return Path(dataset.file.filename).stat().st_size
    except OSError:
        return 0


def _parts(route: Route, first: int, histogram: Callable[[], Histogram]) -> Iterator[Part]:
    """The counts of the spans from `first` on, in order, counted by as many threads as the route has."""
    own = threading.local()

    def count(number: int) -> Part:
        if not hasattr(own, "histogram"):
            own.histogram = histogram()
        route.spans.count(number, own.histogram)
        part: Part = own.histogram.take()
        return part

    numbers = range(first, len(route.spans))
    threads = route.threads
    if threads == 1:
        yield from map(count, numbers)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        running: deque[Future[Part]] = deque()
        for number in numbers:
            running.append(pool.submit(count, number))
            if len(running) > 2 * threads:  # nobody is idle, and results that wait stay few
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
