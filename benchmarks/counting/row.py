"""One line of the result of counting: a layout and whoever counts it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Seconds of one count of the whole dataset, over the rounds."""

    median: float
    low: float
    high: float
    """Quartiles."""
    least: float

    @classmethod
    def from_values(cls, seconds: Sequence[float]) -> Spread:
        """Of one or more samples."""
        if len(seconds) == 1:
            return cls(*4 * tuple(seconds))
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high, min(seconds))


@dataclass(frozen=True)
class CountRow:
    """What was found; without times where an answer of the layout was wrong."""

    layout: str
    title: str
    contestant: str
    parity: bool
    """It counts what numpy counts, or decodes as many bytes as there are."""
    bytes: int
    """Of all cells in memory, by which speed is meant."""
    measured_bytes: int
    """How many of them were gone through; times are for all."""
    cpu: Spread | None
    """CPU time of the process, all threads."""
    wall: Spread | None
    ratio: float | None
    """How many times longer naive takes, in CPU time; None where naive is the row."""
    decode_share: float | None
    """CPU time of decoding alone, by the same library, over that of the row."""
    extra_bytes: int | None
    """The most memory that a fresh process held, above what it held with everything imported; None if not measured."""
    way: str
    """How ours was read."""

    @property
    def speed(self) -> float | None:
        """Bytes of cells a CPU second."""
        return None if self.cpu is None else self.bytes / self.cpu.median

    def json(self) -> dict[str, Any]:
        """The row as JSON; times are null where there are none."""
        return {
            "layout": self.layout, "title": self.title, "contestant": self.contestant, "parity": self.parity,
            "bytes": self.bytes, "measured_bytes": self.measured_bytes,
            "cpu_s": self.cpu and self.cpu.median, "wall_s": self.wall and self.wall.median,
            "gb_s": None if self.speed is None else self.speed / 1e9, "ratio": self.ratio,
            "decode_share": self.decode_share, "extra_bytes": self.extra_bytes, "way": self.way,
            "cpu": self.cpu and asdict(self.cpu), "wall": self.wall and asdict(self.wall),
        }  # fmt: skip
