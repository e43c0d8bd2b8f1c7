"""Loader that reads the grids again each epoch: chunks in random order, grids shuffled in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.communicator import Communicator, own_portion
from vaefit.cache.hdf5.blocks import Labels
from vaefit.cache.hdf5.grids import Grids

from .read_ahead import ReadAhead
from .split_reader import KeepReading, SplitReader

_BLOCKS, _WINDOWS = 0x57E4, 0x57E5
"""Seed these random numbers apart from other uses of the same seed, and from each other."""


@dataclass(frozen=True)
class _Window:
    """Consecutive blocks of a rank's part that are read together."""

    number: int
    blocks: NDArray[np.int64]
    skip: int
    """Grids at the start of the first block that belong to another rank."""
    first: int
    """Grids of the part in the windows before this one."""
    stop: int
    """Grids of the part up to the end of this window; further grids of the last block belong to another rank."""


class Streamed:
    """A `Loader` that reads each stored chunk once an epoch, with at most `workers` + 1 windows in memory.

    Each of several ranks reads its own blocks: the shuffled blocks are divided by grids, so that two ranks may read the
    block at a border, but no grid is in the batches of both.
    """

    def __init__(
        self, reader: SplitReader, batch_size: int, seed: int, workers: int, window: int, ranks: Communicator | None
    ) -> None:
        self._reader, self._seed, self._workers, self._window, self._ranks = reader, seed, workers, window, ranks
        self._free_files: list[Grids] = []
        self._running: set[ReadAhead[_Window, tuple[_Window, Labels]]] = set()
        self._closed = False
        self.mode: Literal["memory", "stream"] = "stream"
        self.size, self.batch_size = reader.size, batch_size
        self.steps, self.rows = self.size // batch_size, own_portion(batch_size, ranks)
        threads = f"{workers} worker{'' if workers == 1 else 's'}"
        self.how = f"streamed in chunk order by {threads}, shuffled in windows of {window:,} grids"

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """Yield the rank's rows (b, H, W) of each batch from number `first` on; earlier windows are not read."""
        blocks = np.flatnonzero(self._reader.sizes)
        np.random.default_rng([self._seed, _BLOCKS, epoch]).shuffle(blocks)
        rank, size = 0 if self._ranks is None else self._ranks.rank, self.rows.stop - self.rows.start
        last = self.rows.stop == self.batch_size  # the last rank's part holds the grids left over of an epoch
        windows = self._windows(
            blocks, self.steps * self.rows.start, self.size if last else self.steps * self.rows.stop
        )

        def order(window: _Window) -> NDArray[np.int64]:
            rng = np.random.default_rng([self._seed, _WINDOWS, epoch, window.number, *([rank] if rank else [])])
            return rng.permutation(window.stop - window.first)

        yield from self._batches(windows, order, size, first * size, self.steps * size)

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """Yield the rank's grids once, in the order of the dataset."""
        own = own_portion(self.size, self._ranks)
        windows = self._windows(np.flatnonzero(self._reader.sizes), own.start, own.stop)

        def order(window: _Window) -> NDArray[np.int64]:
            return np.arange(window.stop - window.first)

        yield from self._batches(windows, order, batch_size, 0, own.stop - own.start)

    def close(self) -> None:
        """Stop every worker and close every file; an iterator that needs another window raises RuntimeError."""
        self._closed = True
        for ahead in tuple(self._running):
            ahead.close()
        while self._free_files:
            self._free_files.pop().close()

    def _batches(
        self,
        windows: Iterator[_Window],
        order: Callable[[_Window], NDArray[np.int64]],
        batch_size: int,
        start: int,
        stop: int,
    ) -> Iterator[NDArray[np.integer]]:
        """Yield batches of the rank's grids start..stop-1, counted through the windows, each window in its `order`."""
        if self._closed:
            raise RuntimeError("the loader is closed")
        needed = (window for window in windows if start < window.stop and window.first < stop)
        ahead = ReadAhead(self._read_window, needed, self._workers)
        self._running.add(ahead)
        parts: list[Labels] = []
        at = start
        try:
            while (found := ahead.next()) is not None:
                window, grids = found
                places = order(window)
                while at < min(window.stop, stop):
                    # to the end of the batch, of the window, or of the epoch
                    end = min(at + batch_size - sum(map(len, parts)), window.stop, stop)
                    parts.append(grids[places[at - window.first : end - window.first]])
                    at = end
                    if at == stop or sum(map(len, parts)) == batch_size:
                        yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                        parts = []
                del found, grids  # before another window is read into memory
        finally:
            ahead.close()
            self._running.discard(ahead)

    def _windows(self, blocks: NDArray[np.int64], first: int, stop: int) -> Iterator[_Window]:
        """Yield windows of the grids first..stop-1 of the blocks in this order.

        Each window has the fewest blocks that hold `window` grids.
        """
        ends = np.minimum(np.cumsum(self._reader.sizes[blocks]), stop) - first
        begin = int(np.searchsorted(ends, 0, "right"))
        skip = -int(ends[begin - 1]) if begin else first
        number = at = 0
        while at < stop - first:
            end = int(np.searchsorted(ends, min(at + self._window, stop - first))) + 1
            yield _Window(number, blocks[begin:end], skip, at, int(ends[end - 1]))
            number, begin, skip, at = number + 1, end, 0, int(ends[end - 1])

    def _read_window(self, window: _Window, keep_reading: KeepReading) -> tuple[_Window, Labels]:
        """Return a window, and its grids (n, H, W) in the order of its blocks; each thread has its own open files."""
        grids = None
        with suppress(IndexError):
            grids = self._free_files.pop()
        if grids is None:  # not in a handler of the IndexError, whose traceback would keep a whole window in memory
            grids = Grids(self._reader.data)
        try:
            read = self._reader.read(grids, window.blocks, keep_reading)
            return window, read[window.skip : window.skip + window.stop - window.first]
        finally:
            self._free_files.append(grids)
