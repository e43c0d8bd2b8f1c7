"""What one rank does in a round: it counts its pieces, and watches over the shards that it owns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..location import Location
from ..scan.histogram import MAX_CLASSES
from ..store.cache_key import CacheKey
from ..store.change_detector import ChangeDetector
from ..store.dataset_info import Description
from ..store.sources import UnlistedError
from .count_request import CountRequest
from .schedule import Piece

COLUMNS = MAX_CLASSES + 2
"""Of a shard in a round: cells of each label, of the ignored label outside 0..255, and of all."""


@dataclass(frozen=True)
class Reading:
    """How a rank read a piece."""

    shard: int
    cut: str
    route: str
    reason: str
    threads: int


@dataclass(frozen=True)
class Report:
    """What the owner of a shard, the rank that has its first piece, knows of it after a round."""

    owner: int
    shard: int
    key: CacheKey | None
    """From before the first cell was read; None where the files cannot be listed."""
    unlisted: str
    """Why not."""
    described: Description
    changed: str | None
    """What changed since; None where nothing did."""
    content: str
    """The digest, of a shard that is counted to its end; empty where none was taken."""
    doubt: str | None
    """Why such a shard should not be cached."""


@dataclass
class _Owned:
    """A shard that this rank owns, until it is counted to its end."""

    watch: ChangeDetector | None
    unlisted: str
    described: Description | None = None


class RankScan:
    """The part of one rank in a scan by several; a context that ends with the digests that were begun."""

    def __init__(self, rank: int, locations: Sequence[Location], question: CountRequest, threads: int) -> None:
        self._rank, self._locations, self._question, self._threads = rank, locations, question, threads
        self._owned: dict[int, _Owned] = {}
        self._stop = Event()
        self._beside = ThreadPoolExecutor(1, "digest")

    def __enter__(self) -> RankScan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beside.shutdown(cancel_futures=True)

    def own(self, shards: Iterable[int]) -> None:
        """Look at the files of these shards, before any rank reads them."""
        for shard in shards:
            try:
                watch = ChangeDetector.start(self._locations[shard], by_bytes=self._question.use_cache)
                self._owned[shard] = _Owned(watch, "")
            except UnlistedError as error:
                self._owned[shard] = _Owned(None, str(error))

    def count(
        self, pieces: Sequence[Piece], each: Callable[[int], None]
    ) -> tuple[dict[int, NDArray[np.int64]], list[Reading]]:
        """Count pieces: the numbers (COLUMNS,) of each shard; `each` is told the cells counted so far.

        Errors as those of `scan`.
        """
        from ..hdf5.dataset import open_grids
        from ..scan import scan_part

        numbers: dict[int, NDArray[np.int64]] = {}
        readings, done = [], 0
        # of cells of one byte, the only ones for which it matters
        total = sum(piece.size for piece in pieces)
        for piece in pieces:
            location, owned = self._locations[piece.shard], self._owned.get(piece.shard)
            with open_grids(location) as dataset:
                if owned is not None and owned.described is None:
                    if owned.watch is not None and self._question.use_cache:
                        owned.watch.digest_beside(self._beside, self._stop)
                    # before the cells: a wrong attribute is known at once
                    owned.described = Description.from_dataset(dataset, location, self._question.classes)
                found = scan_part(
                    dataset,
                    piece.spans,
                    self._question.ignore_index,
                    self._threads,
                    lambda cells, before=done: each(before + cells),  # type: ignore[misc]
                    total,
                )
            part = found.part
            numbers[piece.shard] = np.array([*part.counts, part.outside, part.cells], np.int64)
            readings.append(Reading(piece.shard, found.cut, found.route, found.reason, found.threads))
            done += part.cells
        return numbers, readings

    def report(self, shards: Iterable[int], ended: Iterable[int]) -> list[Report]:
        """What is to be said of those of the shards that this rank owns, once no rank reads them any more.

        The `ended` are counted to their ends, and owned no longer.
        """
        ended, reports = set(ended), []
        for shard in [shard for shard in shards if shard in self._owned]:
            owned = self._owned.pop(shard) if shard in ended else self._owned[shard]
            watch, described = owned.watch, owned.described
            assert described is not None  # the first piece was counted
            content, changed, doubt = "", None, described.doubt
            if watch is not None and shard in ended and self._question.use_cache:
                content = watch.content()
                changed, doubt = watch.changed(content), watch.doubt(described, content)
            elif watch is not None:
                changed = watch.changed()
            key = None if watch is None else watch.key
            reports.append(Report(self._rank, shard, key, owned.unlisted, described, changed, content, doubt))
        return reports
