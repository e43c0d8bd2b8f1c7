"""The tasks of `fork` that use this package: counting a dataset with the cache or without."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

import vaefit.cache.hdf5.dataset
import vaefit.cache.store.partial_scan
from vaefit.cache import DataError, DatasetCounts, Location, count_dataset

if TYPE_CHECKING:
    from tests.fault_injection.protocol import Report, Task

IGNORED = "is ignored"
"""In the warning about a cached file that could not be used."""


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def count(task: Task) -> Report:
    """Count as the task says; a DataError is a report, anything else is raised."""
    from tests.fault_injection.protocol import Report

    kept = _Kept()
    logging.getLogger("vaefit").addHandler(kept)
    try:
        found = _count(task)
    except DataError as error:
        return Report("error", text=str(error), warnings=tuple(kept.lines))
    counts = {label: n for label, n in enumerate(found.counts.tolist()) if n}
    return Report("counts", counts, source=found.source, warnings=tuple(kept.lines))


def rewrite(task: Task) -> NoReturn:
    """Scan and write the cached file again and again."""
    while True:
        count_dataset(_location(task), cache_dir=task.cache_dir, rebuild=True)


def _count(task: Task) -> DatasetCounts:
    if task.save_every is not None:
        # a scan short enough to be killed hundreds of times would never be saved
        vaefit.cache.store.partial_scan.SECONDS = task.save_every
    if task.do == "ours":
        return count_dataset(_location(task), use_cache=False)
    return count_dataset(_location(task), cache_dir=task.cache_dir, may_scan=task.do != "stored")


def _location(task: Task) -> str | Location:
    from pathlib import Path

    return Location(Path(task.file), task.dataset)
