"""Loader that reads the grids again each epoch: chunks in random order, grids shuffled in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.hdf5.blocks import Labels
from vaefit.cache.hdf5.grids import Grids

from .rank_share import ALONE, Share
from .read_ahead import ReadAhead
from .split_reader import KeepReading, SplitReader

_BLOCKS, _WINDOWS = 0x57E4, 0x57E5
"""Seed these random numbers apart from other uses of the same seed, and from each other."""


@dataclass(frozen=True)
class _Stretch:
    """Consecutive grids of one rank, in blocks that are in some order."""

    blocks: NDArray[np.int64]
    skip: int
    """Grids at the start of the first block that belong to another rank."""
    size: int
    """Number of grids; further grids of the last block belong to another rank."""


@dataclass(frozen=True)
class _Window:
    """Consecutive blocks of a stretch that are read together."""

    number: int
    blocks: NDArray[np.int64]
    skip: int
    """Grids at the start of the first block that are left out."""
    first: int
    """Grids of the stretch in the windows before this one."""
    stop: int


@dataclass(frozen=True)
class _ReadWindow:
    """The grids of a window, and the order in which the batches take them."""

    grids: Labels  # (n, H, W)
    order: NDArray[np.int64]  # (n,)


_ReadFunction = Callable[[_Window, KeepReading], tuple[_Window, _ReadWindow]]


class Streamed:
    """A `Loader` that reads each stored chunk once an epoch, with at most `workers` + 1 windows in memory.

    Each of several ranks reads its own blocks: the shuffled blocks are divided by grids, so that two ranks may read the
    block at a border, but no grid is in the batches of both.
    """

    def __init__(
        self, reader: SplitReader, batch_size: int, seed: int, workers: int, window: int, share: Share = ALONE
    ) -> None:
        self._reader, self._seed, self._workers, self._window = reader, seed, workers, window
        self._share = share
        self._free_files: list[Grids] = []
        self._running: set[ReadAhead[_Window, tuple[_Window, _ReadWindow]]] = set()
        self._closed = False
        self.mode: Literal["memory", "stream"] = "stream"
        self.size, self.batch_size = reader.size, batch_size
        self.steps, self.rows = self.size // batch_size, share.of(batch_size)
        threads = f"{workers} worker{'' if workers == 1 else 's'}"
        self.how = f"streamed in chunk order by {threads}, shuffled in windows of {window:,} grids"

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """Yield the rank's rows (b, H, W) of each batch from number `first` on; earlier windows are not read."""
        blocks = np.flatnonzero(self._reader.sizes)
        np.random.default_rng([self._seed, _BLOCKS, epoch]).shuffle(blocks)
        rank, rows = self._share.rank, self.rows
        last = rank == self._share.ranks - 1  # the grids left over of an epoch are in its part
        stretch = self._stretch(blocks, self.steps * rows.start, self.size if last else self.steps * rows.stop)
        size = rows.stop - rows.start

        def read(window: _Window, keep_reading: KeepReading) -> tuple[_Window, _ReadWindow]:
            rng = np.random.default_rng([self._seed, _WINDOWS, epoch, window.number, *([rank] if rank else [])])
            return window, _ReadWindow(
                self._read_window(window, keep_reading), rng.permutation(window.stop - window.first)
            )

        yield from self._batches(read, stretch, size, first * size, self.steps * size)

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """Yield the rank's grids once, in the order of the dataset."""
        own = self._share.of(self.size)
        stretch = self._stretch(np.flatnonzero(self._reader.sizes), own.start, own.stop)

        def read(window: _Window, keep_reading: KeepReading) -> tuple[_Window, _ReadWindow]:
            return window, _ReadWindow(self._read_window(window, keep_reading), np.arange(window.stop - window.first))

        yield from self._batches(read, stretch, batch_size, 0, stretch.size)

    def close(self) -> None:
        """Stop every worker and close every file; an iterator that needs another window raises RuntimeError."""
        self._closed = True
        for ahead in tuple(self._running):
            ahead.close()
        while self._free_files:
            self._free_files.pop().close()

    def _batches(
        self, read: _ReadFunction, stretch: _Stretch, batch_size: int, start: int, stop: int
    ) -> Iterator[NDArray[np.integer]]:
        """Yield batches of the grids start..stop-1 of a stretch, counted through its windows."""
        if self._closed:
            raise RuntimeError("the loader is closed")
        windows = (window for window in self._windows(stretch) if start < window.stop and window.first < stop)
        ahead = ReadAhead(read, windows, self._workers)
        self._running.add(ahead)
        parts: list[Labels] = []
        at = start
        try:
            while (found := ahead.next()) is not None:
                window, held = found
                while at < min(window.stop, stop):
                    # to the end of the batch, of the window, or of the epoch
                    end = min(at + batch_size - sum(map(len, parts)), window.stop, stop)
                    parts.append(held.grids[held.order[at - window.first : end - window.first]])
                    at = end
                    if at == stop or sum(map(len, parts)) == batch_size:
                        yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                        parts = []
                del found, held  # before another window is read into memory
        finally:
            ahead.close()
            self._running.discard(ahead)

    def _stretch(self, blocks: NDArray[np.int64], first: int, stop: int) -> _Stretch:
        """Return the grids first..stop-1 of the blocks in this order."""
        ends = np.cumsum(self._reader.sizes[blocks])
        begin, end = int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, stop)) + 1
        before = int(ends[begin - 1]) if begin else 0
        return _Stretch(blocks[begin:end], first - before, stop - first)

    def _windows(self, stretch: _Stretch) -> Iterator[_Window]:
        """Yield the windows of a stretch, each with the fewest blocks that hold `window` grids."""
        blocks = stretch.blocks
        ends = np.minimum(np.cumsum(self._reader.sizes[blocks]) - stretch.skip, stretch.size)
        number = begin = first = 0
        while first < stretch.size:
            end = min(int(np.searchsorted(ends, first + self._window)) + 1, len(blocks))
            skip = 0 if begin else stretch.skip
            yield _Window(number, blocks[begin:end], skip, first, int(ends[end - 1]))
            number, begin, first = number + 1, end, int(ends[end - 1])

    def _read_window(self, window: _Window, keep_reading: KeepReading) -> Labels:
        """Return the grids (n, H, W) of a window in the order of its blocks; each thread has its own open files."""
        grids = self._take_files()
        try:
            read = self._reader.read(grids, window.blocks, keep_reading)
            return read[window.skip : window.skip + window.stop - window.first]
        finally:
            self._free_files.append(grids)

    def _take_files(self) -> Grids:
        """Return open files that no other thread uses."""
        with suppress(IndexError):
            return self._free_files.pop()
        # outside the handler of the IndexError: its traceback would keep a whole window in memory
        return Grids(self._reader.data)
