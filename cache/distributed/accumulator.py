"""What rank 0 keeps of a count by several ranks: the answers, the sums of shards that are not done, what is written."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset_counts import (
    DatasetCounts,
    answered,
    look_up,
    not_to_be_scanned,
    of_classes,
    twice_changed,
    warn_recounted,
)
from ..errors import DataError
from ..hdf5.dataset import open_grids
from ..location import Location
from ..scan import Checkpoint, choose_route, spans_of
from ..scan.histogram import MAX_CLASSES
from ..shards import Shape, agree
from ..store import counts_file
from ..store.cache_key import CacheKey
from ..store.cached_scan import warn_uncached
from ..store.change_detector import ChangeDetector
from ..store.dataset_info import LabelCounts
from ..store.partial_scan import PartialFile, has_partial_scan
from ..store.sources import UnlistedError
from .count_request import CountRequest
from .schedule import Piece
from .worker import COLUMNS, Reading, Report

_WRITERS = 4
"""Cached files that are written at once: most of the time the disk is waited for, and no more went in measurably."""

_log = logging.getLogger(__name__)


@dataclass
class _Sum:
    """A shard that is being counted."""

    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(COLUMNS, np.int64))
    resumed: int = 0
    """Cells that an earlier scan had counted."""
    cut: str = ""
    """How that had cut the dataset."""
    resumed_key: CacheKey | None = None
    """The files when what it had counted was found still true of them."""
    readings: list[Reading] = field(default_factory=list)


@dataclass(frozen=True)
class _Done:
    """A shard of which every cell was counted."""

    report: Report
    key: CacheKey | None
    labels: LabelCounts


class Ledger:
    """The books of one count."""

    def __init__(self, locations: Sequence[Location], question: CountRequest, local_size: int) -> None:
        self.answers: dict[int, DatasetCounts] = {}
        self._locations, self._question, self._local_size = locations, question, local_size
        self._start = time.perf_counter()
        self._shapes: dict[int, Shape] = {}
        self._sums: dict[int, _Sum] = {}
        self._again: list[int] = []
        self._changed: set[int] = set()

    def look_up(self, may_scan: bool) -> list[int]:
        """Answer from cached files; the shards that are to be scanned. DataError where that is not allowed."""
        asked, left = self._question, []
        for shard, location in enumerate(self._locations):
            start = time.perf_counter()
            hit = None
            if asked.use_cache and not asked.rebuild:
                hit = look_up(location, asked.ignore_index, asked.cache_dir)
            if hit is None:
                if not may_scan and location.exists():
                    raise not_to_be_scanned(location)
                left.append(shard)
                continue
            found = answered(*hit, location, asked.classes, asked.ignore_index, start)
            self.answers[shard], self._shapes[shard] = found, found.shape
        return left

    def begin(self, measured: Mapping[int, tuple[Shape, int]]) -> list[Piece]:
        """What is left of shards of these shapes and bytes a cell; DataError where they are not of one dataset."""
        self._shapes |= {shard: shape for shard, (shape, _) in measured.items()}
        agree([(self._locations[shard], shape) for shard, shape in sorted(self._shapes.items())])
        self._again = []
        return [self._left(shard, math.prod(shape) * size) for shard, (shape, size) in sorted(measured.items())]

    def close_round(
        self,
        numbers: Mapping[int, NDArray[np.int64]],
        parts: Iterable[tuple[Sequence[Reading], Sequence[Report]]],
        last: Mapping[int, Piece],
    ) -> None:
        """Take in a round: what all ranks counted of each shard, how each read and what owners say, the last pieces.

        Every shard that is done is cached now, and how far the one came that is not, so that a job which is lost later
        need not count them again. Raises DataError for a label outside the classes, and for a shard that changed while
        it was counted, twice.
        """
        for shard, counted in numbers.items():
            self._sums[shard].numbers += counted
        reports: list[Report] = []
        for readings, told in parts:
            for reading in readings:
                self._sums[reading.shard].readings.append(reading)
            reports += told
        done: list[_Done] = []
        try:
            for report in sorted(reports, key=lambda report: report.shard):
                piece = last[report.shard]
                key, changed = self._here(report)
                if not changed:
                    self._cut_alike(report.shard)
                if piece.ends:
                    done += self._finish(report, key, changed)
                elif key is not None and not changed and self._question.use_cache:
                    self._keep(report.shard, key, piece)
        finally:
            self._answer(done)

    def again(self) -> list[int]:
        """The shards that are to be counted once more."""
        return sorted(self._again)

    def _left(self, shard: int, whole: int) -> Piece:
        """A shard, from where an earlier scan was interrupted."""
        self._sums[shard] = _Sum()
        location, asked = self._locations[shard], self._question
        if not asked.use_cache or asked.rebuild or not has_partial_scan(location, asked.cache_dir):
            return Piece.after(shard, whole)
        try:
            key = ChangeDetector.start(location).key
        except UnlistedError:
            return Piece.after(shard, whole)
        found = PartialFile(key, location, asked.cache_dir, asked.ignore_index).resume()
        if found is None:
            return Piece.after(shard, whole)
        with open_grids(location) as dataset:
            cut = choose_route(dataset).cut
        if cut != found.route:
            _log.warning(f"{location}: the partial file is of another way of reading; the scan started over")
            return Piece.after(shard, whole)
        numbers = np.array([*found.counts, found.outside, found.cells], np.int64)
        self._sums[shard] = _Sum(numbers, found.cells, cut, key)
        return Piece.after(shard, whole, found.spans, spans_of(cut))

    def _here(self, report: Report) -> tuple[CacheKey | None, str | None]:
        """The key of a shard with this machine's stamps, and what changed; None where unlisted, and where nothing."""
        if report.key is None or report.changed:
            return report.key, report.changed
        location = self._locations[report.shard]
        key = report.key.seen_here(location, report.owner < self._local_size)
        before = self._sums[report.shard].resumed_key
        if before is not None:
            # between the look at the partial file and that of the owner, too, nothing may have changed
            changed = before.sources != report.key.sources or before.changed_file(location) is not None
            if changed or (report.content and before.content not in ("", report.content)):
                key = None
        return (report.key, str(location)) if key is None else (key, None)

    def _cut_alike(self, shard: int) -> None:
        """Raise DataError where ranks did not cut the shard into the same spans: some would be nobody's."""
        found = self._sums[shard]
        cuts = {reading.cut for reading in found.readings} | ({found.cut} if found.cut else set())
        if len(cuts) > 1:
            raise DataError(
                "the ranks of the job read the dataset in different ways",
                str(self._locations[shard]),
                got=" and ".join(sorted(cuts)),
                do="Give all machines the same file, and the same version of vaefit.",
            )

    def _keep(self, shard: int, key: CacheKey, piece: Piece) -> None:
        """Save how far a shard came that the round's end cuts through."""
        found, asked = self._sums[shard], self._question
        cut = found.readings[0].cut
        spans = piece.spans(spans_of(cut)).stop
        if spans:
            *counts, outside, cells = found.numbers.tolist()
            partial = PartialFile(key, self._locations[shard], asked.cache_dir, asked.ignore_index)
            partial.keep(Checkpoint(cut, spans, cells, tuple(counts), outside))

    def _finish(self, report: Report, key: CacheKey | None, changed: str | None) -> list[_Done]:
        """A shard of which every cell was counted; none where it is to be counted again."""
        shard, asked, found = report.shard, self._question, self._sums[report.shard]
        location = self._locations[shard]
        if asked.use_cache and report.key is not None:
            PartialFile(report.key, location, asked.cache_dir, asked.ignore_index).remove()
        counts, outside = found.numbers[:MAX_CLASSES], int(found.numbers[MAX_CLASSES])
        if changed is not None:
            if shard in self._changed:
                raise twice_changed(changed)
            warn_recounted(changed)
            self._changed.add(shard)
        elif int(counts.sum()) + outside != math.prod(report.described.uncounted.shape):
            if found.resumed_key is None:
                raise DataError("the dataset changed while it was read", str(location), do="Run the command again.")
            _log.warning(f"{location}: the partial file does not fit the dataset; the scan starts over")
            changed = str(location)
        if changed is not None:
            self._again.append(shard)
            return []
        return [_Done(report, key, report.described.counted(counts, outside, asked.ignore_index))]

    def _answer(self, done: Sequence[_Done]) -> None:
        """Cache shards, and answer; DataError for a label outside the classes."""
        with ThreadPoolExecutor(_WRITERS, "cache") as pool:
            written = list(pool.map(self._cached, done))
        for one, (file, digest) in zip(done, written, strict=True):
            shard, labels, asked = one.report.shard, one.labels, self._question
            location, found = self._locations[shard], self._sums.pop(shard)
            first = found.readings[0]
            self.answers[shard] = DatasetCounts(
                location=location,
                dataset=labels.dataset,
                counts=of_classes(labels, location, asked.classes, asked.ignore_index),
                shape=labels.shape,
                source="scan",
                cache_file=file,
                digest=digest,
                seconds=time.perf_counter() - self._start,
                route=first.route,
                reason=first.reason,
                threads=first.threads,
                resumed=found.resumed,
            )

    def _cached(self, done: _Done) -> tuple[Path | None, str | None]:
        """Write the cached file, unless there is a doubt; the file, and the digest in it."""
        report, key, labels = done.report, done.key, done.labels
        location, asked = self._locations[report.shard], self._question
        if not asked.use_cache:
            return None, None
        if key is None or report.doubt is not None:
            warn_uncached(location, report.unlisted if key is None else str(report.doubt))
            return None, None
        entry = counts_file.CachedCounts(replace(key, content=report.content), labels)
        return counts_file.write(entry, location, asked.cache_dir, replace_newer=asked.rebuild), report.content
