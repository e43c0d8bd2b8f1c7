"""What tells whether a file is still the one that was counted."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

RACY_NS = 2_000_000_000
"""A write this close to the look at the clock may leave equal times behind (coarse file systems: 2 s on FAT)."""


@dataclass(frozen=True)
class Stamp:
    """What stat says of a file, and when it was asked (ns since the epoch).

    An edit in place with its mtime put back keeps size, mtime and inode; the ctime still shows it.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    taken_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Stamp `path` now; OSError where it is missing."""
        taken = time.time_ns()
        s = path.stat()
        return cls(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev, taken)

    def same_file(self, other: Stamp) -> bool:
        """True where all that stat says is equal, whenever it was asked."""
        return self.size == other.size and self._identity() == other._identity()

    @property
    def racy(self) -> bool:
        """True where the file was written so shortly before the stamp that a later write may show the same times."""
        return max(self.mtime_ns, self.ctime_ns) > self.taken_ns - RACY_NS

    def _identity(self) -> tuple[int, ...]:
        return (self.mtime_ns, self.ctime_ns, self.inode, self.device)


def content_digest(path: Path) -> str:
    """blake2b of the file's bytes, 64 hex digits; read in pieces of 1 MiB."""
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
