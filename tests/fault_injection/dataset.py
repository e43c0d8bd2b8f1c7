"""A dataset that takes a while to scan, in two versions of equal size that differ in one chunk."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

CHUNK = (128, 16, 16)
DATASET = "grids"
_KINDS = 16
"""Different chunks; the file repeats them, for deflating as many as there are would take minutes."""


@dataclass
class Slow:
    """The file, and the counts of its two versions."""

    path: Path
    counts: tuple[dict[int, int], dict[int, int]]
    offset: int
    """Where the chunk lies that differs."""
    versions: tuple[bytes, bytes]
    now: int = 0
    """Which version the file is."""

    @classmethod
    def write(cls, path: Path, chunks: int) -> Slow:
        """Write a file of that many chunks of 32,768 cells, deflated but for the first."""
        rng = np.random.default_rng(chunks)
        kinds = [(rng.integers(1, 10, CHUNK) * (rng.random(CHUNK) < 0.1)).astype(np.uint8) for _ in range(_KINDS)]
        packed = [zlib.compress(kind.tobytes(), 1) for kind in kinds]
        firsts = [np.full(CHUNK, label, np.uint8) for label in (3, 7)]
        versions = [zlib.compress(first.tobytes(), 0) for first in firsts]
        with h5py.File(path, "w") as handle:
            shape = (chunks * CHUNK[0], *CHUNK[1:])
            low: Any = handle.create_dataset(DATASET, shape, "u1", chunks=CHUNK, compression="gzip").id
            low.write_direct_chunk((0, 0, 0), versions[0])
            for number in range(1, chunks):
                low.write_direct_chunk((number * CHUNK[0], 0, 0), packed[number % _KINDS])
            offset = int(low.get_chunk_info(0).byte_offset)
        rest = np.zeros(256, np.int64)
        for kind in range(_KINDS):
            times = sum(number % _KINDS == kind for number in range(1, chunks))
            rest += times * np.bincount(kinds[kind].reshape(-1), minlength=256)
        both = [_held(rest + np.bincount(first.reshape(-1), minlength=256)) for first in firsts]
        return cls(path, (both[0], both[1]), offset, (versions[0], versions[1]))

    @property
    def want(self) -> dict[int, int]:
        """The counts of the version that the file is."""
        return self.counts[self.now]

    def edit(self) -> None:
        """Make it the other version in place, and put its times back."""
        before = self.path.stat()
        self.now = 1 - self.now
        handle = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(handle, self.versions[self.now], self.offset)
        finally:
            os.close(handle)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _held(counts: NDArray[np.int64]) -> dict[int, int]:
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
