"""Which part of the work each rank does: shards laid end to end, cut into rounds, and each round into equal stretches.

After a round, all work up to a point is done and nothing behind it: a job that is lost loses its last round at most.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

SHARE = 16 << 30
"""Bytes of cells that a rank counts in a round: many enough that ranks seldom wait for each other, few enough that a
round which is lost is minutes of work."""
_SMALL = 4
"""A shard of no more than this part of a fair share is read by one rank: to open it twice costs more than it evens."""


@dataclass(frozen=True)
class Piece:
    """A part of a shard, in bytes of its cells as they are in memory."""

    shard: int
    first: int
    stop: int
    whole: int
    """Bytes of all cells of the shard."""

    def spans(self, total: int) -> range:
        """Which of the shard's `total` spans these are: pieces one after another hold each span once."""
        return range(self.first * total // self.whole, self.stop * total // self.whole)

    @classmethod
    def after(cls, shard: int, whole: int, spans: int = 0, total: int = 1) -> Piece:
        """All of a shard but its first `spans` of `total` spans."""
        return cls(shard, -(-spans * whole // total), whole, whole)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.first

    @property
    def ends(self) -> bool:
        """True where it is the shard's last."""
        return self.stop == self.whole


Round = tuple[tuple[Piece, ...], ...]
"""The pieces of each rank, by rank; a rank may have none."""


def plan_rounds(work: Sequence[Piece], ranks: int, share: int | None = None) -> Iterator[Round]:
    """Cut the work into rounds of at most `share` (SHARE) bytes a rank; every rank that asks comes to the same.

    Within a round all ranks get the same number of bytes, as far as small shards are not cut for it.
    """
    share = SHARE if share is None else share
    line = _Line(work)
    start = 0
    while start < line.length:
        stop = line.round_end(start, min(start + ranks * share, line.length), share // _SMALL)
        small = (stop - start) // (ranks * _SMALL)
        cuts = [line.moved(start + (stop - start) * rank // ranks, start, stop, small) for rank in range(ranks + 1)]
        yield tuple(tuple(line.between(first, last)) for first, last in pairwise(cuts))
        start = stop


class _Line:
    """Pieces laid end to end."""

    def __init__(self, work: Sequence[Piece]) -> None:
        self._work = work
        # of a shard whose spans are all counted, one byte is left, so that somebody looks at it once more
        self._edges = [0, *accumulate(max(1, piece.size) for piece in work)]

    @property
    def length(self) -> int:
        return self._edges[-1]

    def round_end(self, start: int, stop: int, small: int) -> int:
        """`stop`, or the beginning of the small shard that lies there."""
        first, last = self._around(stop)
        return first if start < first and last - first <= small else stop

    def moved(self, cut: int, start: int, stop: int, small: int) -> int:
        """A cut in the round from `start` to `stop`, moved to the nearer edge of the small shard that lies there."""
        first, last = self._around(cut)
        first, last = max(first, start), min(last, stop)
        if last - first > small:
            return cut
        return first if cut - first < last - cut else last

    def between(self, first: int, last: int) -> Iterator[Piece]:
        """The parts of pieces from byte `first` to byte `last` of the line."""
        number = bisect_right(self._edges, first) - 1 if first < last else len(self._work)
        while number < len(self._work) and self._edges[number] < last:
            piece, edge = self._work[number], self._edges[number]
            begin, end = (
                min(piece.first + max(0, at - edge), piece.stop) for at in (first, min(last, self._edges[number + 1]))
            )
            yield Piece(piece.shard, begin, end, piece.whole)
            number += 1

    def _around(self, at: int) -> tuple[int, int]:
        """The edges between which a byte lies; on an edge, that edge twice."""
        number = bisect_right(self._edges, at) - 1
        if self._edges[number] == at:
            return at, at
        return self._edges[number], self._edges[number + 1]
