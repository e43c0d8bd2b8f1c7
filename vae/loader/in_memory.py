"""All grids of a role in memory, in a new order each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.hdf5.grids import opened

from .rank_share import ALONE, Share
from .split_reader import Source

_STREAM = 0x3E30
"""Keeps these random numbers apart from others of the same seed."""


class InMemory:
    """A `Loader` of grids that were read once; every order of them is as likely as any other."""

    def __init__(self, source: Source, batch_size: int, seed: int, share: Share = ALONE) -> None:
        """Read them; errors as `Source.read`. Every rank holds all of them: batches are those of one process."""
        with opened(source.data) as grids:
            self._grids = source.read(grids, np.flatnonzero(source.sizes))
        self._seed = seed
        self.mode: Literal["memory", "stream"] = "memory"
        self.size, self.batch_size = source.size, batch_size
        self.steps, self.rows = self.size // batch_size, share.of(batch_size)
        self._mine = share.of(self.size)
        self.how = f"in memory, {_bytes(source.bytes)} of {source.dtype}, shuffled fully"

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """The rank's rows (b, H, W) of the batches `first`.. of an epoch."""
        order = np.random.default_rng([self._seed, _STREAM, epoch]).permutation(self.size)
        for step in range(first, self.steps):
            yield self._grids[order[step * self.batch_size : (step + 1) * self.batch_size][self.rows]]

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """The rank's grids once, in the order of the dataset."""
        for first in range(self._mine.start, self._mine.stop, batch_size):
            yield self._grids[first : min(first + batch_size, self._mine.stop)].copy()

    def close(self) -> None:
        """Nothing is open; the memory goes with the last reference."""


def _bytes(number: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
