"""Class counts of a whole dataset, from the cached file where it is still true, else from a scan."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, require_range
from .hdf5.blocks import MAX_CLASSES, MAX_LABELS
from .hdf5.open_files import flush_writers, shared_files
from .location import Location
from .store import counts_file
from .store.cache_key import CacheKey, FileState
from .store.cached_scan import CountSettings, scan_and_keep
from .store.change_detector import ChangedError
from .store.dataset_info import LabelCounts

if TYPE_CHECKING:  # a cached answer needs no HDF5
    from .scan import Checkpoint, Scan

_log = logging.getLogger("vaefit")

Progress = Callable[[int, int], None]
"""Called with the cells counted so far and the cells of the dataset."""


@dataclass(frozen=True)
class ClassCounts:
    """Counts of classes in grids."""

    counts: NDArray[np.int64]
    """(C,), cells of each class; ignored cells are not among them."""
    shape: tuple[int, int, int]
    """(N, H, W)"""
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
        """Number of counted cells, without ignored ones."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class DatasetCounts(ClassCounts):
    """The class counts of a dataset, and where they come from."""

    location: Location
    dataset: str
    source: Literal["cache", "scan"]
    cache_file: Path | None
    """The cached file that was read or written; None without one."""
    key: CacheKey | None
    """The files that were counted; None where the counts could not be cached."""
    described: LabelCounts
    """The dataset as it is stored, with the counts of all its labels."""
    ignore_index: int | None
    """The label whose cells are not counted: the caller's, else the one that an attribute of the file declares."""
    route: str = ""
    """The way in which the cells were read; empty for a cached answer, as are the next two."""
    reason: str = ""
    threads: int = 0
    resumed: int = 0
    """Cells that an earlier, interrupted scan had counted."""

    @property
    def digest(self) -> str | None:
        """sha256 of the file's bytes (of several files, see `content_digest`); None without a cached file."""
        return None if self.key is None else self.key.content or None


def count_dataset(
    data: str | Path | Location,
    *,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
    use_cache: bool = True,
    rebuild: bool = False,
    may_scan: bool = True,
    progress: Progress | None = None,
    threads: int | None = None,
) -> DatasetCounts:
    """Count one dataset as `class_counts` does, and return where the counts come from too.

    Args:
        rebuild: scan whatever the cached and partial files hold, and replace the cached file.
        may_scan: False makes counts that are not cached a DataError.
        progress: called after each part of a scan.
        threads: number of threads that inflate and count, by default as many as are useful, at most four.

    Raises:
        SettingError: `classes` is not 1..65536.
        DataError: the data cannot be read, holds a label outside the classes, or changed twice while it was counted.
    """
    settings = CountSettings(classes, ignore_index, cache_dir, use_cache, rebuild, may_scan, threads)
    return count_location(data, settings, progress)


def count_location(
    data: str | Path | Location, settings: CountSettings, progress: Progress | None = None
) -> DatasetCounts:
    """Count one dataset, see `count_dataset`."""
    start = time.perf_counter()
    if settings.classes is not None:
        require_range("--classes", settings.classes, 1, MAX_LABELS)
    location = Location.parse(data)
    flush_writers()  # before a file is stamped
    with shared_files():
        hit = cached_counts(location, settings)
        if hit is not None:
            return hit

        def each(at: Checkpoint, total: int) -> None:
            if progress is not None:
                progress(at.cells, total)

        try:
            scanned = scan_and_keep(location, settings, each)
        except ChangedError as changed:
            warn_recounted(str(changed))
            try:
                scanned = scan_and_keep(location, settings, each)
            except ChangedError as again:
                raise twice_changed(str(again)) from None
        return as_result(scanned.found, location, settings, start, scanned.cache_file, scanned.key, scanned.scan)


