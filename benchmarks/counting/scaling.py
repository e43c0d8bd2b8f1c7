"""Whether counting holds the same memory and takes the same time a cell, however large the dataset; and a cache hit."""

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
"""One grid in so many holds anything, so that the files stay small."""
LEAST_SECONDS = 0.2
HITS = 5
NOT_RACY_SECONDS = 2.2
"""A file younger than this could have been edited without a trace, so its cached counts are not believed at sight."""


@dataclass(frozen=True)
class SizeRow:
    """Ours on gzip-4 (4096,16,16) of one size; without numbers where the counts are wrong."""

    bytes: int
    parity: bool
    cpu_s: float | None
    """CPU seconds of a count on one thread: the median of the rounds."""
    extra_bytes: dict[str, int | None]
    """The most memory above that of a process which imported everything and counted nothing, by threads: `1`, `2`."""

    @property
    def speed(self) -> float | None:
        """Bytes a CPU second."""
        return None if self.cpu_s is None else self.bytes / self.cpu_s

    @property
    def largest_extra(self) -> int | None:
        """The larger of the two; None where the system does not tell memory."""
        return max((extra for extra in self.extra_bytes.values() if extra is not None), default=None)


@dataclass(frozen=True)
class Hit:
    """What count_dataset takes where its cached file is true: the first call of a fresh process, imports over."""

    wall_ms: float
    """The median over the processes."""
    cpu_ms: float
    most_wall_ms: float


@dataclass(frozen=True)
class Scaling:
    """All sizes and the hit."""

    sizes: tuple[SizeRow, ...]
    hit: Hit | None
    """None where the cache did not answer, or a count is wrong."""

    @property
    def passed(self) -> bool:
        """Every count was right, those from the cache too."""
        return self.hit is not None and all(row.parity for row in self.sizes)

    @property
    def unevenness(self) -> float | None:
        """The CPU time a cell of the slowest size over that of the fastest; 1 is linear."""
        speeds = [row.speed for row in self.sizes if row.speed is not None]
        return max(speeds) / min(speeds) if len(speeds) > 1 else None

    def json(self) -> dict[str, Any]:
        """As JSON."""
        sizes = [{**asdict(row), "gb_s": None if row.speed is None else row.speed / 1e9} for row in self.sizes]
        return {"sizes": sizes, "unevenness": self.unevenness, "cache_hit": self.hit and asdict(self.hit)}


@dataclass(frozen=True)
class _Subject:
    """A dataset of one size and numpy's counts of it."""

    file: Path
    counts: list[int]

    @classmethod
    def write(cls, size: int, folder: Path) -> _Subject:
        cells = make_cells(CHUNK[0])
        cells[np.arange(len(cells)) % EMPTY_GRIDS > 0] = 0
        times = max(1, round(size / cells.size))
        file = folder / f"{size}.h5"
        write_repeated(cells, times, file)
        return cls(file, (times * np.bincount(cells.reshape(-1), minlength=LABELS)).tolist())

    def ask(self, worker: Worker, counter: str, seconds: float = 0.0) -> Answer | None:
        """None where the counts are wrong."""
        answer = worker.ask(Request(counter, str(self.file), least_seconds=seconds))
        return answer if answer.counts == self.counts else None


def measure_scaling(sizes: tuple[int, ...], rounds: int, folder: Path, begins: Callable[[str], None]) -> Scaling:
    """Count a dataset of each size in processes of their own, the sizes in turns, then ask the cache."""
    rows = []
    with ExitStack() as stack:
        subjects: list[_Subject] = []
        workers: list[Worker] = []
        samples: list[list[float] | None] = []
        extras: list[dict[str, int | None]] = []
        for size in sizes:
            begins(f"memory, {size / 1e9:.1f} GB")
            subject = _Subject.write(size, folder)
            one = stack.enter_context(Worker())
            with Worker() as two:
                answers = {"1": (one, subject.ask(one, "ours")), "2": (two, subject.ask(two, "ours_on_two"))}
            subjects.append(subject)
            workers.append(one)
            samples.append([] if all(answer for _, answer in answers.values()) else None)
            extras.append({threads: extra_memory(worker, answer) for threads, (worker, answer) in answers.items()})
        for number in range(rounds * len(sizes)):
            place = number % len(sizes)
            kept = samples[place]
            if kept is None:
                continue
            begins(f"time, {sizes[place] / 1e9:.1f} GB")
            answer = subjects[place].ask(workers[place], "ours", LEAST_SECONDS)
            if answer is None:
                samples[place] = None
            else:
                kept.append(answer.cpu)
        for subject, kept, extra in zip(subjects, samples, extras, strict=True):
            seconds = None if kept is None else statistics.median(kept)
            rows.append(SizeRow(sum(subject.counts), kept is not None, seconds, extra))
        begins("a cache hit")
        return Scaling(tuple(rows), _hit(subjects[0]))


def extra_memory(worker: Worker, answer: Answer | None) -> int | None:
    """The most memory that a worker has held, above what it began with; None where it cannot be told."""
    if answer is None or answer.peak is None or worker.base is None:
        return None
    return answer.peak - worker.base


def _hit(subject: _Subject) -> Hit | None:
    """Have it cached, then ask new processes; None where the answer is wrong, or not the cache's."""
    time.sleep(max(0.0, subject.file.stat().st_mtime + NOT_RACY_SECONDS - time.time()))
    with Worker() as fresh:
        subject.ask(fresh, "cached")
    wall, cpu = [], []
    for _ in range(HITS):
        with Worker() as fresh:
            answer = subject.ask(fresh, "cached")
        if answer is None or answer.way != "cache":
            return None
        wall.append(1e3 * answer.wall)
        cpu.append(1e3 * answer.cpu)
    return Hit(statistics.median(wall), statistics.median(cpu), max(wall))
