"""The class counts of a whole dataset: from the cached file where that is still true, else from a scan."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from . import store
from .errors import DataError, require_range
from .fingerprint import Stamp, content_digest
from .histogram import MAX_CLASSES, Histogram, outside_classes, wrong_label
from .location import Location
from .stream import blocks

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the cells counted so far and the cells of the dataset."""


@dataclass(frozen=True)
class DatasetCounts:
    """Class counts of a dataset and where they come from."""

    location: Location
    dataset: str
    counts: NDArray[np.int64]
    """(C,), cells of each class; ignored cells are not among them."""
    shape: tuple[int, int, int]
    source: Literal["cache", "scan"]
    cache_file: Path | None
    """The cached file that was read or written; None where nothing was cached."""
    digest: str | None
    """blake2b of the file's bytes; None where it was not taken."""
    seconds: float

    @property
    def classes(self) -> int:
        """C."""
        return int(self.counts.size)

    @property
    def grids(self) -> int:
        """N."""
        return self.shape[0]

    @property
    def cells(self) -> int:
        """How many cells were counted."""
        return int(self.counts.sum())


def class_counts(
    path: str | Path,
    use_cache: bool = True,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
) -> NDArray[np.int64]:
    """How many cells of the whole dataset hold each class, int64 (C,); `path` is `file.h5` or `file.h5:/dataset`.

    C is `classes`, else the dataset's HDF5 attribute `classes`, else the largest label + 1. With `use_cache` a cached
    file that is still true is believed, and a new one is written; without, neither is touched. Raises DataError for
    data that cannot be counted (see `open_grids`) and for the first label outside the classes, with its position.
    """
    return count_dataset(path, classes, ignore_index, cache_dir, use_cache=use_cache).counts


def count_dataset(
    data: str | Path | Location,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
    *,
    use_cache: bool = True,
    rebuild: bool = False,
    may_scan: bool = True,
    progress: Progress | None = None,
) -> DatasetCounts:
    """Count a dataset as `class_counts` does, and say where the counts come from.

    `rebuild` scans whatever is cached and writes the cached file anew; without `may_scan` counts that are not cached
    are a DataError.
    """
    start = time.perf_counter()
    if classes is not None:
        require_range("--classes", classes, 1, MAX_CLASSES)
    location = Location.parse(data)
    entry, file = None, None
    if use_cache and not rebuild:
        entry, file = _look_up(location, ignore_index, cache_dir)
    source: Literal["cache", "scan"] = "cache" if entry else "scan"
    if entry is None:
        if not may_scan and location.file.exists():
            raise DataError(
                "no cached counts are true of this dataset, and a scan was not allowed",
                str(location),
                do=f"Run `vaefit-cli weights {location}` first.",
            )
        entry, cacheable = _scan(location, classes, ignore_index, progress)
        if use_cache and cacheable:
            file = store.write(entry, location, cache_dir)
    counts = _of_classes(entry, location, classes, ignore_index)
    seconds = time.perf_counter() - start
    return DatasetCounts(location, entry.dataset, counts, entry.shape, source, file, entry.content or None, seconds)


def stored_counts(
    data: str | Path | Location,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
) -> DatasetCounts:
    """What the first readable cached file says, whether or not it is still true; DataError where there is none."""
    location = Location.parse(data)
    for path in store.places(location, cache_dir):
        entry = store.read(path)
        if entry is not None and entry.answers(location, ignore_index):
            counts = _of_classes(entry, location, classes, ignore_index)
            return DatasetCounts(location, entry.dataset, counts, entry.shape, "cache", path, entry.content, 0.0)
    raise DataError("there are no cached counts", str(location), do=f"Run `vaefit-cli weights {location}` first.")


def _look_up(
    location: Location, ignore_index: int | None, cache_dir: str | Path | None
) -> tuple[store.CachedCounts, Path] | tuple[None, None]:
    """The first cached file, in the order of places, that is true of the file as it is now."""
    try:
        now = Stamp.of(location.file)
    except OSError:
        return None, None  # the scan says what is wrong
    content: str | None = None
    for path in store.places(location, cache_dir):
        entry = store.read(path)
        if entry is None or not entry.answers(location, ignore_index) or entry.stamp.size != now.size:
            continue
        if entry.stamp.same_file(now) and not entry.stamp.racy:
            return entry, path
        # touched, copied, or edited: the bytes tell
        try:
            content = content or content_digest(location.file)
            unchanged = Stamp.of(location.file).same_file(now)
        except OSError:
            return None, None
        if content == entry.content and unchanged:
            entry = entry.restamped(now)
            return entry, store.write(entry, location, cache_dir) or path
    return None, None


