"""The class counts of shards by the ranks of a job together: cut into rounds, summed, and written by rank 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..communicator import Communicator, every_rank, portion
from ..dataset_counts import DatasetCounts, Progress
from ..errors import require_range
from ..hdf5.dataset import flush_writers
from ..location import Location
from ..scan.histogram import MAX_CLASSES
from ..shards import Shape
from .accumulator import Ledger
from .count_request import CountRequest
from .schedule import Piece, Round, plan_rounds
from .worker import COLUMNS, RankScan

_Measured = Mapping[int, tuple[Shape, int]]
"""Shape and bytes a cell of some shards."""


def count_jointly(
    locations: Sequence[Location],
    ranks: Communicator,
    question: CountRequest,
    *,
    may_scan: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[DatasetCounts]:
    """Count shards as `count_dataset` would one by one, the same on every rank and in every cached file.

    Files have the same paths on all machines. `threads` is how many each rank uses, by default the processors of its
    machine divided by the ranks on it, at most four. Rank 0 alone looks for cached files, writes them and calls
    `progress`.
    """
    from ..scan import default_threads

    if question.classes is not None:
        require_range("--classes", question.classes, 1, MAX_CLASSES)
    flush_writers()  # before a stamp is looked at
    ledger = Ledger(locations, question, ranks.local_size) if ranks.rank == 0 else None
    bar = _Bar(progress)
    left = ranks.share([] if ledger is None else ledger.look_up(may_scan))
    if threads is None:
        threads = default_threads(ranks.local_size)
    with RankScan(ranks.rank, locations, question, threads) as mine:
        while left:
            measured = _measure(locations, left, ranks)
            work = ranks.share([] if ledger is None else ledger.begin(measured))
            if ledger is not None:
                bar.begin(measured, work, sum(math.prod(answer.shape) for answer in ledger.answers.values()))
            _count_rounds(work, ranks, mine, ledger, bar)
            left = ranks.share([] if ledger is None else ledger.again())
    return ranks.share([] if ledger is None else [ledger.answers[shard] for shard in range(len(locations))])


def _measure(locations: Sequence[Location], shards: Sequence[int], ranks: Communicator) -> _Measured:
    """The size of each of these shards, on rank 0; DataError where one of them cannot be opened."""
    from ..hdf5.dataset import open_grids

    mine: dict[int, tuple[Shape, int]] = {}
    for shard in shards[portion(len(shards), ranks.rank, ranks.size)]:
        with open_grids(locations[shard]) as dataset:
            mine[shard] = dataset.shape, int(dataset.dtype.itemsize)
    return {shard: size for part in ranks.gather(mine) for shard, size in part.items()}


def _count_rounds(work: Sequence[Piece], ranks: Communicator, mine: RankScan, ledger: Ledger | None, bar: _Bar) -> None:
    """Count all of the work, this rank its pieces."""
    owners: dict[int, int] = {}
    for pieces in plan_rounds(work, ranks.size):
        last = {piece.shard: piece for own in pieces for piece in own}
        begun = [shard for shard in last if shard not in owners]
        for rank, own in enumerate(pieces):
            for piece in own:
                owners.setdefault(piece.shard, rank)
        mine.own(shard for shard in begun if owners[shard] == ranks.rank)
        every_rank(ranks, True)  # no rank reads a shard before its owner has looked at it
        bar.begin_round(pieces, ranks.rank)
        numbers, readings = mine.count(pieces[ranks.rank], bar.counted)
        rows = np.zeros((len(last), COLUMNS), np.int64)
        for row, shard in zip(rows, last, strict=True):
            row += numbers.get(shard, 0)
        sums = ranks.add(rows)
        # all have read now, so that whatever changed meanwhile shows
        reports = mine.report(last, [shard for shard, piece in last.items() if piece.ends])
        parts = ranks.gather((readings, reports))
        if ledger is not None:
            ledger.close_round(dict(zip(last, sums, strict=True)), parts, last)
        bar.end_round()


class _Bar:
    """Progress in cells, as rank 0 knows it: the rounds that are over, and of this one as if all went as it goes."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._cell: dict[int, int] = {}
        self._done = self._total = 0.0
        self._round = self._own = 0.0

    def begin(self, measured: _Measured, work: Sequence[Piece], cached: int) -> None:
        """`cached` cells need not be counted, nor those that the work leaves out."""
        self._cell = {shard: size for shard, (_, size) in measured.items()}
        self._total = cached + sum(math.prod(shape) for shape, _ in measured.values())
        self._done = self._total - self._cells(work)

    def begin_round(self, pieces: Round, rank: int) -> None:
        """The pieces of all ranks, of which this is one."""
        if self._cell:
            self._round, self._own = self._cells([piece for own in pieces for piece in own]), self._cells(pieces[rank])

    def counted(self, cells: int) -> None:
        """So many of this rank's cells of the round are counted."""
        if self._own:
            self._tell(self._done + self._round * min(1.0, cells / self._own))

    def end_round(self) -> None:
        """All ranks have done their pieces."""
        self._done += self._round
        self._tell(self._done)

    def _tell(self, done: float) -> None:
        if self._progress is not None and self._cell:
            self._progress(round(done), round(self._total))

    def _cells(self, pieces: Sequence[Piece]) -> float:
        return sum(piece.size / self._cell[piece.shard] for piece in pieces)
