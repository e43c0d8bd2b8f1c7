"""From what one machine takes to what many would: pure arithmetic, one rank a machine.

Assumed, and not measured: threads beyond the second are worth as much as the second; machines are alike and get equal
shares; the storage gives each its bandwidth, whatever the others do; a collective takes as many times longer as its
ring has more steps, and its bytes pass at the network's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaefit.cache.compiled_count import WORTH_BUILDING
from vaefit.cache.rank_scan import COLUMNS
from vaefit.cache.rounds import SHARE

from .figures import Figures, ShardFigures, TrainingFigures

GB = 1e9
MS = 1e-3
SPREAD = 100
LABEL_BYTES = 8
"""Of one number of a round's counts."""


@dataclass(frozen=True)
class Dataset:
    """What is counted: shards of one size, cells of one byte."""

    name: str
    shards: int
    cells: float
    file_bytes: float
    compressed: bool

    @classmethod
    def of_files(cls, size: float, shards: int, figures: Figures) -> Dataset:
        """So many bytes of gzip-4 files."""
        return cls("gzip-4 files", shards, size / figures.counting.gzip_size, size, True)

    @classmethod
    def of_cells(cls, cells: float, shards: int, figures: Figures) -> Dataset:
        """So many cells in gzip-4 files."""
        return cls("cells in gzip-4 files", shards, cells, cells * figures.counting.gzip_size, True)

    @classmethod
    def contiguous(cls, cells: float, shards: int) -> Dataset:
        """So many cells, stored as they are."""
        return cls("cells as they are", shards, cells, cells, False)


@dataclass(frozen=True)
class Cluster:
    """What counts it."""

    machines: int
    threads: int
    """That count, on each machine; the digest has one more."""
    storage: float
    """Bytes a second that each machine reads."""
    network: float
    """Bytes a second that each machine sends, and receives at the same time."""


@dataclass(frozen=True)
class CountEstimate:
    """What a count takes, in bytes and in seconds on the wall."""

    rounds: int
    shards_a_round: float
    counter: str
    """`counter.c`, or `numpy` where a rank has too few cells in a round for one to be built."""
    read_bytes: float
    """Of files, by each machine for its counts; the digest reads as many, from the page cache where they still lie."""
    wire_bytes: float
    """That all machines send."""
    join: float
    looking: float
    """Rank 0 lists the shards and looks for cached files and interrupted scans."""
    counting: float
    reading: float
    """All bytes once."""
    reading_twice: float
    """Where the digest finds nothing in the page cache."""
    digest: float
    """One thread, beside the others."""
    owning: float
    """What owners do for each shard besides."""
    closing: float
    """Rank 0 writes cached files, all in one folder, and the others wait."""
    closing_spread: float
    """The same where the shards lie in folders of `SPREAD`."""
    talking: float
    """Collectives."""
    lost_round: float
    """The most that is counted again after a machine is lost."""
    again: float
    """To start again: join, list, look up what is cached."""

    @property
    def side_by_side(self) -> float:
        """What machines share: the slowest of three things that each does at once, and what owners do."""
        return max(self.counting, self.reading, self.digest) + self.owning

    @property
    def serial(self) -> float:
        """What rank 0 does alone."""
        return self.looking + self.closing

    @property
    def first(self) -> str:
        """What takes longest."""
        parts = {"counting": self.counting, "storage": self.reading, "digest": self.digest, "rank 0": self.serial}
        return max(parts, key=lambda name: parts[name])

    @property
    def total(self) -> float:
        """All of it."""
        return self.join + self.serial + self.side_by_side + self.talking

    def turning_point(self, machines: int) -> float:
        """From how many machines on rank 0's part is the larger, where the storage grows with them."""
        return self.side_by_side * machines / self.serial


