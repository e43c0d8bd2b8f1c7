"""The files of a dataset while it is counted: how they looked before, their digest, whether they stayed the same."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ..location import Location
from .cache_key import CacheKey
from .dataset_info import Description
from .fingerprint import content_digest, racy
from .sources import list_sources


class ChangedError(Exception):
    """A file changed while it was counted; the text names it."""


@dataclass
class ChangeDetector:
    """What is known of the files before one of their cells is read, and asked again after the last."""

    location: Location
    key: CacheKey
    """The content is there where the stamps alone would not show an edit, else empty."""
    holder: Path | None
    """The file that holds the dataset; None where that could not be told."""
    _early: Future[str] | None = None

    @classmethod
    def start(cls, location: Location, by_bytes: bool = True) -> ChangeDetector:
        """Look at the files before they are read; UnlistedError, DataError as `list_sources`.

        Without `by_bytes` no digest is taken, now or later, and the times alone are to tell.
        """
        sources, stamps, holder = list_sources(location)
        # an edit during the scan may leave the times of a file just written as they are; its bytes tell
        content = _content(sources.paths(location.file)) if by_bytes and racy(stamps) else ""
        return cls(location, CacheKey(location.dataset, sources, stamps, content), holder)

    def digest_beside(self, pool: ThreadPoolExecutor, stop: Event) -> None:
        """Take the digest during the scan, which has the bytes in memory; of a file just written a later look tells."""
        if not racy(self.key.stamps):
            self._early = pool.submit(_content, self._paths, stop)

    def content(self) -> str:
        """The digest of the files that were read; empty where that could not be taken."""
        return _content(self._paths) if self._early is None else self._early.result()

    def changed(self, content: str | None = None) -> str | None:
        """What changed since the first look; None where nothing did. `content` is the digest, if it was taken since."""
        changed = self.key.changed_file(self.location)
        if changed is None and content is not None and racy(self.key.stamps) and content != self.key.content:
            return str(self.location)
        return None if changed is None else str(changed)

    def doubt(self, described: Description, content: str) -> str | None:
        """Why the counts should not be cached; None where they may be."""
        if self.holder is None or described.holder != self.holder.resolve():
            return "the file in which its cells lie could not be told"
        return described.doubt or (None if content else "its bytes could not be read once more")

    @property
    def _paths(self) -> list[Path]:
        return self.key.sources.paths(self.location.file)


def _content(paths: list[Path], stop: Event | None = None) -> str:
    """The digest of the files; empty where they cannot be read, which the scan or the next look explains."""
    with suppress(OSError):
        return content_digest(paths, stop)
    return ""
