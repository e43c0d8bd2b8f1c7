"""The partial file: a checkpoint of a scan, beside the cached weights file, from which an interrupted scan resumes."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..location import Location
from ..scan import Checkpoint
from . import checked_json
from .atomic import remove_stale, write_atomically
from .cache_key import CacheKey, FileState
from .counts_file import places
from .dataset_info import check_label

SCHEMA = "vaefit.partial/2"
SECONDS = 2.0
"""Time between checkpoints; a shorter scan leaves no partial file."""

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class SavedScan:
    """The checkpoint of a scan in a file; the cache key of the files that it read stands beside it."""

    checkpoint: Checkpoint
    ignore_index: int | None

    def __post_init__(self) -> None:
        if self.ignore_index is not None:
            check_label(self.ignore_index)

    def serves(self, ignore_index: int | None) -> bool:
        """True where the counts hold for this ignored label too: no cell was excluded for another one."""
        return self.checkpoint.outside == 0 or self.ignore_index == ignore_index


class PartialFile:
    """The partial file of one scan: read before the scan, written during it, removed after it."""

    def __init__(
        self, key: CacheKey, location: Location, cache_dir: str | Path | None, ignore_index: int | None
    ) -> None:
        self._key, self._location, self._ignore_index = key, location, ignore_index
        self._places = _places(location, cache_dir)
        self._latest: Checkpoint | None = None
        self._written: Checkpoint | None = None
        self._saved_at = time.monotonic()

    def resume(self) -> Checkpoint | None:
        """Return the furthest checkpoint of an earlier scan of the same, unchanged files.

        A checkpoint whose files changed is deleted with a warning.
        """
        found = None
        look = FileState(self._location)
        for path in self._places:
            found_here = _read(path)
            if found_here is None:
                continue
            key, saved = found_here
            if not key.asks(self._location) or not saved.serves(self._ignore_index):
                continue
            if key.sources != self._key.sources or not key.untouched(look):
                _log.warning(f"{path}: the data changed since the scan was interrupted; it starts over")
                _remove(path)
            elif found is None or saved.checkpoint.cells > found.cells:
                found = saved.checkpoint
        return found

    def follow(self, checkpoint: Checkpoint) -> None:
        """Note the latest checkpoint, and save it every few seconds."""
        self._latest = checkpoint
        if time.monotonic() - self._saved_at >= SECONDS:
            self._save()

    def interrupted(self) -> None:
        """Save the latest checkpoint, if the scan ran long enough to be worth a file."""
        if self._written is not None or time.monotonic() - self._saved_at >= SECONDS:
            self._save()

    def remove(self) -> None:
        """Delete the partial file from every path."""
        for path in self._places:
            _remove(path)
            remove_stale(path)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._latest is None or self._latest is self._written:
            return
        # counts of data that changed meanwhile are useless, even if the data is changed back
        if self._key.changed_file(self._location) is not None:
            return
        body = {**self._key.encode(), "checkpoint": asdict(self._latest), "ignore_index": self._ignore_index}
        with suppress(checked_json.RejectedError):
            data = checked_json.add_checksum(SCHEMA, body)
            self._written = self._latest
            for path in self._places:
                # a scan that cannot be saved still gives its counts; it cannot be resumed
                with suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, data, durable=False)
                    return


def _read(path: Path) -> tuple[CacheKey, SavedScan] | None:
    with checked_json.ignored(path, "partial file"):
        body = checked_json.verify_checksum(path, SCHEMA)
        if body is not None:
            return CacheKey.decode(body), checked_json.convert(body, SavedScan)
    return None


def _places(location: Location, cache_dir: str | Path | None) -> list[Path]:
    # a hidden file: patterns for shards never match it
    return [path.with_name(f".{path.name}") for path in places(location, cache_dir, "vaefit.partial")]


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
