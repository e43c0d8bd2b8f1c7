"""Deal of shards to ranks in even shares by size: whole shards, but a shard larger than a share is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Part of a shard, from byte `first` up to byte `stop` of the `size` bytes that its cells have in memory."""

    shard: int
    first: int
    stop: int
    size: int

    def spans(self, total: int) -> range:
        """Return the piece's numbers of the shard's `total` spans; the pieces of a shard hold each span once."""
        return range(self.first * total // self.size, self.stop * total // self.size)


def deal(sizes: Mapping[int, int], ranks: int) -> list[list[Piece]]:
    """Return the pieces of each rank, for shards of these sizes (bytes, at least 1).

    The largest shard comes first, and the rank with the fewest bytes takes it. Of a shard larger than an equal share
    that rank takes what its own share has room for, and the next rank takes the rest.
    """
    share = -(-sum(sizes.values()) // ranks)
    hands: list[list[Piece]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for shard, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        first = 0
        while first < size:
            rank = loads.index(min(loads))
            room = share - loads[rank]
            # a small rest stays with the rank: each rank that reads a shard takes the digest of the whole file
            stop = first + room if size > share and size - first > room * 9 / 8 else size
            hands[rank].append(Piece(shard, first, stop, size))
            loads[rank] += stop - first
            first = stop
    return [sorted(hand, key=lambda piece: piece.shard) for hand in hands]
