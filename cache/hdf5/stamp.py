"""Stamps of files, which tell changed files from unchanged ones."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path

RACY_NS = 2_000_000_000
"""A second write within this time of the first may leave equal times (coarse file systems: 2 s on FAT)."""


@dataclass(frozen=True)
class Stamp:
    """The result of `stat` for a file, and when it was taken (ns since the epoch).

    An edit in place with its mtime set back keeps size, mtime and inode; the ctime shows it.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    taken_ns: int

    @classmethod
    def from_path(cls, path: Path) -> Stamp:
        """Stamp `path` now; OSError where it is missing or no regular file, which cannot be hashed."""
        taken = time.time_ns()
        s = path.stat()
        if not stat.S_ISREG(s.st_mode):
            raise OSError(f"{path} is no regular file")
        return cls(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev, taken)

    @classmethod
    def from_path_or_none(cls, path: Path) -> Stamp | None:
        """Stamp `path` now, None where it does not exist; OSError where the system gives no answer."""
        try:
            return cls.from_path(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def same_file(self, other: Stamp) -> bool:
        """True where the results of `stat` are equal, whenever they were taken."""
        return replace(self, taken_ns=other.taken_ns) == other

    @property
    def racy(self) -> bool:
        """True where the last write is so recent that another one may show the same times."""
        # a write moves the ctime, which no program can set; on Windows that is the time of creation
        written = self.ctime_ns if os.name == "posix" else max(self.mtime_ns, self.ctime_ns)
        return written > self.taken_ns - RACY_NS


Stamps = tuple[Stamp | None, ...]
"""Stamps of the files, None for an absent file: a file that appears later is a change too."""


def same_files(before: Stamps, after: Stamps) -> bool:
    """True where each stamp is that of the same, unchanged file, and absent files are absent still."""
    pairs = zip(before, after, strict=True)
    return all(a.same_file(b) if a and b else a is b for a, b in pairs)


def same_sizes(before: Stamps, after: Stamps) -> bool:
    """True where all sizes are equal, and the same files are absent: else no bytes need be compared."""
    return [s and s.size for s in before] == [s and s.size for s in after]


def racy(stamps: Stamps) -> bool:
    """True where equal stamps would not prove that nothing changed."""
    return any(stamp is not None and stamp.racy for stamp in stamps)
