"""Loader that keeps all grids of a role in memory and shuffles them fully each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.communicator import Communicator, own_portion
from vaefit.cache.hdf5.grids import opened

from .split_reader import SplitReader

_STREAM = 0x3E30
"""Seeds these random numbers apart from other uses of the same seed."""


class InMemory:
    """A `Loader` that reads the grids once; every order of them is equally likely."""

    def __init__(self, reader: SplitReader, batch_size: int, seed: int, ranks: Communicator | None) -> None:
        """Read the grids; errors as `SplitReader.read`.

        Every rank holds all of them, so that the batches are those of one process.
        """
        with opened(reader.data) as grids:
            self._grids = reader.read(grids, np.flatnonzero(reader.sizes))
        self._seed = seed
        self.mode: Literal["memory", "stream"] = "memory"
        self.size, self.batch_size = reader.size, batch_size
        self.steps, self.rows = self.size // batch_size, own_portion(batch_size, ranks)
        self._own = own_portion(self.size, ranks)
        self.how = f"in memory, {_bytes(reader.bytes)} of {reader.dtype}, shuffled fully"

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """Yield the rank's rows (b, H, W) of each batch of an epoch from number `first` on."""
        order = np.random.default_rng([self._seed, _STREAM, epoch]).permutation(self.size)
        for step in range(first, self.steps):
            yield self._grids[order[step * self.batch_size : (step + 1) * self.batch_size][self.rows]]

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """Yield the rank's grids once, in the order of the dataset."""
        for first in range(self._own.start, self._own.stop, batch_size):
            yield self._grids[first : min(first + batch_size, self._own.stop)].copy()

    def close(self) -> None:
        """Do nothing: no file is open."""


def _bytes(number: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