def estimate_count(figures: Figures, data: Dataset, cluster: Cluster) -> CountEstimate:
    """Of the first count, with nothing cached; all shards lie in one folder."""
    counting, shard, job = figures.counting, figures.shard, figures.job
    size, own = cluster.machines, data.cells / cluster.machines
    rounds = max(1, -int(-own // SHARE))
    a_round = data.shards / rounds
    built = min(own, SHARE) >= WORTH_BUILDING * cluster.threads
    by_numpy, by_counter = (
        (counting.gzip_numpy, counting.gzip) if data.compressed else (counting.contiguous_numpy, counting.contiguous)
    )
    cost = (by_counter if built else by_numpy).median
    read = data.file_bytes / size
    counts = a_round * COLUMNS * LABEL_BYTES
    described = data.shards * shard.described_bytes * (size - 1)
    wire = rounds * 2 * (size - 1) * counts + data.shards * job.report_bytes + described
    talk = (
        2 * job.meet.median * MS * (size - 1)
        + ring_seconds(counts, size, cluster.network)
        + job.gather.median * MS * a_round / job.shards
    )
    seconds = {
        "counting": own / GB * cost / threads_worth(counting.two_threads, cluster.threads),
        "reading": read / cluster.storage,
        "digest": read / GB * counting.digest.median,
    }
    listing = data.shards * shard.listed.median * MS
    return CountEstimate(
        rounds=rounds,
        shards_a_round=a_round,
        counter="counter.c" if built else "numpy",
        read_bytes=read,
        wire_bytes=wire,
        join=job.join.median,
        looking=listing + data.shards * MS * (shard.missed.median + shard.begun.median),
        **seconds,
        reading_twice=2 * seconds["reading"],
        owning=data.shards / size * shard.owned.median * MS,
        closing=data.shards * closing(shard, data.shards) * MS,
        closing_spread=data.shards * closing(shard, min(SPREAD, data.shards)) * MS,
        talking=rounds * talk + described / cluster.network,
        lost_round=max(seconds.values()) * min(1.0, SHARE / own),
        again=job.join.median + listing + data.shards * shard.hit.median * MS,
    )


def threads_worth(two: float, threads: int) -> float:
    """How many threads of one process are worth, where two are worth `two` and pairs add up."""
    return 1.0 if threads == 1 else two * threads / 2


def closing(shard: ShardFigures, shards: int) -> float:
    """Milliseconds to close a shard in a folder of so many, of which half are cached so far, in the mean.

    What it adds to that of an empty folder grows with the files in it: each is looked at.
    """
    alone = shard.closed_alone.median
    return alone + (shard.closed.median - alone) * 1.5 * shards / shard.entries


def ring_seconds(size: float, machines: int, network: float) -> float:
    """To add up so many bytes on a ring: each machine sends, and receives, 2 (N - 1) / N of them."""
    return 2 * (machines - 1) / machines * size / network


@dataclass(frozen=True)
class TrainEstimate:
    """What the ranks of a training exchange at an update."""

    gradient_bytes: int
    sent_bytes: float
    """By each rank: gradients and the objective's sums."""
    exchange: float
    """Seconds, if the bandwidth were all."""
    latency: float
    """Seconds that the steps of two rings of small messages take."""
    rows: float
    """Rows of a rank whose update takes as long as the bytes and the steps together, on one thread of this CPU."""


def estimate_training(figures: Figures, ranks: int, network: float) -> TrainEstimate:
    """Of the default network; nothing is hidden behind the backward pass."""
    training = figures.training
    moved = training.gradient_bytes + training.objective_bytes
    exchange = ring_seconds(moved, ranks, network)
    latency = 2 * figures.job.meet.median * MS * (ranks - 1)
    return TrainEstimate(
        gradient_bytes=training.gradient_bytes,
        sent_bytes=exchange * network,
        exchange=exchange,
        latency=latency,
        rows=(exchange + latency) / row_seconds(training),
    )


def row_seconds(training: TrainingFigures) -> float:
    """Of CPU, a row of an update."""
    return training.update.median * MS / training.batch
