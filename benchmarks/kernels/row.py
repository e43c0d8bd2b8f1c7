"""Row of the result: a shape, a dtype and an operation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vaefit.vae.results.json_values import plain

from .inputs import Op, Shape
from .race import Timing


@dataclass(frozen=True)
class Place:
    """Device of all rows, its clock and its copy bandwidth."""

    device: str
    """`cpu` or `cuda`."""
    name: str
    threads: int
    clock: str
    copy: float
    """Bytes a second of a large copy, read and written."""


@dataclass(frozen=True)
class Row:
    """Measurement of one operation; without `ours` where the answer was wrong."""

    shape: Shape
    dtype: str
    op: Op
    backend: str
    parity: bool
    """The answer agrees with the reference in float64."""
    parity_error: float
    """Largest relative error of loss and gradient."""
    bytes: int
    """Bytes that a single pass has to move."""
    logits_bytes: int
    ours: Timing | None
    peers: dict[str, Timing | None]
    """None for a peer whose answer was wrong."""
    place: Place

    @property
    def ratio(self) -> dict[str, float | None]:
        """Return the time of each peer over ours."""
        return {
            name: None if self.ours is None or peer is None else peer.median_us / self.ours.median_us
            for name, peer in self.peers.items()
        }

    @property
    def extra_memory(self) -> float | None:
        """Return the memory held beside the inputs, over the size of the logits."""
        return None if self.ours is None else self.ours.peak_bytes / self.logits_bytes

    def speed(self, timing: Timing | None) -> float | None:
        """Return the bytes of a single pass over the time, in bytes a second."""
        return None if timing is None else 1e6 * self.bytes / timing.median_us

    def share(self, timing: Timing | None) -> float | None:
        """Return the speed over that of a copy; above 1 where the cache holds all."""
        speed = self.speed(timing)
        return None if speed is None else speed / self.place.copy

    def json(self) -> dict[str, Any]:
        """Return the row as JSON; missing times are null."""
        speed, ours = self.speed(self.ours), self.ours
        found: dict[str, Any] = plain({
            "shape": list(self.shape), "dtype": self.dtype, "op": self.op, "backend": self.backend,
            "device": self.place.device, "device_name": self.place.name, "threads": self.place.threads,
            "clock": self.place.clock, "parity": self.parity, "parity_error": self.parity_error, "bytes": self.bytes,
            "median_us": ours and ours.median_us, "low_us": ours and ours.low_us, "high_us": ours and ours.high_us,
            "gb_s": None if speed is None else speed / 1e9, "copy_gb_s": self.place.copy / 1e9,
            "bandwidth_share": self.share(ours), "peak_bytes": ours and ours.peak_bytes,
            "host_us": ours and ours.host_us, "ratio": self.ratio,
            "peers": {name: peer and asdict(peer) for name, peer in self.peers.items()},
        })  # fmt: skip
        return found