def _scan(
    location: Location, classes: int | None, ignore_index: int | None, progress: Progress | None
) -> tuple[store.CachedCounts, bool]:
    """Count every cell; also whether the result may be cached (else the reason is logged)."""
    from .dataset import dataset_path, declared_classes, open_grids

    before, content = None, ""
    if location.file.is_file():
        before = Stamp.of(location.file)
        # an edit during the scan may leave the times of a file just written as they are; its bytes tell
        with suppress(OSError):  # opening it says what is wrong
            content = content_digest(location.file) if before.racy else ""
    with open_grids(location) as dataset:
        path = dataset_path(dataset)
        histogram = Histogram(f"{location.file}:/{path}", ignore_index)
        total, done = math.prod(dataset.shape), 0
        for origin, block in blocks(dataset):
            histogram.add(origin, block)
            done += block.size
            if progress is not None:
                progress(done, total)
        shape, dtype = dataset.shape, str(dataset.dtype)
        reason = _stored_elsewhere(dataset, location)
        try:
            declared = declared_classes(dataset)
        except DataError:
            if classes is None:
                raise
            declared, reason = None, "its attribute `classes` is wrong"
    assert before is not None  # open_grids has raised otherwise
    after = content_digest(location.file) if reason is None else ""
    if reason is not None:
        _log.warning(f"{location}: the counts are not cached, for {reason}")
    elif not Stamp.of(location.file).same_file(before) or content not in ("", after):
        _log.warning(f"{location}: the file changed while it was counted; the counts are not cached")
        reason, after = "it changed", ""
    used = int(np.flatnonzero(histogram.counts).max(initial=-1)) + 1
    entry = store.CachedCounts(
        asked_dataset=location.dataset,
        dataset=path,
        shape=shape,
        dtype=dtype,
        declared_classes=declared,
        stamp=before,
        content=after,
        labels=tuple(histogram.counts[:used].tolist()),
        outside=histogram.outside,
        outside_label=ignore_index if histogram.outside else None,
    )
    return entry, reason is None


def _stored_elsewhere(dataset: h5py.Dataset, location: Location) -> str | None:
    """Why a look at the main file alone cannot tell whether the dataset changed, None where it can."""
    if dataset.is_virtual:
        return "the dataset is virtual: its cells lie in other files"
    if dataset.external:
        return "the dataset's cells lie in external raw files"
    if not Path(dataset.file.filename).samefile(location.file):
        return "the dataset is behind a link into another file"
    return None


def _of_classes(
    entry: store.CachedCounts, location: Location, classes: int | None, ignore_index: int | None
) -> NDArray[np.int64]:
    """Counts (C,) of the classes asked for, without ignored cells; DataError for a label outside them."""
    counts = np.zeros(MAX_CLASSES, dtype=np.int64)
    counts[: len(entry.labels)] = entry.labels
    if ignore_index is not None and 0 <= ignore_index < MAX_CLASSES:
        counts[ignore_index] = 0
    largest = int(np.flatnonzero(counts).max(initial=-1))
    size = classes or entry.declared_classes or max(largest, 0) + 1
    if largest >= size:
        raise _first_outside(location, size, largest, ignore_index)
    return counts[:size]


def _first_outside(location: Location, classes: int, largest: int, ignore_index: int | None) -> DataError:
    """Scan for the place of a label that the counts say is there."""
    from .dataset import open_grids

    with open_grids(location) as dataset:
        for origin, block in blocks(dataset):
            if outside_classes(block, classes, ignore_index).any():
                where = f"{location.file}:{dataset.name}"
                return wrong_label(where, origin, block, classes, ignore_index, f"Pass --classes {largest + 1}")
    return DataError("the dataset changed while it was read", str(location), do="Run the command again.")
