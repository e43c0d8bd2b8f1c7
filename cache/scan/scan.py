"""One pass over a dataset: its spans in order, their counts added up, from the start or from where a scan stopped."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..hdf5.blocks import blocks
from .histogram import MAX_CLASSES, Histogram, OutsideLabelError, Part, outside_classes, wrong_label
from .native_counter import ByteCounter, choose_counter
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


@dataclass(frozen=True)
class ScannedPart:
    """Counts of some spans of a dataset, and how they were taken."""

    part: Part
    cut: str
    """How the dataset was cut into spans; parts of one cut add up."""
    route: str
    reason: str
    threads: int


def scan_dataset(
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
    total = math.prod(dataset.shape)
    with _label_errors_located(dataset, ignore_index):
        route = choose_route(dataset, threads)
        start = Checkpoint(route.cut, 0, 0, (0,) * MAX_CLASSES, 0)
        if resume is not None and resume.route == route.cut:
            start = resume
        counts, outside, cells = np.array(start.counts, np.int64), start.outside, start.cells
        if counter is None:
            counter = _counter(dataset, route, total - cells)
        parts = _parts(route, range(start.spans, len(route.spans)), dataset, ignore_index, counter)
        for number, part in enumerate(parts, start.spans + 1):
            counts, outside, cells = counts + part.counts, outside + part.outside, cells + part.cells
            if each is not None:
                each(Checkpoint(route.cut, number, cells, tuple(counts.tolist()), outside), total)
    return Scan(counts, outside, route.name, f"{route.reason}; {counter.told}", route.threads, start.cells)


def scan_part(
    dataset: h5py.Dataset,  # (N, H, W) integers
    which: Callable[[int], range],
    ignore_index: int | None = None,
    threads: int | None = None,
    each: Callable[[int], None] | None = None,
    among: int = 0,
) -> ScannedPart:
    """Count those spans of an open dataset that `which` says, asked with how many there are; errors as `scan`.

    `each` is called after each span with the cells counted so far; `among` is how many cells this process counts, in
    this part and others, where that is known: of many a counter is built that is no use for few.
    """
    counts, outside, cells = np.zeros(MAX_CLASSES, np.int64), 0, 0
    with _label_errors_located(dataset, ignore_index):
        route = choose_route(dataset, threads)
        numbers = which(len(route.spans))
        here = math.prod(dataset.shape) * len(numbers) // max(1, len(route.spans))
        counter = _counter(dataset, route, max(here, among))
        for part in _parts(route, numbers, dataset, ignore_index, counter):
            counts, outside, cells = counts + part.counts, outside + part.outside, cells + part.cells
            if each is not None:
                each(cells)
    found = Part(counts, outside, cells)
    return ScannedPart(found, route.cut, route.name, f"{route.reason}; {counter.told}", route.threads)


def first_wrong_label(dataset: h5py.Dataset, classes: int, ignore_index: int | None, instead: str = "") -> DataError:
    """The error for a label outside 0..classes-1 that is not ignored, found by another look at all labels.

    `instead` is what to do about it besides mending the data; by default to ignore the label.
    """
    where = f"{dataset.file.filename}:{dataset.name}"
    for origin, block in blocks(dataset):
        if outside_classes(block, classes, ignore_index).any():
            return wrong_label(where, origin, block, classes, ignore_index, instead)
    return DataError("the dataset changed while it was read", where, do="Run the command again.")


@contextmanager
def _label_errors_located(dataset: h5py.Dataset, ignore_index: int | None) -> Iterator[None]:
    """Say which label is wrong, and where the file was cut meanwhile, in which HDF5 reads zeros if it has it open."""
    size = _size(dataset)
    try:
        yield
    except OutsideLabelError:
        raise first_wrong_label(dataset, MAX_CLASSES, ignore_index) from None
    if _size(dataset) < size:
        where = f"{dataset.file.filename}:{dataset.name}"
        got = f"{_size(dataset):,} bytes, before {size:,}"
        raise DataError("the file was cut while it was counted", where, got, "Run the command again.")


def _counter(dataset: h5py.Dataset, route: Route, cells: int) -> ByteCounter:
    """What counts so many cells fastest."""
    return choose_counter(cells if dataset.dtype == np.uint8 or route.planes else 0, route.threads)


def _size(dataset: h5py.Dataset) -> int:
    """Bytes of the file that is named as the dataset's is, now; 0 where there is none."""
    try:
        return Path(dataset.file.filename).stat().st_size
    except OSError:
        return 0


def _parts(
    route: Route, numbers: range, dataset: h5py.Dataset, ignore_index: int | None, counter: ByteCounter
) -> Iterator[Part]:
    """The counts of these spans, in order, counted by as many threads as the route has."""
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
            if len(running) > 2 * threads:  # nobody is idle, and results that wait stay few
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
