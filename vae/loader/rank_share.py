"""Share of one rank: its rows of a batch and its part of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from vaefit.cache.communicator import Communicator, portion


@dataclass(frozen=True)
class Share:
    """Share of one rank in work that all ranks divide."""

    rank: int = 0
    ranks: int = 1

    @classmethod
    def from_communicator(cls, ranks: Communicator | None) -> Share:
        """Return the share of this process; None is a single process, which has everything."""
        return ALONE if ranks is None else cls(ranks.rank, ranks.size)

    def of(self, size: int) -> slice:
        """Return the part of `size` consecutive items that this rank has."""
        return portion(size, self.rank, self.ranks)


ALONE = Share()
