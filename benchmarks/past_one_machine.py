"""What a count of 10 TB on 64 machines would take, on paper, from what this machine takes for each part of it.

    python -m vaefit.benchmarks.past_one_machine                 measure, then estimate
    python -m vaefit.benchmarks.past_one_machine --json FILE     and keep both

Measured: counting and the digest, CPU time; what each shard costs on rank 0 and on its owner; what a job of two ranks
costs beside its work, and how much faster it counts than one process; an update of training. All files are written to
a temporary folder, and read from the page cache. The estimate is arithmetic: no second machine has been used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vaefit.cache.compiled_count import build_counter
from vaefit.cache.scan.inflate import choose_inflate
from vaefit.vae.machine import cpu_name

from .machines.counting import measure_counting, write_gzip
from .machines.estimate import (
    GB,
    Cluster,
    CountEstimate,
    Dataset,
    TrainEstimate,
    closing,
    estimate_count,
    estimate_training,
)
from .machines.figures import Figures, Measured
from .machines.job import measure_job, measure_speed_up
from .machines.shards import NAME, measure_shards
from .machines.training import measure_training

MACHINES = 64
THREADS = 4
SHARDS = 10_000
SIZE = 10e12
STORAGE = (0.2e9, 1e9, 3e9)
"""Bytes a second for each machine."""
SHARED = 100e9
"""Bytes a second for all of them."""
NETWORKS = (1.25e9, 12.5e9)
"""Bytes a second: 10 and 100 Gbit/s."""
GRIDS = 1 << 20
"""Of the shard that is counted: 268 MB of cells."""
COPIES = 16
MEASURED_SHARDS = 40
BATCH = 128
HISTOGRAM = Path(__file__).parent / "results" / "histogram-cpu.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and estimates to FILE")
    parser.add_argument(
        "--histogram", type=Path, default=HISTOGRAM, help="result of `bench histogram` that tells what 2 threads gain"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    figures = measure(arguments.histogram, lambda what: print(f"{what} ...", file=sys.stderr))
    counts, training = estimates(figures)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result(figures, counts, training, load)) + "\n")
    console = Console(width=140)
    console.print(_measured(figures))
    for table in _estimated(figures, counts, training):
        console.print(table)
    return 0


def measure(histogram: Path, begins: Callable[[str], None]) -> Figures:
    """All figures of this machine, which should have nothing else to do; `begins` is told what is measured next."""
    with tempfile.TemporaryDirectory(prefix="vaefit-bench-") as place:
        folder = Path(place)
        begins("an update of training")
        training = measure_training(BATCH, rounds=3, steps=12)
        begins("the grids")
        gzip = folder / "gzip.h5"
        write_gzip(GRIDS, gzip)
        begins("counting")
        counting = measure_counting(gzip, GRIDS, 5, 0.3, histogram)
        begins("what each shard costs")
        shard = measure_shards(folder, MEASURED_SHARDS, SHARDS * 3 // 2, rounds=3)
        begins("collectives of two ranks")
        one = folder / "few" / NAME.format(0)
        job = measure_job(folder, one, training.parameters, training.objective_bytes, rounds=3, repeats=30)
        begins("counting by one process and by two ranks")
        return Figures(counting, shard, job, measure_speed_up(gzip, COPIES, folder / "parts", rounds=3), training)


Counts = list[tuple[Dataset, Cluster, CountEstimate]]
Trainings = list[tuple[float, TrainEstimate]]


def estimates(figures: Figures) -> tuple[Counts, Trainings]:
    """Of each dataset on each storage, and of training on each network."""
    datasets = (
        Dataset.of_files(SIZE, SHARDS, figures),
        Dataset.of_cells(SIZE, SHARDS, figures),
        Dataset.contiguous(SIZE, SHARDS),
    )
    clusters = [Cluster(MACHINES, THREADS, storage, NETWORKS[0]) for storage in (*STORAGE, SHARED / MACHINES)]
    counts = [(data, cluster, estimate_count(figures, data, cluster)) for data in datasets for cluster in clusters]
    return counts, [(network, estimate_training(figures, MACHINES, network)) for network in NETWORKS]


def result(figures: Figures, counts: Counts, training: Trainings, load: float) -> dict[str, Any]:
    """Everything, with the machine and the versions, as JSON."""
    names = ("torch", "numpy", "h5py")
    return {
        "machine": {"cpu": cpu_name(), "cpus": os.cpu_count(), "system": platform.system(), "load_before": load},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "inflate": choose_inflate()[1],
        "counter": build_counter().told,
        "torch_threads": torch.get_num_threads(),
        "figures": asdict(figures),
        "counts": [
            {
                "data": asdict(data),
                "cluster": asdict(cluster),
                **asdict(found),
                "side_by_side": found.side_by_side,
                "serial": found.serial,
                "first": found.first,
                "total": found.total,
                "turning_point": found.turning_point(cluster.machines),
            }
            for data, cluster, found in counts
        ],
        "training": [{"network": network, **asdict(found)} for network, found in training],
    }


def _measured(figures: Figures) -> Table:
    counting, shard, job, speed, training = (
        figures.counting, figures.shard, figures.job, figures.speed_up, figures.training,
    )  # fmt: skip
    table = Table("measured", "median", "low", "high", title=f"{cpu_name()}, {choose_inflate()[1]}")
    rows: list[tuple[str, Measured]] = [
        ("gzip-4, counter.c: CPU s a GB of cells", counting.gzip),
        ("gzip-4, numpy", counting.gzip_numpy),
        ("gzip-4 by zlib, counter.c", counting.gzip_zlib),
        ("contiguous, counter.c", counting.contiguous),
        ("contiguous, numpy", counting.contiguous_numpy),
        ("sha256: CPU s a GB of file", counting.digest),
        ("a shard listed: CPU ms", shard.listed),
        ("looked up, cached", shard.hit),
        ("looked up, not cached", shard.missed),
        ("asked for an interrupted scan", shard.begun),
        ("its owner's part", shard.owned),
        (f"closed, among {shard.entries:,} files: wall ms", shard.closed),
        ("of which CPU ms", shard.closed_cpu),
        ("closed, among few: wall ms", shard.closed_alone),
        ("of which the cached file", shard.written),
        ("its bytes without fsync", shard.unsynced),
        ("torchrun to first collective, 2 ranks: s", job.join),
        ("all_reduce of one number: ms", job.meet),
        (f"of the counts of {job.shards} shards", job.add),
        (f"gather of {job.shards} reports", job.gather),
        ("all_reduce of the gradients", job.gradients),
        ("of the objective's sums", job.objective),
        (f"{speed.cells / GB:.1f} GB in {speed.shards} shards by one process: s", speed.one),
        ("by two ranks", speed.two),
        ("times faster", speed.times),
        (f"update of {training.batch} grids: CPU ms", training.update),
    ]
    for name, value in rows:
        table.add_row(name, *(f"{number:.3g}" for number in (value.median, value.low, value.high)))
    table.add_row("bytes of gzip-4 file a byte of cells", f"{counting.gzip_size:.4f}")
    table.add_row("two threads over one, on the wall", f"{counting.two_threads:.2f}")
    table.add_row("bytes of a report; of a shard as shared", f"{job.report_bytes:.0f}; {shard.described_bytes:.0f}")
    return table


def _estimated(figures: Figures, counts: Counts, training: Trainings) -> list[Table]:
    where = f"{MACHINES} machines, {THREADS} threads, {SHARDS:,} shards"
    work = Table(title=f"{where}: what does not hang on the storage, in seconds")
    for column in (
        "data", "TB of cells", "GB read by each", "GB on the wire", "rounds", "counter", "count", "digest",
        "owners", "look up", "close", "close, spread", "talk", "start again",
    ):  # fmt: skip
        work.add_column(column, justify="right")
    for data, _, found in counts[:: len(counts) // 3]:
        sizes = (data.cells / 1e12, found.read_bytes / GB, found.wire_bytes / GB)
        seconds = (found.counting, found.digest, found.owning, found.looking, found.closing, found.closing_spread)
        work.add_row(
            data.name,
            *(f"{size:.1f}" for size in sizes),
            str(found.rounds),
            found.counter,
            *(f"{one:.1f}" for one in (*seconds, found.talking, found.again)),
        )
    work.caption = f"to close a shard among {SHARDS:,}, in the mean: {closing(figures.shard, SHARDS):.1f} ms"
    whole = Table(title=f"{where}: by storage, in seconds")
    for column in ("data", "GB/s a machine", "read", "read twice", "a lost round", "all", "first", "rank 0 from"):
        whole.add_column(column, justify="right")
    for data, cluster, found in counts:
        seconds_here = (found.reading, found.reading_twice, found.lost_round, found.total)
        whole.add_row(
            data.name,
            f"{cluster.storage / GB:.2f}",
            *(f"{one:.1f}" for one in seconds_here),
            found.first,
            f"{found.turning_point(cluster.machines):.0f} machines",
        )
    other = Table(title=f"an update on {MACHINES} ranks")
    for column in (
        "Gbit/s",
        "MB of gradients",
        "MB sent",
        "ms by bandwidth",
        "ms of latency",
        "rows that take as long",
    ):
        other.add_column(column, justify="right")
    for network, one in training:
        numbers = (one.sent_bytes / 1e6, 1e3 * one.exchange, 1e3 * one.latency, one.rows)
        other.add_row(
            f"{8 * network / GB:.0f}", f"{one.gradient_bytes / 1e6:.2f}", *(f"{number:.2f}" for number in numbers)
        )
    return [work, whole, other]


if __name__ == "__main__":
    sys.exit(main())
