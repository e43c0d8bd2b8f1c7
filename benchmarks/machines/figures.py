"""What is measured on one machine. GB is 10^9 bytes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """The median of some repeats, the least and the most of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Measured:
        """Of one sample or more."""
        return cls(statistics.median(samples), min(samples), max(samples))


@dataclass(frozen=True)
class CountingFigures:
    """CPU seconds of one thread for a GB of cells of one byte, the file in the page cache; and for its digest."""

    gzip: Measured
    """gzip-4 (4096,16,16), by the library that inflates here, counted by counter.c."""
    gzip_numpy: Measured
    """The same, counted by numpy: what a scan takes for fewer cells than a counter is built for."""
    gzip_zlib: Measured
    """As `gzip`, inflated by zlib."""
    contiguous: Measured
    """Cells as they are, counted by counter.c."""
    contiguous_numpy: Measured
    digest: Measured
    """sha256, for a GB of file."""
    gzip_size: float
    """Bytes of the gzip file for a byte of cells."""
    two_threads: float
    """How many times faster two threads of one process count than one, on the wall."""


@dataclass(frozen=True)
class ShardFigures:
    """Milliseconds that a shard takes, whatever its size, in a folder of many: of CPU, and on the wall where it waits.

    The disk is that of the temporary folder; no storage answers from far away.
    """

    entries: int
    """Files in that folder."""
    listed: Measured
    """To find it by a pattern and put it into its place."""
    hit: Measured
    """To look up its cached file, which is true."""
    missed: Measured
    """To look for one that is not there."""
    begun: Measured
    """To look for a scan that was interrupted."""
    owned: Measured
    """What its owner does besides counting and the digest: files listed, opened, described, looked at once more."""
    closed: Measured
    """What rank 0 does when it is counted: checks, the cached file written, the partial file removed. Wall."""
    closed_cpu: Measured
    """The CPU's part of it."""
    closed_alone: Measured
    """The same in a folder that holds little else."""
    written: Measured
    """The cached file alone, in a folder that holds little else, with both of its fsyncs. Wall."""
    unsynced: Measured
    """The same bytes written without an fsync. Wall."""
    described_bytes: float
    """Of a shard's location, piece and answer, as rank 0 shares them with each of the others, pickled."""


@dataclass(frozen=True)
class JobFigures:
    """What a job of two ranks on this machine costs beside its work, over gloo on the loopback."""

    join: Measured
    """Seconds from the start of torchrun to the end of the first collective."""
    shards: int
    """In the round that was measured."""
    meet: Measured
    """Milliseconds of the all_reduce of one number."""
    add: Measured
    """Milliseconds of the all_reduce of a round's counts."""
    gather: Measured
    """Milliseconds to gather the reports of the round's shards."""
    report_bytes: float
    """Of a shard's report and reading, pickled."""
    gradients: Measured
    """Milliseconds of the all_reduce of the network's gradients."""
    objective: Measured
    """Milliseconds of the all_reduce of the objective's sums."""


@dataclass(frozen=True)
class SpeedUp:
    """Seconds on the wall to count one dataset by one process, and by two ranks, with one thread each."""

    cells: int
    shards: int
    one: Measured
    two: Measured
    times: Measured
    """One over two, of the same turn."""


@dataclass(frozen=True)
class TrainingFigures:
    """The update of the default recipe and network, one rank and one thread."""

    batch: int
    parameters: int
    update: Measured
    """Milliseconds of CPU."""
    objective_bytes: int
    """Of the sums that the objective adds up over the ranks."""

    @property
    def gradient_bytes(self) -> int:
        """Of an update, float32."""
        return 4 * self.parameters


@dataclass(frozen=True)
class Figures:
    """All of them."""

    counting: CountingFigures
    shard: ShardFigures
    job: JobFigures
    speed_up: SpeedUp
    training: TrainingFigures
