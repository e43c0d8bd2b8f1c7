"""Detect changes of a dataset's files while it is counted, and compute their digest meanwhile."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ..hdf5.open_files import flush_mappings, release_shared_file
from ..hdf5.stamp import racy
from ..location import Location
from .cache_key import CacheKey
from .dataset_info import Description
from .fingerprint import content_digest
from .sources import list_sources

WORTH_A_THREAD = 1 << 20
"""Bytes of the files from which on their digest is computed during the scan."""


class ChangedError(Exception):
    """A file changed while it was counted; the text names it."""


@dataclass
class ChangeDetector:
    """The state of the files before the first cell is read, to be compared after the last."""

    location: Location
    key: CacheKey
    """Its content is set where the stamps alone would not show an edit, else empty."""
    holder: Path | None
    """The file that holds the dataset; None where it could not be determined."""
    _early: Future[str] | None = None

    @classmethod
    def start(cls, location: Location, by_bytes: bool = True) -> ChangeDetector:
        """Stamp the files before they are read; UnlistedError and DataError as `list_sources`.

        Without `by_bytes` no digest is computed, now or later, and only the stamps show a change.
        """
        release_shared_file()  # what HDF5 read before the first stamp may have changed since
        sources, stamps, holder = list_sources(location)
        # later than the stamps, before the first cell is read: every later edit moves a time
        flush_mappings(sources.paths(location.file))
        # an edit during the scan may leave the times of a file just written as they are; its bytes show it
        content = _content(sources.paths(location.file)) if by_bytes and racy(stamps) else ""
        return cls(location, CacheKey(location.dataset, sources, stamps, content), holder)

    def digest_beside(self, pool: ThreadPoolExecutor, stop: Event) -> None:
        """Compute the digest during the scan, which has the bytes in memory; of a file just written, only later.

        A small file is not worth a thread: 10,000 shards start none.
        """
        size = sum(stamp.size for stamp in self.key.stamps if stamp is not None)
        if size >= WORTH_A_THREAD and not racy(self.key.stamps):
            self._early = pool.submit(copy_context().run, _content, self._paths, stop)

    def content(self) -> str:
        """Return the digest of the files that were read; empty where they could not be read again."""
        return _content(self._paths) if self._early is None else self._early.result()

    def changed(self, content: str | None = None) -> str | None:
        """Return the file that changed since the start, else None; `content` is the digest, if computed since."""
        changed = self.key.changed_file(self.location)
        if changed is None and content is not None and racy(self.key.stamps) and content != self.key.content:
            return str(self.location)
        return None if changed is None else str(changed)

    def require_unchanged(self, content: str | None = None) -> None:
        """Raise ChangedError for a file that changed since the start, see `changed`."""
        changed = self.changed(content)
        if changed is not None:
            raise ChangedError(changed)

    def doubt(self, described: Description, content: str) -> str | None:
        """Return why the counts should not be cached; None where they may be."""
        if self.holder is None or described.holder != self.holder.resolve():
            return "the file that holds its cells could not be determined"
        return described.doubt or (None if content else "its bytes could not be read again")

    @property
    def _paths(self) -> list[Path]:
        return self.key.sources.paths(self.location.file)


def _content(paths: list[Path], stop: Event | None = None) -> str:
    """Return the digest of the files; empty where they cannot be read, for which the scan gives the reason."""
    with suppress(OSError):
        return content_digest(paths, stop)
    return ""
