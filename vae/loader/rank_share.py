"""What of a batch, and of a dataset, one process of a job takes."""

from __future__ import annotations

from dataclasses import dataclass

from vaefit.cache.communicator import Communicator, portion


@dataclass(frozen=True)
class Share:
    """A rank's share of what all of them go through together."""

    rank: int = 0
    ranks: int = 1

    @classmethod
    def from_communicator(cls, ranks: Communicator | None) -> Share:
        """That of this process; None is a process by itself."""
        return ALONE if ranks is None else cls(ranks.rank, ranks.size)

    def of(self, size: int) -> slice:
        """Which of `size` things, in a row, are this rank's."""
        return portion(size, self.rank, self.ranks)


ALONE = Share()
