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
from .cache_key import CacheKey
from .change_detector import ChangeDetector
from .dataset_info import Description, LabelCounts
from .sources import UnlistedError

if TYPE_CHECKING:  # a cached answer needs no HDF5
    from ..scan import Checkpoint, Each, Scan

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class CountSettings:
    """The settings of a count, which are arguments of `count_dataset`."""

    classes: int | None = None
    ignore_index: int | None = None
    cache_dir: str | Path | None = None
    use_cache: bool = True
    rebuild: bool = False
    may_scan: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Scanned:
    """The result of a scan; the cached file and the key are None where nothing was cached."""

    found: LabelCounts
    scan: Scan
    cache_file: Path | None = None
    key: CacheKey | None = None


def scan_and_keep(location: Location, settings: CountSettings, each: Each) -> Scanned:
    """Scan, from the checkpoint of an interrupted scan if there is one, and write the cached file.

    No file is written without `use_cache`, and, with a warning, where the files that the counts depend on cannot be
    listed. Raises ChangedError where one of them changed meanwhile; without `use_cache` only the stamps show that.
    """
    from .partial_scan import PartialFile

    try:
        watch = ChangeDetector.start(location, by_bytes=settings.use_cache)
    except UnlistedError as error:
        scanned, _ = _scan(location, settings, each)
        if settings.use_cache:
            warn_uncached(location, str(error))
        return scanned
    if not settings.use_cache:
        scanned, _ = _scan(location, settings, each)
        watch.require_unchanged()
        return scanned
    partial = PartialFile(watch.key, location, settings.cache_dir, settings.ignore_index)
    resume = None if settings.rebuild else partial.resume()

    def follow(at: Checkpoint, total: int) -> None:
        partial.follow(at)
        each(at, total)

    stop = Event()
    with ThreadPoolExecutor(1, "digest") as beside:
        try:
            watch.digest_beside(beside, stop)
            scanned, described = _scan(location, settings, follow, resume)
            content = watch.content()
        except BaseException:
            stop.set()
            partial.interrupted()
            raise
    partial.remove()
    watch.require_unchanged(content)
    doubt = watch.doubt(described, content) or scanned.scan.doubt
    if doubt is not None:
        warn_uncached(location, doubt)
        return scanned
    entry = counts_file.CachedCounts(replace(watch.key, content=content), scanned.found)
    file = counts_file.write(entry, location, settings.cache_dir, replace_newer=settings.rebuild)
    return replace(scanned, cache_file=file, key=entry.key)


def warn_uncached(location: Location, why: str) -> None:
    """Log that counts are not cached, and why."""
    _log.warning(f"{location}: the counts are not cached, for {why}")


def _scan(
    location: Location, settings: CountSettings, each: Each, resume: Checkpoint | None = None
) -> tuple[Scanned, Description]:
    """Count every cell, or those that a checkpoint does not include."""
    from ..hdf5.dataset import open_grids
    from ..scan import scan_dataset

    with open_grids(location) as dataset:
        described = Description.from_dataset(dataset, location, settings.classes)
        ignored = described.ignored(settings.ignore_index)
        counted = scan_dataset(dataset, ignored, settings.threads, resume, each)
        if resume is not None and int(counted.counts.sum()) + counted.outside != dataset.size:
            _log.warning(f"{location}: the partial file does not fit the dataset; the scan starts over")
            counted = scan_dataset(dataset, ignored, settings.threads, None, each)
        elif resume is not None and resume.cells and not counted.resumed:
            _log.warning(f"{location}: the partial file is of another way of reading; the scan starts over")
        found = described.counted(counted, counted.counts, counted.outside, settings.ignore_index)
        return Scanned(found, counted), described
