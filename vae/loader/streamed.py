"""Grids that are read again each epoch, chunk by chunk in random order, and shuffled in windows."""

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
from .split_reader import Goes, Source

_BLOCKS, _WINDOWS = 0x57E4, 0x57E5
"""Keep these random numbers apart from others of the same seed, and from each other."""


@dataclass(frozen=True)
class _Stretch:
    """Grids one after another in blocks that are in some order: those of one rank."""

    blocks: NDArray[np.int64]
    skip: int
    """Grids of the first block that come before them, and are another rank's."""
    size: int
    """How many they are; what the last block holds beyond them is another rank's too."""


@dataclass(frozen=True)
class _Window:
    """Blocks that are read together."""

    number: int
    blocks: NDArray[np.int64]
    skip: int
    """Grids at their beginning that are left out."""
    first: int
    """How many grids of the stretch the windows before it hold."""
    stop: int


@dataclass(frozen=True)
class _Held:
    """The grids of a window, and the order in which they are to be taken."""

    grids: Labels  # (n, H, W)
    order: NDArray[np.int64]  # (n,)


_Reading = Callable[[_Window, Goes], tuple[_Window, _Held]]


class Streamed:
    """A `Loader` that reads each stored chunk once an epoch, and holds `workers` + 1 windows at most.

    Of several ranks each reads blocks of its own: the shuffled blocks are cut where the grids are shared out, so that
    two ranks read a block together at each cut, and no grid is taken by both.
    """

    def __init__(
        self, source: Source, batch_size: int, seed: int, workers: int, window: int, share: Share = ALONE
    ) -> None:
        self._source, self._seed, self._workers, self._window = source, seed, workers, window
        self._share = share
        self._idle: list[Grids] = []
        self._running: set[ReadAhead[_Window, tuple[_Window, _Held]]] = set()
        self._closed = False
        self.mode: Literal["memory", "stream"] = "stream"
        self.size, self.batch_size = source.size, batch_size
        self.steps, self.rows = self.size // batch_size, share.of(batch_size)
        by = f"{workers} worker{'' if workers == 1 else 's'}"
        self.how = f"streamed in chunk order by {by}, shuffled in windows of {window:,} grids"

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """The rank's rows (b, H, W) of the batches `first`.. of an epoch; the windows before them are not read."""
        blocks = np.flatnonzero(self._source.sizes)
        np.random.default_rng([self._seed, _BLOCKS, epoch]).shuffle(blocks)
        rank, rows = self._share.rank, self.rows
        last = rank == self._share.ranks - 1  # what is left over of an epoch is left over of its part
        stretch = self._stretch(blocks, self.steps * rows.start, self.size if last else self.steps * rows.stop)
        size = rows.stop - rows.start

        def read(window: _Window, goes: Goes) -> tuple[_Window, _Held]:
            rng = np.random.default_rng([self._seed, _WINDOWS, epoch, window.number, *([rank] if rank else [])])
            return window, _Held(self._grids_of(window, goes), rng.permutation(window.stop - window.first))

        yield from self._batches(read, stretch, size, first * size, self.steps * size)

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """The rank's grids once, in the order of the dataset."""
        mine = self._share.of(self.size)
        stretch = self._stretch(np.flatnonzero(self._source.sizes), mine.start, mine.stop)

        def read(window: _Window, goes: Goes) -> tuple[_Window, _Held]:
            return window, _Held(self._grids_of(window, goes), np.arange(window.stop - window.first))

        yield from self._batches(read, stretch, batch_size, 0, stretch.size)

    def close(self) -> None:
        """Stop every worker and close every file; an iterator that needs another window is told so."""
        self._closed = True
        for ahead in tuple(self._running):
            ahead.close()
        while self._idle:
            self._idle.pop().close()

    def _batches(
        self, read: _Reading, stretch: _Stretch, batch_size: int, start: int, stop: int
    ) -> Iterator[NDArray[np.integer]]:
        """Batches of the grids start..stop-1 of a stretch, counted through its windows."""
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
                del found, held  # before another window comes into memory
        finally:
            ahead.close()
            self._running.discard(ahead)

    def _stretch(self, blocks: NDArray[np.int64], first: int, stop: int) -> _Stretch:
        """Grids first..stop-1 of the blocks in this order."""
        ends = np.cumsum(self._source.sizes[blocks])
        begin, end = int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, stop)) + 1
        before = int(ends[begin - 1]) if begin else 0
        return _Stretch(blocks[begin:end], first - before, stop - first)

    def _windows(self, stretch: _Stretch) -> Iterator[_Window]:
        """The blocks of a stretch, each window of as few as hold the grids that are wanted for one."""
        blocks = stretch.blocks
        ends = np.minimum(np.cumsum(self._source.sizes[blocks]) - stretch.skip, stretch.size)
        number = begin = first = 0
        while first < stretch.size:
            end = min(int(np.searchsorted(ends, first + self._window)) + 1, len(blocks))
            skip = 0 if begin else stretch.skip
            yield _Window(number, blocks[begin:end], skip, first, int(ends[end - 1]))
            number, begin, first = number + 1, end, int(ends[end - 1])

    def _grids_of(self, window: _Window, goes: Goes) -> Labels:
        """(n, H, W), the grids of a window in the order of its blocks, by files that no other thread uses."""
        grids = self._opened()
        try:
            read = self._source.read(grids, window.blocks, goes)
            return read[window.skip : window.skip + window.stop - window.first]
        finally:
            self._idle.append(grids)

    def _opened(self) -> Grids:
        """Files that no other thread uses now."""
        with suppress(IndexError):
            return self._idle.pop()
        # not where the IndexError is handled: what is opened there keeps its traceback, and with that a whole window
        return Grids(self._source.data)
