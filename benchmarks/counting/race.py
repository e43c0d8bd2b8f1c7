"""One layout, counted by everybody in turns."""

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

_log = logging.getLogger(__name__)

NAIVE_GRIDS = 1024
NAIVE_SLICES = 32
"""How many slices naive counts of a layout that is slow to slice."""
LEAST_SECONDS = 0.05
"""A sample repeats short calls for so long."""
LONG_SECONDS = 1.0
"""A call that takes longer is timed twice alone: it outlasts what disturbs the others."""
FAST_MODULE = "deflate"


@dataclass(frozen=True)
class Contestant:
    """A counter of counters.py, whether its process may use libdeflate, and on which layouts it counts."""

    name: str
    counter: str
    fast: bool = True
    layouts: Literal["all", "zlib", "plain"] = "all"
    compiled: bool = False
    """It takes a C compiler."""

    def counts(self, layout: Layout) -> bool:
        """It has something to show there."""
        return {"all": True, "zlib": layout.inflates, "plain": layout.plain}[self.layouts]


NAIVE = Contestant("naive", "naive")
WHOLE_CHUNKS = Contestant("whole chunks", "whole_chunks")
OURS = Contestant("vaefit", "ours")
TWO_THREADS = Contestant("vaefit, 2 threads", "ours_on_two")
COMPILED = Contestant("vaefit, compiled", "ours_compiled", compiled=True)
ZLIB = Contestant("vaefit, zlib", "ours", False, "zlib")
DECODE = Contestant("decode only", "decode")
DECODE_ZLIB = Contestant("decode only, zlib", "decode", False, "zlib")
READ = Contestant("h5py reads it whole", "read_whole", layouts="plain")
CONTESTANTS = (NAIVE, WHOLE_CHUNKS, OURS, TWO_THREADS, COMPILED, ZLIB, READ, DECODE, DECODE_ZLIB)


@dataclass(frozen=True)
class Subject:
    """A layout in a file, and the cells that went into it."""

    layout: Layout
    cells: NDArray[np.uint8]
    file: Path

    @classmethod
    def write(cls, layout: Layout, cells: NDArray[np.uint8], folder: Path) -> Subject:
        """Write it to a file of the folder; of wide labels fewer, so that the bytes stay as many."""
        cells = cells[: max(1, len(cells) // np.dtype(layout.dtype).itemsize)]
        subject = cls(layout, cells, folder / f"{layout.name}.h5")
        layout.write(cells, subject.file)
        return subject

    @property
    def bytes(self) -> int:
        """Of all cells in memory."""
        return self.cells.size * np.dtype(self.layout.dtype).itemsize

    def request(self, contestant: Contestant, seconds: float = 0.0) -> Request:
        """Count it; of a slow layout naive counts a part."""
        slices = NAIVE_SLICES if self.layout.slow and contestant is NAIVE else None
        return Request(contestant.counter, str(self.file), slices, seconds)

    def measured_bytes(self, contestant: Contestant) -> int:
        """How many bytes of cells a request goes through."""
        slices = self.request(contestant).slices
        return self.bytes if slices is None else min(self.bytes, self.bytes // len(self.cells) * NAIVE_GRIDS * slices)

    def wrong(self, contestant: Contestant, answer: Answer) -> str | None:
        """How the answer differs from numpy's; None where it does not."""
        wanted = self.measured_bytes(contestant)
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
class CountRace:
    """Everybody who counts one layout."""

    subject: Subject
    usual: Worker
    slower: Worker
    """Without libdeflate."""
    compiled: bool
    """The compiled counter can be built."""
    begins: Callable[[str], None]

    def rows(self, rounds: int, memory_of_all: bool) -> list[CountRow]:
        """A row for each; nothing is timed where one counts wrongly, and a warning says what it counted.

        Each counts in every round, in an order that shifts from round to round. Memory is taken apart from time, of
        ours or of all.
        """
        racing = [one for one in CONTESTANTS if one.counts(self.subject.layout) and one.compiled <= self.compiled]
        first = {}
        red = {}
        for one in racing:
            self.begins(f"parity, {one.name}")
            first[one] = self._ask(one)
            wrong = self.subject.wrong(one, first[one])
            if wrong is not None:
                red[one] = wrong
                _log.warning(f"{self.subject.layout.title}: {one.name}: parity is red, so nothing is timed: {wrong}")
        samples = {one: [answer] if answer.wall >= LONG_SECONDS and not red else [] for one, answer in first.items()}
        if not red:
            for number in range(rounds):
                for place in range(len(racing)):
                    one = racing[(number + place) % len(racing)]
                    if number == 0 or first[one].wall < LONG_SECONDS:
                        self.begins(one.name)
                        samples[one].append(self._ask(one, LEAST_SECONDS))
        cpu = {one: self._spread(one, [answer.cpu for answer in found]) for one, found in samples.items()}
        wall = {one: self._spread(one, [answer.wall for answer in found]) for one, found in samples.items()}
        found = []
        for one in racing:
            measured = not red and (memory_of_all or one.counter.startswith("ours"))
            found.append(
                CountRow(
                    layout=self.subject.layout.name,
                    title=self.subject.layout.title,
                    contestant=one.name,
                    parity=one not in red,
                    bytes=self.subject.bytes,
                    measured_bytes=self.subject.measured_bytes(one),
                    cpu=cpu[one],
                    wall=wall[one],
                    ratio=None if one is NAIVE else _over(cpu[NAIVE], cpu[one]),
                    decode_share=_over(cpu[DECODE if one.fast else DECODE_ZLIB], cpu[one]),
                    extra_bytes=self._memory(one) if measured else None,
                    way=first[one].way,
                )
            )
        return found

    def _ask(self, contestant: Contestant, seconds: float = 0.0) -> Answer:
        worker = self.usual if contestant.fast else self.slower
        return worker.ask(self.subject.request(contestant, seconds))

    def _memory(self, contestant: Contestant) -> int | None:
        """Of a fresh process."""
        self.begins(f"memory, {contestant.name}")
        with Worker(() if contestant.fast else (FAST_MODULE,)) as fresh:
            return extra_memory(fresh, fresh.ask(self.subject.request(contestant)))

    def _spread(self, contestant: Contestant, seconds: list[float]) -> Spread | None:
        """Of all cells, where only a part was measured."""
        times = self.subject.bytes / self.subject.measured_bytes(contestant)
        return Spread.from_values([times * value for value in seconds]) if seconds else None


def _over(spread: Spread | None, other: Spread | None) -> float | None:
    """How many times the second the first is."""
    return None if spread is None or other is None else spread.median / other.median
