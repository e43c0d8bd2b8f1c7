"""Scan one dataset, detect changes of its files meanwhile, and write the cached file."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from ..location import Location
from . import counts_file
from .change_detector import ChangedError, ChangeDetector
from .dataset_info import Description, LabelCounts
from .sources import UnlistedError

if TYPE_CHECKING:  # a cached answer needs no HDF5
    from ..scan import Checkpoint, Each, Scan

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class Scanned:
    """The result of a scan."""

    found: LabelCounts
    scan: Scan
    described: Description


def scan_unchanged(
    location: Location, classes: int | None, ignore_index: int | None, threads: int | None, each: Each
) -> Scanned:
    """Scan without the cache; ChangedError where the stamps of a file show that it changed meanwhile."""
    try:
        watch = ChangeDetector.start(location, by_bytes=False)
    except UnlistedError:
        return _scan(location, classes, ignore_index, threads, each)
    scanned = _scan(location, classes, ignore_index, threads, each)
    changed = watch.changed()
    if changed is not None:
        raise ChangedError(changed)
    return scanned


def scan_and_keep(
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    threads: int | None,
    each: Each,
    cache_dir: str | Path | None,
    rebuild: bool,
) -> tuple[Scanned, Path | None, str | None]:
    """Scan, from the checkpoint of an interrupted scan if there is one; return the cached file and the digest too.

    No file is written, with a warning, where the files that the counts depend on cannot be listed. Raises ChangedError
    where one of them changed meanwhile.
    """
    from .partial_scan import PartialFile

    try:
        watch = ChangeDetector.start(location)
    except UnlistedError as error:
        scanned = _scan(location, classes, ignore_index, threads, each)
        warn_uncached(location, str(error))
        return scanned, None, None
    partial = PartialFile(watch.key, location, cache_dir, ignore_index)
    resume = None if rebuild else partial.resume()

    def follow(at: Checkpoint, total: int) -> None:
        partial.follow(at)
        each(at, total)

    stop = Event()
    with ThreadPoolExecutor(1, "digest") as beside:
        try:
            watch.digest_beside(beside, stop)
            scanned = _scan(location, classes, ignore_index, threads, follow, resume)
            content = watch.content()
        except BaseException:
            stop.set()
            partial.interrupted()
            raise
    partial.remove()
    changed = watch.changed(content)
    if changed is not None:
        raise ChangedError(changed)
    doubt = watch.doubt(scanned.described, content)
    if doubt is not None:
        warn_uncached(location, doubt)
        return scanned, None, None
    entry = counts_file.CachedCounts(replace(watch.key, content=content), scanned.found)
    return scanned, counts_file.write(entry, location, cache_dir, replace_newer=rebuild), content


def warn_uncached(location: Location, why: str) -> None:
    """Log that counts are not cached, and why."""
    _log.warning(f"{location}: the counts are not cached, for {why}")


def _scan(
    location: Location,
    classes: int | None,
    ignore_index: int | None,
    threads: int | None,
    each: Each,
    resume: Checkpoint | None = None,
) -> Scanned:
    """Count every cell, or those that a checkpoint does not include."""
    from ..hdf5.dataset import open_grids
    from ..scan import scan_dataset

    with open_grids(location) as dataset:
        counted = scan_dataset(dataset, ignore_index, threads, resume, each)
        if resume is not None and int(counted.counts.sum()) + counted.outside != dataset.size:
            _log.warning(f"{location}: the partial file does not fit the dataset; the scan starts over")
            counted = scan_dataset(dataset, ignore_index, threads, None, each)
        elif resume is not None and resume.cells and not counted.resumed:
            _log.warning(f"{location}: the partial file is of another way of reading; the scan starts over")
        described = Description.from_dataset(dataset, location, classes)
        return Scanned(described.counted(counted.counts, counted.outside, ignore_index), counted, described)
