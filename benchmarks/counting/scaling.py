"""Memory and time per cell of counting over the size of the dataset, and the time of a cache hit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .layouts import CHUNK, LABELS, make_cells, write_repeated
from .worker import Answer, Request, Worker

SIZES = (100_000_000, 1_000_000_000, 4_000_000_000)
"""Bytes of cells, of uint8."""
EMPTY_GRIDS = 8
"""Share of non-empty grids, as one in this many; it keeps the files small."""
LEAST_SECONDS = 0.2
HITS = 5
NOT_RACY_SECONDS = 2.2
"""The cache compares the bytes of a file younger than this, for an edit might leave its time stamp unchanged."""


@dataclass(frozen=True)
class SizeRow:
    """Our scan on gzip-4 (4096,16,16) of one size; without numbers if the counts are wrong."""

    bytes: int
    parity: bool
    cpu_s: float | None
    """CPU seconds of a count on one thread: the median of the rounds."""
    extra_bytes: dict[str, int | None]
    """Peak memory above that of a process after its imports, by threads: `1`, `2`."""

    @property
    def speed(self) -> float | None:
        """Bytes per CPU second."""
        return None if self.cpu_s is None else self.bytes / self.cpu_s

    @property
    def largest_extra(self) -> int | None:
        """The larger of the two; None if the system does not report memory."""
        return max((extra for extra in self.extra_bytes.values() if extra is not None), default=None)


@dataclass(frozen=True)
class Hit:
    """Time of `count_dataset` with a valid cached file: the first call of a fresh process, after its imports."""

    wall_ms: float
    """The median over the processes."""
    cpu_ms: float
    most_wall_ms: float


@dataclass(frozen=True)
class Scaling:
    """Rows of all sizes, and the cache hit."""

    sizes: tuple[SizeRow, ...]
    hit: Hit | None
    """None if the cache did not answer, or a count is wrong."""

    @property
    def passed(self) -> bool:
        """True if every count is right, those from the cache too."""
        return self.hit is not None and all(row.parity for row in self.sizes)

    @property
    def unevenness(self) -> float | None:
        """The CPU time a cell of the slowest size over that of the fastest; 1 is linear."""
        speeds = [row.speed for row in self.sizes if row.speed is not None]
        return max(speeds) / min(speeds) if len(speeds) > 1 else None

    def json(self) -> dict[str, Any]:
        """Return the rows and the cache hit as JSON."""
        sizes = [{**asdict(row), "gb_s": None if row.speed is None else row.speed / 1e9} for row in self.sizes]
        return {"sizes": sizes, "unevenness": self.unevenness, "cache_hit": self.hit and asdict(self.hit)}


@dataclass(frozen=True)
class _StoredLayout:
    """A dataset of one size and numpy's counts of it."""

    file: Path
    counts: list[int]

    @classmethod
    def write(cls, size: int, folder: Path) -> _StoredLayout:
        cells = make_cells(CHUNK[0])
        cells[np.arange(len(cells)) % EMPTY_GRIDS > 0] = 0
        times = max(1, round(size / cells.size))
        file = folder / f"{size}.h5"
        write_repeated(cells, times, file)
        return cls(file, (times * np.bincount(cells.reshape(-1), minlength=LABELS)).tolist())

    def ask(self, worker: Worker, counter: str, seconds: float = 0.0) -> Answer | None:
        """Return the answer of a worker; None if the counts are wrong."""
        answer = worker.ask(Request(counter, str(self.file), least_seconds=seconds))
        return answer if answer.counts == self.counts else None


def measure_scaling(sizes: tuple[int, ...], rounds: int, folder: Path, on_part: Callable[[str], None]) -> Scaling:
    """Count a dataset of each size in its own processes, the sizes in turns, then time a cache hit."""
    rows = []
    with ExitStack() as stack:
        storeds: list[_StoredLayout] = []
        workers: list[Worker] = []
        samples: list[list[float] | None] = []
        extras: list[dict[str, int | None]] = []
        for size in sizes:
            on_part(f"memory, {size / 1e9:.1f} GB")
            stored = _StoredLayout.write(size, folder)
            one = stack.enter_context(Worker())
            with Worker() as two:
                answers = {"1": (one, stored.ask(one, "ours")), "2": (two, stored.ask(two, "ours_on_two"))}
            storeds.append(stored)
            workers.append(one)
            samples.append([] if all(answer for _, answer in answers.values()) else None)
            extras.append({threads: extra_memory(worker, answer) for threads, (worker, answer) in answers.items()})
        for number in range(rounds * len(sizes)):
            place = number % len(sizes)
            kept = samples[place]
            if kept is None:
                continue
            on_part(f"time, {sizes[place] / 1e9:.1f} GB")
            answer = storeds[place].ask(workers[place], "ours", LEAST_SECONDS)
            if answer is None:
                samples[place] = None
            else:
                kept.append(answer.cpu)
        for stored, kept, extra in zip(storeds, samples, extras, strict=True):
            seconds = None if kept is None else statistics.median(kept)
            rows.append(SizeRow(sum(stored.counts), kept is not None, seconds, extra))
        on_part("a cache hit")
        return Scaling(tuple(rows), _hit(storeds[0]))


def extra_memory(worker: Worker, answer: Answer | None) -> int | None:
    """Return the peak memory of a worker above its memory at the start; None if it is not known."""
    if answer is None or answer.peak is None or worker.base is None:
        return None
    return answer.peak - worker.base


def _hit(stored: _StoredLayout) -> Hit | None:
    """Cache the counts, then time new processes; None if an answer is wrong or not from the cache."""
    time.sleep(max(0.0, stored.file.stat().st_mtime + NOT_RACY_SECONDS - time.time()))
    with Worker() as fresh:
        stored.ask(fresh, "cached")
    wall, cpu = [], []
    for _ in range(HITS):
        with Worker() as fresh:
            answer = stored.ask(fresh, "cached")
        if answer is None or answer.way != "cache":
            return None
        wall.append(1e3 * answer.wall)
        cpu.append(1e3 * answer.cpu)
    return Hit(statistics.median(wall), statistics.median(cpu), max(wall))
