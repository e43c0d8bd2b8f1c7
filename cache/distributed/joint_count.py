"""Joint count: each rank of a job counts its share of the shards, and rank 0 writes the cached files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from threading import Event

import numpy as np
from numpy.typing import NDArray

from ..communicator import Communicator, from_rank_zero, portion
from ..dataset_counts import DatasetCounts, Progress, as_result, count_location, twice_changed, warn_recounted
from ..hdf5.dataset import open_grids
from ..location import Location
from ..scan import Scan, scan_dataset
from ..shards import Shape, agree
from ..store import counts_file
from ..store.cache_key import CacheKey, FileState
from ..store.cached_scan import CountSettings, warn_uncached
from ..store.change_detector import ChangeDetector
from ..store.dataset_info import Description
from ..store.sources import UnlistedError, list_sources
from .copies import describe_copy, require_equal
from .deal import Piece, deal

_Reading = tuple[int, ChangeDetector, Description, Scan]
"""A shard, the state of its files before it was read, its description, and the scan of a piece of it."""


@dataclass(frozen=True)
class _Report:
    """Report of one rank on one shard, made after every rank has read its last cell."""

    rank: int
    shard: int
    described: Description
    scan: Scan
    """The scan of its piece; pieces of one cut add up."""
    key: CacheKey
    """The files that this rank read, with the digest of their bytes."""
    changed: str | None
    """The file that changed since this rank began to read; None where none did."""
    doubt: str | None
    """Why the counts should not be cached; None where they may be."""


@dataclass
class JointCount:
    """Count of shards by all ranks of a job; each rank makes one with equal arguments and calls `run`."""

    ranks: Communicator
    locations: Sequence[Location]
    answers: list[DatasetCounts | None]
    """Cached counts of each location; None where no cached file answers."""
    settings: CountSettings
    progress: Progress | None
    """Called by rank 0, which takes the progress of its own share for that of all."""
    _start: float = field(default_factory=time.perf_counter)

    def run(self) -> list[DatasetCounts]:
        """Return the counts of each shard, on rank 0; DataError where ranks read different bytes under one path."""
        shards = [shard for shard, answer in enumerate(self.answers) if answer is None]
        for last in (False, True):
            if shards:
                shards = self._count(shards, last)
        return [answer for answer in self.answers if answer is not None]

    def _count(self, shards: Sequence[int], last: bool) -> list[int]:
        """Count shards; return those whose files changed meanwhile, which is an error the last time."""
        ranks, stop = self.ranks, Event()
        measured = ranks.gather([self._measure(one) for one in shards[portion(len(shards), ranks.rank, ranks.size)]])
        hand = from_rank_zero(ranks, lambda: self._deal(list(chain.from_iterable(measured))))[ranks.rank]
        self._done = 0
        with ThreadPoolExecutor(1, "digest") as beside:
            try:
                readings = [self._read(piece, beside, stop) for piece in hand]
                sums = self._sums(shards, readings)
                # no rank reads any more, so each change during the count shows
                reports = ranks.gather([self._report(*reading) for reading in readings])
            finally:
                stop.set()
        return from_rank_zero(ranks, lambda: self._take_in(sums, chain.from_iterable(reports), last))

    def _measure(self, shard: int) -> tuple[int, Shape, int]:
        """Return the shard, its shape and the bytes of its cells; 0 bytes where its files cannot be listed."""
        with open_grids(self.locations[shard]) as dataset:
            shape, size = dataset.shape, int(dataset.size * dataset.dtype.itemsize)
        try:
            list_sources(self.locations[shard])
        except UnlistedError:
            return shard, shape, 0
        return shard, shape, size

    def _deal(self, measured: Sequence[tuple[int, Shape, int]]) -> list[list[Piece]]:
        """Return the pieces of each rank; DataError where the shards are not of one dataset."""
        shapes = {shard: answer.shape for shard, answer in enumerate(self.answers) if answer is not None}
        shapes |= {shard: shape for shard, shape, _ in measured}
        agree([(self.locations[shard], shape) for shard, shape in sorted(shapes.items())])
        for shard in [shard for shard, _, size in measured if size == 0]:
            # ranks cannot compare files that they cannot list: rank 0 counts them as a single process does
            self.answers[shard] = count_location(self.locations[shard], self.settings)
        hands = deal({shard: size for shard, _, size in measured}, self.ranks.size)
        left = sum(math.prod(shape) for _, shape, size in measured if size > 0)
        self._bar = left, sum(map(math.prod, shapes.values())), sum(piece.stop - piece.first for piece in hands[0])
        return hands

    def _sums(self, shards: Sequence[int], readings: Sequence[_Reading]) -> dict[int, NDArray[np.int64]]:
        """Return the counts of each shard over all ranks; the last column is the cells outside 0..65535."""
        widths = self.ranks.gather(max((reading[3].counts.size for reading in readings), default=0))
        width = from_rank_zero(self.ranks, lambda: max(widths))
        counts = np.zeros((len(shards), width + 1), np.int64)
        rows = dict(zip(shards, counts, strict=True))
        for shard, _, _, found in readings:
            rows[shard][: found.counts.size] += found.counts
            rows[shard][-1] += found.outside
        return dict(zip(shards, self.ranks.add(counts), strict=True))

    def _read(self, piece: Piece, beside: ThreadPoolExecutor, stop: Event) -> _Reading:
        """Count a piece; errors as those of `scan_dataset`."""
        location = self.locations[piece.shard]
        watch = ChangeDetector.start(location)
        with open_grids(location) as dataset:
            watch.digest_beside(beside, stop)
            described = Description.from_dataset(dataset, location, self.settings.classes)
            size = int(dataset.dtype.itemsize)
            found = scan_dataset(
                dataset,
                described.ignored(self.settings.ignore_index),
                self.settings.threads,
                each=lambda at, _: self._tell(at.cells * size),
                which=piece.spans,
            )
        self._done += found.cells * size
        return piece.shard, watch, described, found

    def _tell(self, size: float) -> None:
        """Report progress where this is rank 0, which has counted so many bytes of a piece."""
        if self.progress is not None and self.ranks.rank == 0:
            left, total, own = self._bar
            self.progress(total - left + round(left * min(1.0, (self._done + size) / max(1, own))), total)

    def _report(self, shard: int, watch: ChangeDetector, described: Description, found: Scan) -> _Report:
        """Return the report on a shard that no rank reads any more."""
        content = watch.content()
        key = replace(watch.key, content=content)
        changed, doubt = watch.changed(content), watch.doubt(described, content) or found.doubt
        return _Report(self.ranks.rank, shard, described, found, key, changed, doubt)

    def _take_in(self, sums: Mapping[int, NDArray[np.int64]], reports: Iterable[_Report], last: bool) -> list[int]:
        """Answer the shards that did not change, and return the others; DataError for one that did, the last time."""
        self._tell(math.inf)  # the other ranks have counted their shares, too
        readers: dict[int, list[_Report]] = {}
        for report in reports:
            readers.setdefault(report.shard, []).append(report)
        # the ranks are compared before anything is written
        keys = {shard: _common_key(self.locations[shard], found) for shard, found in sorted(readers.items())}
        for shard, (key, changed) in keys.items():
            if key is not None:
                self.answers[shard] = self._answer(readers[shard][0], key, sums[shard])
            elif last:
                raise twice_changed(changed)
            else:
                warn_recounted(changed)
        return [shard for shard, (key, _) in keys.items() if key is None]

    def _answer(self, report: _Report, key: CacheKey, row: NDArray[np.int64]) -> DatasetCounts:
        """Cache the counts of a shard and return them; DataError for a label outside the classes."""
        location, file, kept = self.locations[report.shard], None, None
        found = report.described.counted(report.scan, row[:-1], int(row[-1]), self.settings.ignore_index)
        assert row.sum() == math.prod(found.shape), "each span is counted once"
        if self.settings.use_cache and report.doubt is not None:
            warn_uncached(location, report.doubt)
        elif self.settings.use_cache:
            entry, kept = counts_file.CachedCounts(key, found), key
            file = counts_file.write(entry, location, self.settings.cache_dir, replace_newer=self.settings.rebuild)
        return as_result(found, location, self.settings, self._start, file, kept, report.scan)


def _common_key(location: Location, reports: Sequence[_Report]) -> tuple[CacheKey | None, str]:
    """Return the key of the files that all ranks read, with rank 0's stamps; None and the file where one changed.

    Raises DataError where ranks read different bytes under one path, or cut them into different spans.
    """
    for report in reports:
        if report.changed is not None:
            return None, report.changed
    copies = {report.rank: describe_copy(report.key.stamps, report.key.content) for report in reports}
    cuts = {report.rank: f"read as {report.scan.cut}" for report in reports}
    key, look = reports[0].key, FileState(location)
    # Cheaper than a digest of every file by rank 0: it takes none of a file with the device, inode, size and times that
    # a reader saw, for that is the same file. Of a copy elsewhere rank 0 takes its own digest.
    here = key if 0 in copies else key.still_true(location, look)
    if here is None:
        copies[0] = describe_copy(look.stamps(key.sources) or (), look.content(key.sources))
    paths = key.sources.paths(location.file)
    require_equal("different bytes under this path", paths, copies)
    require_equal("the dataset in different ways", paths, cuts)
    return here, str(location)
