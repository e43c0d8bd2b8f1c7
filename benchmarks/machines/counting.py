"""CPU time of counting and of the digest, measured in worker processes, of which one has no libdeflate."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaefit.cache.fingerprint import content_digest
from vaefit.vae.errors import RunError

from ..counting.layouts import BY_NAME, LABELS, make_cells
from ..counting.race import FAST_MODULE
from ..counting.worker import Request, Worker
from .figures import CountingFigures, Measured

GB = 1e9


@dataclass(frozen=True)
class _Way:
    """A figure, and how it is taken."""

    figure: str
    file: Path
    counter: str
    worker: Worker


def write_gzip(grids: int, file: Path) -> None:
    """So many grids as one shard, gzip-4 in chunks (4096,16,16)."""
    BY_NAME["gzip"].write(make_cells(grids), file)


def measure_counting(gzip: Path, grids: int, rounds: int, seconds: float, histogram: Path) -> CountingFigures:
    """Count the file that `write_gzip` wrote, and the same cells as they are, in turns of `seconds` at least.

    `histogram` is the result of `vaefit-cli bench histogram` that tells what a second thread is worth. RunError where a
    count differs from numpy's of the cells.
    """
    cells = make_cells(grids)
    right = np.bincount(cells.reshape(-1), minlength=LABELS).tolist()
    plain = gzip.with_name("contiguous.h5")
    BY_NAME["contiguous"].write(cells, plain)
    with ExitStack() as stack:
        fast, slow = stack.enter_context(Worker()), stack.enter_context(Worker((FAST_MODULE,)))
        ways = (
            _Way("gzip", gzip, "ours_compiled", fast),
            _Way("gzip_numpy", gzip, "ours", fast),
            _Way("gzip_zlib", gzip, "ours_compiled", slow),
            _Way("contiguous", plain, "ours_compiled", fast),
            _Way("contiguous_numpy", plain, "ours", fast),
        )
        taken: dict[str, list[float]] = {way.figure: [] for way in ways}
        digests: list[float] = []
        for _ in range(rounds):
            for way in ways:
                answer = way.worker.ask(Request(way.counter, str(way.file), least_seconds=seconds))
                if answer.counts != right:
                    raise RunError("a count differs from numpy's of the same cells", str(way.file), way.figure)
                taken[way.figure].append(answer.cpu / (answer.bytes / GB))
            start = time.process_time()
            content_digest([plain])
            digests.append((time.process_time() - start) / (plain.stat().st_size / GB))
    plain.unlink()
    return CountingFigures(
        **{figure: Measured.of(samples) for figure, samples in taken.items()},
        digest=Measured.of(digests),
        gzip_size=gzip.stat().st_size / cells.nbytes,
        two_threads=worth_of_two(histogram),
    )


def worth_of_two(histogram: Path) -> float:
    """How many times faster two threads count the layout `gzip` than one, of an earlier result."""
    rows = json.loads(histogram.read_text())["rows"]
    wall = {row["contestant"]: float(row["wall_s"]) for row in rows if row["layout"] == "gzip"}
    return wall["vaefit"] / wall["vaefit, 2 threads"]
