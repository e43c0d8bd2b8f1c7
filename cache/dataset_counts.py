"""The class counts of a whole dataset: from the cached file where that is still true, else from a scan."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, require_range
from .hdf5.dataset import flush_writers
from .location import Location
from .scan.histogram import MAX_CLASSES
from .store import counts_file
from .store.cache_key import FileState
from .store.cached_scan import scan_and_keep, scan_unchanged
from .store.change_detector import ChangedError
from .store.dataset_info import LabelCounts

if TYPE_CHECKING:  # a cached answer needs no HDF5
    from .scan import Checkpoint

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
    """sha256 of the file's bytes (see `content_digest` where there are several); None where nothing was cached."""
    seconds: float
    route: str = ""
    """Which way the cells were read; empty for a cached answer, as are the next two."""
    reason: str = ""
    threads: int = 0
    resumed: int = 0
    """Cells that an earlier, interrupted scan had counted already."""

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
    """Count one dataset as `class_counts` does, and say where the counts come from.

    `rebuild` scans whatever is cached, or was begun, and writes the cached file anew; without `may_scan` counts that
    are not cached are a DataError. `threads` is how many inflate and count at once, by default as many as help.
    """
    start = time.perf_counter()
    if classes is not None:
        require_range("--classes", classes, 1, MAX_CLASSES)
    location = Location.parse(data)
    flush_writers()  # before a stamp is looked at
    if use_cache and not rebuild and (hit := look_up(location, ignore_index, cache_dir)) is not None:
        return answered(*hit, location, classes, ignore_index, start)
    if not may_scan and location.exists():
        raise not_to_be_scanned(location)

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
    """What the cached file says that would be believed, else the first readable one; DataError where there is none."""
    start = time.perf_counter()
    location = Location.parse(data)
    if (hit := look_up(location, ignore_index, cache_dir)) is not None:
        return answered(*hit, location, classes, ignore_index, start)
    for path in counts_file.places(location, cache_dir):
        entry = None if counts_file.belongs_to_other_data(path, location, cache_dir) else counts_file.read(path)
        if entry is not None and entry.answers(location, ignore_index):
            return answered(entry, path, location, classes, ignore_index, start)
    raise DataError("there are no cached counts", str(location), do=f"Run `vaefit-cli weights {location}` first.")


def look_up(
    location: Location, ignore_index: int | None, cache_dir: str | Path | None
) -> tuple[counts_file.CachedCounts, Path] | None:
    """The first cached file, in the order of places, that is true of the files as they are now."""
    if not location.exists():
        return None  # the scan says what is wrong
    look = FileState(location)
    for path in counts_file.places(location, cache_dir):
        entry = counts_file.read(path)
        if entry is None or not entry.answers(location, ignore_index):
            continue
        key = entry.key.still_true(location, look)
        if key is entry.key:
            return entry, path
        if key is not None:
            entry = entry.rekeyed(key)
            return entry, counts_file.write(entry, location, cache_dir, replace_newer=False) or path
    return None


def not_to_be_scanned(location: Location) -> DataError:
    """The error for a dataset of which no cached counts are true, where nothing else may answer."""
    what = "no cached counts are true of this dataset, and a scan was not allowed"
    return DataError(what, str(location), do=f"Run `vaefit-cli weights {location}` first.")


def twice_changed(file: str) -> DataError:
    """The error for a file that is written to all the time."""
    what = "the data changed while it was counted, twice"
    return DataError(what, file, do="Run the command again when nobody writes to it.")


def warn_recounted(file: str) -> None:
    """Say that what was counted is worth nothing."""
    _log.warning(f"{file}: it changed while it was counted, so it is counted again")


def answered(
    entry: counts_file.CachedCounts,
    file: Path,
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    start: float,
) -> DatasetCounts:
    """The answer that a cached file gives."""
    found = entry.found
    counts = of_classes(found, location, classes, ignore_index)
    seconds = time.perf_counter() - start
    return DatasetCounts(
        location, found.dataset, counts, found.shape, "cache", file, entry.key.content or None, seconds
    )


def of_classes(
    found: LabelCounts, location: Location, classes: int | None, ignore_index: int | None
) -> NDArray[np.int64]:
    """Counts (C,) of the classes asked for, without ignored cells; DataError for a label outside them."""
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
    """Scan for the place of a label that the counts say is there."""
    from .hdf5.dataset import open_grids
    from .scan import first_wrong_label

    with open_grids(location) as dataset:
        return first_wrong_label(dataset, classes, ignore_index, f"Pass --classes {largest + 1}")
