"""Goals of counting, compared with the measured values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .bench import HistogramBench
from .comparison import COMPILED, OURS, READ, TWO_THREADS, ZLIB

LEAST_GRIDS = 1 << 17
"""Fewest grids for the goals of layouts: fewer do not fill the longest chunks."""
TIMES_NAIVE = (
    ("gzip", OURS, 10.0),
    ("gzip", COMPILED, 10.0),
    ("gzip", ZLIB, 2.4),
    ("gzip-columns", OURS, 200.0),
    ("gzip-columns", ZLIB, 60.0),
    ("int64", OURS, 10.0),
    ("contiguous", OURS, 6.0),
    ("contiguous", COMPILED, 6.0),
)
SHARE_OF_READING = 0.5
"""Share of the speed at which h5py reads a contiguous dataset into memory."""
TIMES_ONE_THREAD = 1.4
EXTRA_MEMORY = 32 << 20
UNEVENNESS = 1.3
HIT_MS = 5.0


@dataclass(frozen=True)
class CountJudgement:
    """A goal and the measured value; None if it could not be measured."""

    what: str
    goal: str
    bound: float
    at_most: bool
    measured: float | None

    @property
    def holds(self) -> bool:
        """True if the goal is reached."""
        if self.measured is None:
            return False
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def json(self) -> dict[str, Any]:
        """Return the goal as JSON."""
        return {"what": self.what, "goal": self.goal, "bound": self.bound, "measured": self.measured,
                "holds": self.holds}  # fmt: skip


def judge_counting(bench: HistogramBench) -> list[CountJudgement]:
    """Return the goals of the layouts and sizes that were measured."""
    large = bench.settings.grids_of_each >= LEAST_GRIDS
    return [*(_of_layouts(bench) if large else []), *_of_scaling(bench)]


def _of_layouts(bench: HistogramBench) -> Iterator[CountJudgement]:
    for layout, implementation, bound in TIMES_NAIVE:
        row = bench.row(layout, implementation)
        if row is not None and (bench.fast or implementation is ZLIB or layout == "contiguous"):
            yield _at_least(f"{row.title}: {implementation.name}", "times naive's CPU time", bound, row.ratio)
    counted, read = bench.row("contiguous", OURS), bench.row("contiguous", READ)
    if counted is not None and read is not None:
        share = counted.speed / read.speed if counted.speed and read.speed else None
        yield _at_least(f"{counted.title}: {OURS.name}", "of h5py's reading speed", SHARE_OF_READING, share)
    if bench.cpus > 1 and (row := bench.row("gzip", TWO_THREADS)) is not None:
        yield _at_least(f"{row.title}: 2 threads", "times one on the wall", TIMES_ONE_THREAD, wall_gain(bench, "gzip"))


def _of_scaling(bench: HistogramBench) -> Iterator[CountJudgement]:
    for size in bench.scaling.sizes:
        extra = size.largest_extra
        if extra is None and size.parity:
            continue  # the system reports no memory
        what = f"{size.bytes / 1e9:.1f} GB: memory above the imports"
        measured = None if extra is None else extra / (1 << 20)
        yield CountJudgement(what, f"MiB at most {EXTRA_MEMORY >> 20}", EXTRA_MEMORY >> 20, True, measured)
    sizes = " ".join(f"{size.bytes / 1e9:.1f}" for size in bench.scaling.sizes)
    uneven = bench.scaling.unevenness
    yield CountJudgement(f"CPU time a cell over {sizes} GB", f"largest over smallest at most {UNEVENNESS}",
                         UNEVENNESS, True, uneven)  # fmt: skip
    hit = bench.scaling.hit
    yield CountJudgement(
        "a cache hit, beyond the imports", f"ms below {HIT_MS:.0f}", HIT_MS, True, None if hit is None else hit.wall_ms
    )


def wall_gain(bench: HistogramBench, layout: str) -> float | None:
    """Return how many times faster two threads are than one, by the least wall times: other processes only add time."""
    one, two = bench.row(layout, OURS), bench.row(layout, TWO_THREADS)
    if one is None or two is None or one.wall is None or two.wall is None:
        return None
    return one.wall.least / two.wall.least


def _at_least(what: str, unit: str, bound: float, measured: float | None) -> CountJudgement:
    return CountJudgement(what, f"{unit}, at least {bound:g}", bound, False, measured)
