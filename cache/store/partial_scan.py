"""The partial file: how far a scan came, kept beside the cached weights file so that an interrupted one goes on."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..location import Location
from ..scan import Checkpoint
from ..scan.histogram import MAX_CLASSES
from . import checked_json
from .atomic import remove_stale, write_atomically
from .cache_key import CacheKey, FileState
from .counts_file import places

SCHEMA = "vaefit.partial/1"
SECONDS = 2.0
"""How often a scan is saved; what takes less leaves no partial file."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedScan:
    """Where a scan stood, and of which files."""

    key: CacheKey
    checkpoint: Checkpoint
    ignore_index: int | None

    def serves(self, ignore_index: int | None) -> bool:
        """True where no cell was left out that another ignored label would have made an error."""
        return self.checkpoint.outside == 0 or self.ignore_index == ignore_index


def has_partial_scan(location: Location, cache_dir: str | Path | None) -> bool:
    """True where an earlier scan left anything, of whatever state of the files; nothing is read."""
    for path in _places(location, cache_dir):
        with suppress(OSError):
            if path.exists():
                return True
    return False


class PartialFile:
    """The partial file of one scan: read before it, written during it, removed after it."""

    def __init__(
        self, key: CacheKey, location: Location, cache_dir: str | Path | None, ignore_index: int | None
    ) -> None:
        self._key, self._location, self._ignore_index = key, location, ignore_index
        self._places = _places(location, cache_dir)
        self._latest: Checkpoint | None = None
        self._written: Checkpoint | None = None
        self._saved_at = time.monotonic()

    def resume(self) -> Checkpoint | None:
        """The furthest checkpoint of an earlier scan of the very same files; one of changed files is removed, aloud."""
        found = None
        look = FileState(self._location)
        for path in self._places:
            saved = self._read(path)
            if saved is None or not saved.key.asks(self._location) or not saved.serves(self._ignore_index):
                continue
            if saved.key.sources != self._key.sources or not saved.key.untouched(look):
                _log.warning(f"{path}: the data changed since the scan was interrupted; it starts over")
                _remove(path)
            elif found is None or saved.checkpoint.cells > found.cells:
                found = saved.checkpoint
        return found

    def follow(self, checkpoint: Checkpoint) -> None:
        """Take note of where the scan stands, and save it every few seconds."""
        self._latest = checkpoint
        if time.monotonic() - self._saved_at >= SECONDS:
            self._save()

    def interrupted(self) -> None:
        """Save where the scan stands, if it ran long enough for that to be worth a file."""
        if self._written is not None or time.monotonic() - self._saved_at >= SECONDS:
            self._save()

    def keep(self, checkpoint: Checkpoint) -> None:
        """Save where the scan stands."""
        self._latest = checkpoint
        self._save()

    def remove(self) -> None:
        """Remove it wherever it lies."""
        for path in self._places:
            _remove(path)
            remove_stale(path)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._latest is None or self._latest is self._written:
            return
        # counts of data that changed meanwhile are worth nothing, even if the data is changed back
        if self._key.changed_file(self._location) is not None:
            return
        body = {**self._key.encode(), "checkpoint": asdict(self._latest), "ignore_index": self._ignore_index}
        with suppress(checked_json.RejectedError):
            data = checked_json.add_checksum(SCHEMA, body)
            self._written = self._latest
            for path in self._places:
                # without a place for it the scan is not the worse, only not resumed
                with suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, data, durable=False)
                    return

    def _read(self, path: Path) -> SavedScan | None:
        try:
            body = checked_json.verify_checksum(path, SCHEMA)
            return None if body is None else SavedScan(CacheKey.decode(body), *_decode(body))
        except OSError as error:
            _log.warning(f"{path}: the partial file is ignored: {error.strerror or error}")
        except checked_json.RejectedError as error:
            _log.warning(f"{path}: the partial file is ignored: {error}")
        return None


def _places(location: Location, cache_dir: str | Path | None) -> list[Path]:
    # hidden, so that a pattern for shards of the data never matches it
    return [path.with_name(f".{path.name}") for path in places(location, cache_dir, "vaefit.partial")]


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _decode(body: dict[str, Any]) -> tuple[Checkpoint, int | None]:
    inner, ignore = checked_json.member(body, "checkpoint"), checked_json.member(body, "ignore_index")
    counts = checked_json.items(checked_json.member(inner, "counts"), MAX_CLASSES, MAX_CLASSES)
    checkpoint = Checkpoint(
        route=checked_json.words(checked_json.member(inner, "route")),
        spans=checked_json.whole(checked_json.member(inner, "spans")),
        cells=checked_json.whole(checked_json.member(inner, "cells")),
        counts=tuple(checked_json.whole(count) for count in counts),
        outside=checked_json.whole(checked_json.member(inner, "outside")),
    )
    if sum(checkpoint.counts) + checkpoint.outside != checkpoint.cells:
        raise checked_json.RejectedError("its contents do not fit: the counts are not those of its cells")
    return checkpoint, None if ignore is None else checked_json.whole(ignore, -(2**63), 2**64)
