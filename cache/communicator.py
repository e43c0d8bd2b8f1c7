"""The processes of one job that count together, as this package sees them: whoever starts them says how they talk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Part = TypeVar("Part")


class Communicator(Protocol):
    """One process of a job, and how it talks to the others: all of them call the same methods in the same order.

    What is gathered and shared is pickled, and may be anything that the processes of one program trust each other with.
    """

    rank: int
    """0..size-1."""
    size: int
    """How many processes there are; two or more."""
    local_size: int
    """How many of them are on this machine."""

    def add(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Element-wise sums over all ranks of an int64 or float64 array, which has one shape on each of them."""

    def gather(self, part: Part) -> list[Part]:
        """Every rank's part, by rank, for rank 0; an empty list for the others."""

    def share(self, found: Part) -> Part:
        """What rank 0 has, for all of them."""


def portion(size: int, rank: int, ranks: int) -> slice:
    """Which of `size` things, in a row, are a rank's: all are somebody's, and no rank has two more than another."""
    return slice(size * rank // ranks, size * (rank + 1) // ranks)


def every_rank(ranks: Communicator, yes: bool) -> bool:
    """True where all ranks say so."""
    return int(ranks.add(np.array([yes], np.int64))[0]) == ranks.size


def any_rank(ranks: Communicator, yes: bool) -> bool:
    """True where one of them says so."""
    return int(ranks.add(np.array([yes], np.int64))[0]) > 0


def from_rank_zero(ranks: Communicator | None, make: Callable[[], Part]) -> Part:
    """What `make` gives on rank 0, which alone calls it, for all ranks; a process by itself calls it too."""
    if ranks is None:
        return make()
    return ranks.share(make() if ranks.rank == 0 else cast(Part, None))