def stored_counts(
    data: str | Path | Location,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
) -> DatasetCounts:
    """Return the counts in the cached file, whether they are still true or not; DataError without a readable file."""
    start = time.perf_counter()
    location = Location.parse(data)
    settings = CountSettings(classes, ignore_index, cache_dir)
    if (hit := cached_counts(location, settings)) is not None:
        return hit
    for path in counts_file.places(location, cache_dir):
        entry = None if counts_file.belongs_to_other_data(path, location, cache_dir) else counts_file.read(path)
        if entry is not None and entry.answers(location, ignore_index):
            return as_result(entry.found, location, settings, start, path, entry.key)
    raise DataError("there are no cached counts", str(location), do=f"Run `vaefit-cli weights {location}` first.")


def cached_counts(location: Location, settings: CountSettings) -> DatasetCounts | None:
    """Return the counts of a true cached file; None without one. DataError where the dataset may not be scanned."""
    start = time.perf_counter()
    hit = _look_up(location, settings) if settings.use_cache and not settings.rebuild else None
    if hit is not None:
        entry, path = hit
        return as_result(entry.found, location, settings, start, path, entry.key)
    if not settings.may_scan and location.exists():
        what = "no cached counts are true of this dataset, and a scan was not allowed"
        raise DataError(what, str(location), do=f"Run `vaefit-cli weights {location}` first.")
    return None


def _look_up(location: Location, settings: CountSettings) -> tuple[counts_file.CachedCounts, Path] | None:
    """Return the first cached counts, in order of the paths, that are true of the files as they are now."""
    if not location.exists():
        return None  # the scan raises the error
    look = FileState(location)
    for path in counts_file.places(location, settings.cache_dir):
        entry = counts_file.read(path)
        if entry is None or not entry.answers(location, settings.ignore_index):
            continue
        key = entry.key.still_true(location, look)
        if key is entry.key:
            return entry, path
        if key is not None:
            entry = replace(entry, key=key)
            return entry, counts_file.write(entry, location, settings.cache_dir, replace_newer=False) or path
    return None


def twice_changed(file: str) -> DataError:
    """Return the error for a file that changes again and again."""
    what = "the data changed while it was counted, twice"
    return DataError(what, file, do="Run the command again when nobody writes to it.")


def warn_recounted(file: str) -> None:
    """Log that a file changed during its scan and is counted again."""
    _log.warning(f"{file}: it changed while it was counted, so it is counted again")


def as_result(
    found: LabelCounts,
    location: Location,
    settings: CountSettings,
    start: float,
    file: Path | None,
    key: CacheKey | None,
    scan: Scan | None = None,
) -> DatasetCounts:
    """Return the counts of a scan, or without one of a cached file; DataError for a label outside the classes.

    `start` is the time at which the count began, in seconds of `time.perf_counter`.
    """
    ignored = found.ignored(settings.ignore_index)
    counts = _of_classes(found, location, settings.classes, ignored)
    source: Literal["cache", "scan"] = "cache" if scan is None else "scan"
    how = ("", "", 0, 0) if scan is None else (scan.route, scan.reason, scan.threads, scan.resumed)
    seconds = time.perf_counter() - start
    return DatasetCounts(counts, found.shape, seconds, location, found.dataset, source, file, key, found, ignored, *how)


def _of_classes(
    found: LabelCounts, location: Location, classes: int | None, ignore_index: int | None
) -> NDArray[np.int64]:
    """Return counts (C,) of the requested classes, without ignored cells; DataError for a label outside them."""
    counts = np.zeros(max(len(found.labels), 1), dtype=np.int64)
    counts[: len(found.labels)] = found.labels
    if ignore_index is not None and 0 <= ignore_index < counts.size:
        counts[ignore_index] = 0
    largest = int(np.flatnonzero(counts).max(initial=-1))
    size = classes or found.declared_classes or max(largest, 0) + 1
    if largest >= size:
        from .hdf5.dataset import open_grids
        from .scan import first_wrong_label

        outside = np.flatnonzero(counts[size:]) + size
        advice = f"Pass --ignore-index {outside[0]} if it marks cells without a class" if outside.size == 1 else ""
        if largest < MAX_CLASSES:
            advice = f"{advice}, or --classes {largest + 1}" if advice else f"Pass --classes {largest + 1}"
        with open_grids(location) as dataset:
            raise first_wrong_label(dataset, size, ignore_index, advice)
    return np.concatenate([counts, np.zeros(max(0, size - counts.size), np.int64)])[:size]
