"""What tells whether files are still the ones that were counted."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

RACY_NS = 2_000_000_000
"""A write this close to the look at the clock may leave equal times behind (coarse file systems: 2 s on FAT)."""

_ABSENT = "absent"


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
    def from_path(cls, path: Path) -> Stamp:
        """Stamp `path` now; OSError where it is missing, or no regular file and so nothing that could be hashed."""
        taken = time.time_ns()
        s = path.stat()
        if not stat.S_ISREG(s.st_mode):
            raise OSError(f"{path} is no regular file")
        return cls(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev, taken)

    @classmethod
    def from_path_or_none(cls, path: Path) -> Stamp | None:
        """Stamp `path` now, None where nothing is there; OSError where that cannot be told."""
        try:
            return cls.from_path(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def same_file(self, other: Stamp) -> bool:
        """True where all that stat says is equal, whenever it was asked."""
        return self.size == other.size and self._identity() == other._identity()

    @property
    def racy(self) -> bool:
        """True where the file was written so shortly before the stamp that a later write may show the same times."""
        # a write moves the time of the change, which nobody can set; on Windows that is the time of creation
        written = self.ctime_ns if os.name == "posix" else max(self.mtime_ns, self.ctime_ns)
        return written > self.taken_ns - RACY_NS

    def _identity(self) -> tuple[int, ...]:
        return (self.mtime_ns, self.ctime_ns, self.inode, self.device)


Stamps = tuple[Stamp | None, ...]
"""One for each file that was looked for, None where there was none: a file that turns up later is a change too."""


def same_files(before: Stamps, after: Stamps) -> bool:
    """True where each file shows what it showed, and none came or went."""
    pairs = zip(before, after, strict=True)
    return all(a.same_file(b) if a and b else a is b for a, b in pairs)


def same_sizes(before: Stamps, after: Stamps) -> bool:
    """True where no file changed its size, came or went: else its bytes need not be compared."""
    return [s and s.size for s in before] == [s and s.size for s in after]


def racy(stamps: Stamps) -> bool:
    """True where equal stamps would not prove that nothing changed."""
    return any(stamp is not None and stamp.racy for stamp in stamps)


def content_digest(paths: Sequence[Path], stop: Event | None = None) -> str:
    """sha256 of the file's bytes, 64 hex digits, as `sha256sum` prints; of several, sha256 of their digests.

    sha256 and not blake2b: processors of the last years have instructions for it, and take half the time. `stop`, set
    in another thread, ends it with an InterruptedError.
    """
    if len(paths) == 1:
        return _file_digest(paths[0], stop)
    lines = [_file_digest(path, stop) if Stamp.from_path_or_none(path) else _ABSENT for path in paths]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file_digest(path: Path, stop: Event | None) -> str:
    digest = hashlib.sha256()
    piece = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(piece):
            if stop is not None and stop.is_set():
                raise InterruptedError("no digest is wanted any more")
            digest.update(piece[:size])
    return digest.hexdigest()
