"""One rank of a job that only talks: what a round's collectives take, and those of an update.

`torchrun --nproc-per-node 2 -m vaefit.benchmarks.machines.rank REQUEST` takes one JSON object of what to exchange, and
rank 0 writes what it took into a file.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vaefit.cache.location import Location
from vaefit.cache.rank_scan import COLUMNS, Reading, Report
from vaefit.cache.ranks import Ranks, portion

from .shards import own


@dataclass(frozen=True)
class Exchange:
    """What to exchange."""

    answer: str
    """The file for what it took."""
    started: float
    """When torchrun was, seconds since the epoch."""
    shard: str
    """A shard, of which the reports are."""
    shards: int
    """Of a round."""
    parameters: int
    objective_bytes: int
    repeats: int


@dataclass(frozen=True)
class Exchanged:
    """Seconds to join, and milliseconds of each repeat; bytes of a report and its reading."""

    join: float
    meet: list[float]
    add: list[float]
    gather: list[float]
    gradients: list[float]
    objective: list[float]
    report_bytes: float


def exchange(ranks: Ranks, what: Exchange) -> Exchanged:
    """All ranks call this; what rank 0 finds is the answer."""
    nothing = np.zeros(1, np.int64)
    ranks.add(nothing)
    join = time.time() - what.started
    mine = range(what.shards)[portion(what.shards, ranks.rank, ranks.size)]
    one = own(0, Location(Path(what.shard)))
    # each with objects of its own, as where each is of another file: what is one object is pickled once
    reports: list[Report] = [pickle.loads(pickle.dumps(one)) for _ in mine]
    reading = Reading(0, "chunks/4096", "chunks", "chunks taken as they are stored; counter.c counts", 4)
    readings: list[Reading] = [pickle.loads(pickle.dumps(reading)) for _ in mine]
    part = (readings, reports)
    counts = np.zeros((what.shards, COLUMNS), np.int64)
    gradients, sums = np.zeros(what.parameters, np.float32), np.zeros(what.objective_bytes // 8, np.float64)
    calls: dict[str, Callable[[], object]] = {
        "meet": lambda: ranks.add(nothing),
        "add": lambda: ranks.add(counts),
        "gather": lambda: ranks.gather(part),
        "gradients": lambda: ranks.add(gradients),
        "objective": lambda: ranks.add(sums),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(what.repeats):
        for name, call in calls.items():
            ranks.add(nothing)  # so that no rank waits for another's last call
            start = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return Exchanged(join, **taken, report_bytes=len(pickle.dumps(part)) / len(mine))


def main() -> None:
    """Join, exchange, and let rank 0 write."""
    from vaefit.vae.distributed.job import joined
    from vaefit.vae.launch import Launch

    what = Exchange(**json.loads(sys.argv[1]))
    launch = Launch.of_environment()
    assert launch is not None  # torchrun started it
    with joined(launch) as job:
        found = exchange(job, what)
        if job.rank == 0:
            Path(what.answer).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
