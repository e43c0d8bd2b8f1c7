"""Comparison of all implementations on one layout, in turns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .layouts import LABELS, Layout
from .row import CountRow, Spread
from .scaling import extra_memory
from .worker import Answer, Request, Worker

_log = logging.getLogger("vaefit")

NAIVE_GRIDS = 1024
NAIVE_SLICES = 32
"""Slices that the naive loop counts of a layout that is slow to slice."""
LEAST_SECONDS = 0.05
"""Least time of a sample; short calls are repeated."""
LONG_SECONDS = 1.0
"""A call that takes longer is timed twice only: short disturbances hardly change it."""
FAST_MODULE = "deflate"


@dataclass(frozen=True)
class Implementation:
    """Implementation that is timed: a counter of counters.py, with or without libdeflate, on some layouts."""

    name: str
    counter: str
    fast: bool = True
    layouts: Literal["all", "zlib", "plain"] = "all"
    compiled: bool = False
    """True if it needs a C compiler."""

    def counts(self, layout: Layout) -> bool:
        """Return True if the implementation is timed on this layout."""
        return {"all": True, "zlib": layout.inflates, "plain": layout.plain}[self.layouts]


NAIVE = Implementation("naive", "naive")
WHOLE_CHUNKS = Implementation("whole chunks", "whole_chunks")
OURS = Implementation("vaefit", "ours")
TWO_THREADS = Implementation("vaefit, 2 threads", "ours_on_two")
COMPILED = Implementation("vaefit, compiled", "ours_compiled", compiled=True)
ZLIB = Implementation("vaefit, zlib", "ours", False, "zlib")
DECODE = Implementation("decode only", "decode")
DECODE_ZLIB = Implementation("decode only, zlib", "decode", False, "zlib")
READ = Implementation("h5py reads it whole", "read_whole", layouts="plain")
IMPLEMENTATIONS = (NAIVE, WHOLE_CHUNKS, OURS, TWO_THREADS, COMPILED, ZLIB, READ, DECODE, DECODE_ZLIB)


@dataclass(frozen=True)
class StoredLayout:
    """A layout in a file, and the cells that were written to it."""

    layout: Layout
    cells: NDArray[np.uint8]
    file: Path

    @classmethod
    def write(cls, layout: Layout, cells: NDArray[np.uint8], folder: Path) -> StoredLayout:
        """Write the layout to a file in the folder; wide labels get fewer grids, for the same bytes."""
        cells = cells[: max(1, len(cells) // np.dtype(layout.dtype).itemsize)]
        stored = cls(layout, cells, folder / f"{layout.name}.h5")
        layout.write(cells, stored.file)
        return stored

    @property
    def bytes(self) -> int:
        """Bytes of all cells in memory."""
        return self.cells.size * np.dtype(self.layout.dtype).itemsize

    def request(self, implementation: Implementation, seconds: float = 0.0) -> Request:
        """Return the request to count it; on a slow layout the naive loop counts a part."""
        slices = NAIVE_SLICES if self.layout.slow and implementation is NAIVE else None
        return Request(implementation.counter, str(self.file), slices, seconds)

    def measured_bytes(self, implementation: Implementation) -> int:
        """Return the bytes of cells that a request counts."""
        slices = self.request(implementation).slices
        return self.bytes if slices is None else min(self.bytes, self.bytes // len(self.cells) * NAIVE_GRIDS * slices)

    def wrong(self, implementation: Implementation, answer: Answer) -> str | None:
        """Return how the answer differs from numpy's; None if it agrees."""
        wanted = self.measured_bytes(implementation)
        if answer.bytes != wanted:
            return f"{answer.bytes:,} bytes of cells, not {wanted:,}"
        if answer.counts is None:
            return None
        grids = self.cells[: len(self.cells) * wanted // self.bytes]
        right = np.bincount(grids.reshape(-1), minlength=LABELS)
        off = np.flatnonzero(right != np.asarray(answer.counts))
        if off.size == 0:
            return None
        return f"{answer.counts[off[0]]:,} cells of class {off[0]}, not {right[off[0]]:,}"


@dataclass(frozen=True)
class CountComparison:
    """Comparison of the implementations on one layout."""

    stored: StoredLayout
    usual: Worker
    slower: Worker
    """Worker without libdeflate."""
    compiled: bool
    """True if the compiled counter can be built."""
    on_part: Callable[[str], None]

    def rows(self, rounds: int, memory_of_all: bool) -> list[CountRow]:
        """Return a row for each implementation; if one counts wrongly, a warning says so and nothing is timed.

        Each counts once a round, in an order that shifts from round to round. Memory is measured apart from time, of
        our scan or of all implementations.
        """
        layout = self.stored.layout
        implementations = [one for one in IMPLEMENTATIONS if one.counts(layout) and one.compiled <= self.compiled]
        first = {}
        red = {}
        for one in implementations:
            self.on_part(f"parity, {one.name}")
            first[one] = self._ask(one)
            wrong = self.stored.wrong(one, first[one])
            if wrong is not None:
                red[one] = wrong
                _log.warning(f"{layout.title}: {one.name}: parity is red, so nothing is timed: {wrong}")
        samples = {one: [answer] if answer.wall >= LONG_SECONDS and not red else [] for one, answer in first.items()}
        if not red:
            for number in range(rounds):
                for place in range(len(implementations)):
                    one = implementations[(number + place) % len(implementations)]
                    if number == 0 or first[one].wall < LONG_SECONDS:
                        self.on_part(one.name)
                        samples[one].append(self._ask(one, LEAST_SECONDS))
        cpu = {one: self._spread(one, [answer.cpu for answer in found]) for one, found in samples.items()}
        wall = {one: self._spread(one, [answer.wall for answer in found]) for one, found in samples.items()}
        found = []
        for one in implementations:
            measured = not red and (memory_of_all or one.counter.startswith("ours"))
            found.append(
                CountRow(
                    layout=layout.name,
                    title=layout.title,
                    implementation=one.name,
                    parity=one not in red,
                    bytes=self.stored.bytes,
                    measured_bytes=self.stored.measured_bytes(one),
                    cpu=cpu[one],
                    wall=wall[one],
                    ratio=None if one is NAIVE else _over(cpu[NAIVE], cpu[one]),
                    decode_share=_over(cpu[DECODE if one.fast else DECODE_ZLIB], cpu[one]),
                    extra_bytes=self._memory(one) if measured else None,
                    way=first[one].way,
                )
            )
        return found

    def _ask(self, implementation: Implementation, seconds: float = 0.0) -> Answer:
        worker = self.usual if implementation.fast else self.slower
        return worker.ask(self.stored.request(implementation, seconds))

    def _memory(self, implementation: Implementation) -> int | None:
        """Return the extra memory of a fresh process."""
        self.on_part(f"memory, {implementation.name}")
        with Worker(() if implementation.fast else (FAST_MODULE,)) as fresh:
            return extra_memory(fresh, fresh.ask(self.stored.request(implementation)))

    def _spread(self, implementation: Implementation, seconds: list[float]) -> Spread | None:
        """Return the seconds of a count of all cells, extrapolated if only a part was measured."""
        times = self.stored.bytes / self.stored.measured_bytes(implementation)
        return Spread.from_values([times * value for value in seconds]) if seconds else None


def _over(spread: Spread | None, other: Spread | None) -> float | None:
    """Return the ratio of the medians."""
    return None if spread is None or other is None else spread.median / other.median
