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
from .hdf5.blocks import MAX_CLASSES
from .hdf5.open_files import flush_writers, shared_files
from .location import Location
from .store import counts_file
from .store.cache_key import FileState
from .store.cached_scan import scan_and_keep, scan_unchanged
from .store.change_detector import ChangedError
from .store.dataset_info import LabelCounts

if TYPE_CHECKING:  # a cached answer needs no HDF5
    from .scan import Checkpoint

_log = logging.getLogger("vaefit")

Progress = Callable[[int, int], None]
"""Called with the cells counted so far and the cells of the dataset."""


@dataclass(frozen=True)
class DatasetCounts:
    """The class counts of a dataset, and where they come from."""

    location: Location
    dataset: str
    counts: NDArray[np.int64]
    """(C,), cells of each class; ignored cells are not among them."""
    shape: tuple[int, int, int]
    source: Literal["cache", "scan"]
    cache_file: Path | None
    """The cached file that was read or written; None without one."""
    digest: str | None
    """sha256 of the file's bytes (of several files, see `content_digest`); None without a cached file."""
    seconds: float
    route: str = ""
    """The way in which the cells were read; empty for a cached answer, as are the next two."""
    reason: str = ""
    threads: int = 0
    resumed: int = 0
    """Cells that an earlier, interrupted scan had counted."""

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
        SettingError: `classes` is not 1..256.
        DataError: the data cannot be read, holds a label outside the classes, or changed twice while it was counted.
    """
    start = time.perf_counter()
    if classes is not None:
        require_range("--classes", classes, 1, MAX_CLASSES)
    location = Location.parse(data)
    flush_writers()  # before a file is stamped
    with shared_files():
        hit = cached_counts(location, classes, ignore_index, cache_dir, use_cache and not rebuild, may_scan)
        if hit is not None:
            return hit

        def each(at: Checkpoint, total: int) -> None:
            if progress is not None:
                progress(at.cells, total)

        file, digest = None, None
        for last in (False, True):
            try:
                if use_cache:
                    scanned, file, digest = scan_and_keep(
                        location, classes, ignore_index, threads, each, cache_dir, rebuild
                    )
                else:
                    scanned = scan_unchanged(location, classes, ignore_index, threads, each)
                break
            except ChangedError as changed:
                if last:
                    raise twice_changed(str(changed)) from None
                warn_recounted(str(changed))
        found, scan = scanned.found, scanned.scan
        return DatasetCounts(
            location=location,
            dataset=found.dataset,
            counts=of_classes(found, location, classes, ignore_index),
            shape=found.shape,
            source="scan",
            cache_file=file,
            digest=digest,
            seconds=time.perf_counter() - start,
            route=scan.route,
            reason=scan.reason,
            threads=scan.threads,
            resumed=scan.resumed,
        )


def stored_counts(
    data: str | Path | Location,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
) -> DatasetCounts:
    """Return the counts in the cached file, whether they are still true or not; DataError without a readable file."""
    start = time.perf_counter()
    location = Location.parse(data)
    if (hit := cached_counts(location, classes, ignore_index, cache_dir)) is not None:
        return hit
    for path in counts_file.places(location, cache_dir):
        entry = None if counts_file.belongs_to_other_data(path, location, cache_dir) else counts_file.read(path)
        if entry is not None and entry.answers(location, ignore_index):
            return _answered(entry, path, location, classes, ignore_index, start)
    raise DataError("there are no cached counts", str(location), do=f"Run `vaefit-cli weights {location}` first.")


def cached_counts(
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    cache_dir: str | Path | None,
    use_cache: bool = True,
    may_scan: bool = True,
) -> DatasetCounts | None:
    """Return the counts of a true cached file; None without one. DataError where the dataset may not be scanned."""
    start = time.perf_counter()
    hit = _look_up(location, ignore_index, cache_dir) if use_cache else None
    if hit is not None:
        return _answered(*hit, location, classes, ignore_index, start)
    if not may_scan and location.exists():
        what = "no cached counts are true of this dataset, and a scan was not allowed"
        raise DataError(what, str(location), do=f"Run `vaefit-cli weights {location}` first.")
    return None


def _look_up(
    location: Location, ignore_index: int | None, cache_dir: str | Path | None
) -> tuple[counts_file.CachedCounts, Path] | None:
    """Return the first cached counts, in order of the paths, that are true of the files as they are now."""
    if not location.exists():
        return None  # the scan raises the error
    look = FileState(location)
    for path in counts_file.places(location, cache_dir):
        entry = counts_file.read(path)
        if entry is None or not entry.answers(location, ignore_index):
            continue
        key = entry.key.still_true(location, look)
        if key is entry.key:
            return entry, path
        if key is not None:
            entry = replace(entry, key=key)
            return entry, counts_file.write(entry, location, cache_dir, replace_newer=False) or path
    return None


def twice_changed(file: str) -> DataError:
    """Return the error for a file that changes again and again."""
    what = "the data changed while it was counted, twice"
    return DataError(what, file, do="Run the command again when nobody writes to it.")


def warn_recounted(file: str) -> None:
    """Log that a file changed during its scan and is counted again."""
    _log.warning(f"{file}: it changed while it was counted, so it is counted again")


def _answered(
    entry: counts_file.CachedCounts,
    file: Path,
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    start: float,
) -> DatasetCounts:
    """Return the counts of a cached file as a result."""
    found = entry.found
    counts = of_classes(found, location, classes, ignore_index)
    seconds = time.perf_counter() - start
    return DatasetCounts(
        location, found.dataset, counts, found.shape, "cache", file, entry.key.content or None, seconds
    )


def of_classes(
    found: LabelCounts, location: Location, classes: int | None, ignore_index: int | None
) -> NDArray[np.int64]:
    """Return counts (C,) of the requested classes, without ignored cells; DataError for a label outside them."""
    counts = np.zeros(MAX_CLASSES, dtype=np.int64)
    counts[: len(found.labels)] = found.labels
    if ignore_index is not None and 0 <= ignore_index < MAX_CLASSES:
        counts[ignore_index] = 0
    largest = int(np.flatnonzero(counts).max(initial=-1))
    size = classes or found.declared_classes or max(largest, 0) + 1
    if largest >= size:
        raise _first_outside(location, size, largest, ignore_index)
    return counts[:size]


def _first_outside(location: Location, classes: int, largest: int, ignore_index: int | None) -> DataError:
    """Find the position of a label outside the classes, and return its error."""
    from .hdf5.dataset import open_grids
    from .scan import first_wrong_label

    with open_grids(location) as dataset:
        return first_wrong_label(dataset, classes, ignore_index, f"Pass --classes {largest + 1}")
