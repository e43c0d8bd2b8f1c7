"""All grids of a role in memory, in a new order each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.grids import opened

from .source import Source

_STREAM = 0x3E30
"""Keeps these random numbers apart from others of the same seed."""


class InMemory:
    """A `Loader` of grids that were read once; every order of them is as likely as any other."""

    def __init__(self, source: Source, batch_size: int, seed: int) -> None:
        """Read them; errors as `Source.read`."""
        with opened(source.data) as grids:
            self._grids = source.read(grids, np.flatnonzero(source.sizes))
        self._seed = seed
        self.mode: Literal["memory", "stream"] = "memory"
        self.size, self.batch_size = source.size, batch_size
        self.steps = self.size // batch_size
        self.how = f"in memory, {_bytes(source.bytes)} of {source.dtype}, shuffled fully"

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """Batches `first`.. of an epoch, each (B, H, W)."""
        order = np.random.default_rng([self._seed, _STREAM, epoch]).permutation(self.size)
        for step in range(first, self.steps):
            yield self._grids[order[step * self.batch_size : (step + 1) * self.batch_size]]

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """Every grid once, in the order of the dataset."""
        for first in range(0, self.size, batch_size):
            yield self._grids[first : first + batch_size].copy()

    def close(self) -> None:
        """Nothing is open; the memory goes with the last reference."""


def _bytes(number: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
