"""The class counts of a whole dataset: from the cached file where that is still true, else from a scan."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from . import store
from .errors import DataError, require_range
from .fingerprint import content_digest, racy
from .histogram import MAX_CLASSES
from .key import Key, Look
from .location import Location
from .sources import UnlistedError, list_sources
from .unwritten import flush_writers

if TYPE_CHECKING:  # a cached answer needs no HDF5
    from .scan import Checkpoint, Each, Scan

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
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
    *,
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
    if use_cache and not rebuild and (hit := _look_up(location, ignore_index, cache_dir)) is not None:
        return _cached(*hit, location, classes, ignore_index, start)
    if not may_scan and location.exists():
        raise DataError(
            "no cached counts are true of this dataset, and a scan was not allowed",
            str(location),
            do=f"Run `vaefit-cli weights {location}` first.",
        )

    def each(at: Checkpoint, total: int) -> None:
        if progress is not None:
            progress(at.cells, total)

    file, digest = None, None
    for last in (False, True):
        try:
            if use_cache:
                scanned, file, digest = _scan_and_keep(
                    location, classes, ignore_index, threads, each, cache_dir, rebuild
                )
            else:
                scanned = _scan_unchanged(location, classes, ignore_index, threads, each)
            break
        except _ChangedError as changed:
            if last:
                what = "the data changed while it was counted, twice"
                do = "Run the command again when nobody writes to it."
                raise DataError(what, str(changed), do=do) from None
            _log.warning(f"{changed}: it changed while it was counted, so it is counted again")
    found, scan = scanned.found, scanned.scan
    return DatasetCounts(
        location=location,
        dataset=found.dataset,
        counts=_of_classes(found, location, classes, ignore_index),
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
    if (hit := _look_up(location, ignore_index, cache_dir)) is not None:
        return _cached(*hit, location, classes, ignore_index, start)
    for path in store.places(location, cache_dir):
        entry = None if store.of_other_data(path, location, cache_dir) else store.read(path)
        if entry is not None and entry.answers(location, ignore_index):
            return _cached(entry, path, location, classes, ignore_index, start)
    raise DataError("there are no cached counts", str(location), do=f"Run `vaefit-cli weights {location}` first.")


def _look_up(
    location: Location, ignore_index: int | None, cache_dir: str | Path | None
) -> tuple[store.CachedCounts, Path] | None:
    """The first cached file, in the order of places, that is true of the files as they are now."""
    if not location.exists():
        return None  # the scan says what is wrong
    look = Look(location)
    for path in store.places(location, cache_dir):
        entry = store.read(path)
        if entry is None or not entry.answers(location, ignore_index):
            continue
        key = entry.key.still_true(location, look)
        if key is entry.key:
            return entry, path
        if key is not None:
            entry = entry.rekeyed(key)
            return entry, store.write(entry, location, cache_dir, replace_newer=False) or path
    return None


class _ChangedError(Exception):
    """A file changed while it was counted; the text names it."""


@dataclass(frozen=True)
class _Scanned:
    """What a scan found."""

    found: store.LabelCounts
    scan: Scan
    holder: Path
    """The file that holds the dataset, once links are followed."""
    doubt: str | None
    """Why the counts should not be cached; None where they may be."""


def _scan(
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    threads: int | None,
    each: Each,
    resume: Checkpoint | None = None,
) -> _Scanned:
    """Count every cell, or those that a checkpoint lacks."""
    from .dataset import damage_named, dataset_path, declared_classes, filters, open_grids
    from .scan import scan

    doubt = None
    with open_grids(location) as dataset:
        counted = scan(dataset, ignore_index, threads, resume, each)
        if resume is not None and int(counted.counts.sum()) + counted.outside != dataset.size:
            _log.warning(f"{location}: the partial file does not fit the dataset; the scan starts over")
            counted = scan(dataset, ignore_index, threads, None, each)
        elif resume is not None and resume.cells and not counted.resumed:
            _log.warning(f"{location}: the partial file is of another way of reading; the scan started over")
        with damage_named(location):
            try:
                declared = declared_classes(dataset)
            except DataError:
                if classes is None:
                    raise
                declared, doubt = None, "its attribute `classes` is wrong"
            used = int(np.flatnonzero(counted.counts).max(initial=-1)) + 1
            found = store.LabelCounts(
                dataset=dataset_path(dataset),
                shape=dataset.shape,
                dtype=str(dataset.dtype),
                chunks=dataset.chunks,
                filters=filters(dataset),
                declared_classes=declared,
                labels=tuple(counted.counts[:used].tolist()),
                outside=counted.outside,
                outside_label=ignore_index if counted.outside else None,
            )
            return _Scanned(found, counted, Path(dataset.file.filename).resolve(), doubt)


def _scan_unchanged(
    location: Location, classes: int | None, ignore_index: int | None, threads: int | None, each: Each
) -> _Scanned:
    """Scan; _ChangedError where the times of a file show that it changed meanwhile."""
    try:
        sources, stamps, _ = list_sources(location)
    except UnlistedError:
        return _scan(location, classes, ignore_index, threads, each)
    scanned = _scan(location, classes, ignore_index, threads, each)
    changed = Key(location.dataset, sources, stamps, "").changed_file(location)
    if changed is not None:
        raise _ChangedError(changed)
    return scanned


def _scan_and_keep(
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    threads: int | None,
    each: Each,
    cache_dir: str | Path | None,
    rebuild: bool,
) -> tuple[_Scanned, Path | None, str | None]:
    """Scan, from where an earlier scan was interrupted; the cached file that was written, and the digest taken.

    Nothing is written where the files that the counts depend on cannot be listed, which is said. Raises _ChangedError
    where one of them changed meanwhile.
    """
    from .partial import PartialFile

    try:
        key, holder = _key_now(location)
    except UnlistedError as error:
        scanned = _scan(location, classes, ignore_index, threads, each)
        _log.warning(f"{location}: the counts are not cached, for {error}")
        return scanned, None, None
    partial = PartialFile(key, location, cache_dir, ignore_index)
    resume = None if rebuild else partial.resume()

    def follow(at: Checkpoint, total: int) -> None:
        partial.follow(at)
        each(at, total)

    paths, stop = key.sources.paths(location.file), Event()
    with ThreadPoolExecutor(1, "digest") as beside:
        try:
            # at the same time, for the scan has the bytes in memory; of a file just written only a later look tells
            early = None if racy(key.stamps) else beside.submit(_content, paths, stop)
            scanned = _scan(location, classes, ignore_index, threads, follow, resume)
            content = _content(paths) if early is None else early.result()
        except BaseException:
            stop.set()
            partial.interrupted()
            raise
    doubt = scanned.doubt
    if holder is None or scanned.holder != holder.resolve():
        doubt = "the file in which its cells lie could not be told"
    partial.remove()
    changed = key.changed_file(location)
    if changed is not None or (racy(key.stamps) and content != key.content):
        raise _ChangedError(changed or location)
    if not content:
        doubt = doubt or "its bytes could not be read once more"
    if doubt is not None:
        _log.warning(f"{location}: the counts are not cached, for {doubt}")
        return scanned, None, None
    entry = store.CachedCounts(replace(key, content=content), scanned.found)
    return scanned, store.write(entry, location, cache_dir, replace_newer=rebuild), content


def _key_now(location: Location) -> tuple[Key, Path | None]:
    """The key of the files before they are read, and the file that holds the dataset."""
    sources, stamps, holder = list_sources(location)
    # an edit during the scan may leave the times of a file just written as they are; its bytes tell
    content = _content(sources.paths(location.file)) if racy(stamps) else ""
    return Key(location.dataset, sources, stamps, content), holder


def _content(paths: list[Path], stop: Event | None = None) -> str:
    """The digest of the files; empty where they cannot be read, which the scan or the next look explains."""
    try:
        return content_digest(paths, stop)
    except OSError:
        return ""


def _cached(
    entry: store.CachedCounts,
    file: Path,
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    start: float,
) -> DatasetCounts:
    """The answer that a cached file gives."""
    found = entry.found
    counts = _of_classes(found, location, classes, ignore_index)
    seconds = time.perf_counter() - start
    return DatasetCounts(
        location, found.dataset, counts, found.shape, "cache", file, entry.key.content or None, seconds
    )


def _of_classes(
    found: store.LabelCounts, location: Location, classes: int | None, ignore_index: int | None
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
    from .dataset import open_grids
    from .scan import first_wrong_label

    with open_grids(location) as dataset:
        return first_wrong_label(dataset, classes, ignore_index, f"Pass --classes {largest + 1}")
