"""Row of the result: a layout and an implementation."""

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
    """Upper quartile; `low` is the lower one."""
    least: float

    @classmethod
    def from_values(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of one or more samples."""
        if len(seconds) == 1:
            return cls(*4 * tuple(seconds))
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high, min(seconds))


@dataclass(frozen=True)
class CountRow:
    """Times and memory of an implementation on a layout; without times if a count of the layout was wrong."""

    layout: str
    title: str
    implementation: str
    parity: bool
    """True if it counts what numpy counts, or decodes every byte."""
    bytes: int
    """Bytes of all cells in memory; the speed refers to them."""
    measured_bytes: int
    """Bytes that were counted; the times are for all bytes."""
    cpu: Spread | None
    """CPU time of the process, all threads."""
    wall: Spread | None
    ratio: float | None
    """CPU time of the naive loop over that of this row; None for the naive loop itself."""
    decode_share: float | None
    """CPU time of decoding alone, by the same library, over that of the row."""
    extra_bytes: int | None
    """Peak memory of a fresh process, above its memory after the imports; None if not measured."""
    way: str
    """Route of our scan."""

    @property
    def speed(self) -> float | None:
        """Bytes of cells per CPU second."""
        return None if self.cpu is None else self.bytes / self.cpu.median

    def json(self) -> dict[str, Any]:
        """Return the row as JSON; missing times are null."""
        return {
            "layout": self.layout, "title": self.title, "implementation": self.implementation, "parity": self.parity,
            "bytes": self.bytes, "measured_bytes": self.measured_bytes,
            "cpu_s": self.cpu and self.cpu.median, "wall_s": self.wall and self.wall.median,
            "gb_s": None if self.speed is None else self.speed / 1e9, "ratio": self.ratio,
            "decode_share": self.decode_share, "extra_bytes": self.extra_bytes, "way": self.way,
            "cpu": self.cpu and asdict(self.cpu), "wall": self.wall and asdict(self.wall),
        }  # fmt: skip
