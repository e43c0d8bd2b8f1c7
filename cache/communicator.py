"""Interface of the processes of one job, its ranks: sums, gathers and broadcasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Part = TypeVar("Part")


class Communicator(Protocol):
    """A process of a job. All processes call the same methods in the same order.

    `gather` and `share` pickle their argument, so the processes must trust each other.
    """

    rank: int
    """0..size-1."""
    size: int
    """Number of processes of the job; 2 or more."""
    local_size: int
    """Number of processes of the job on this machine."""

    def add(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return the element-wise sums over all ranks of an int64 or float64 array of one shape."""

    def gather(self, part: Part) -> list[Part]:
        """Return every rank's part, by rank, on rank 0; an empty list on the others."""

    def share(self, found: Part) -> Part:
        """Return, on every rank, the value of rank 0."""


def portion(size: int, rank: int, ranks: int) -> slice:
    """Return a rank's slice of `size` items: each item is in one slice, and their lengths differ by at most 1."""
    return slice(size * rank // ranks, size * (rank + 1) // ranks)


def own_portion(size: int, ranks: Communicator | None) -> slice:
    """Return this rank's slice of `size` items; without ranks, all of them."""
    return slice(0, size) if ranks is None else portion(size, ranks.rank, ranks.size)


def every_rank(ranks: Communicator, yes: bool) -> bool:
    """Return True where `yes` is true on all ranks."""
    return int(ranks.add(np.array([yes], np.int64))[0]) == ranks.size


def any_rank(ranks: Communicator, yes: bool) -> bool:
    """Return True where `yes` is true on one rank or more."""
    return int(ranks.add(np.array([yes], np.int64))[0]) > 0


def from_rank_zero(ranks: Communicator | None, make: Callable[[], Part]) -> Part:
    """Return on every rank what `make` returns on rank 0, which alone calls it; without ranks, call it here."""
    if ranks is None:
        return make()
    return ranks.share(make() if ranks.rank == 0 else cast(Part, None))
