"""The cached weights file: its name and folder, its contents, reading and writing it.

It holds counts, not weights: those are derived from the counts.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from ..location import Location
from . import checked_json
from .atomic import remove_stale, write_atomically
from .cache_key import CacheKey
from .dataset_info import LabelCounts

SCHEMA = "vaefit.counts/4"
KIND = "vaefit"
LONGEST = 200
"""Most bytes of a name without its prefix and ending: most file systems allow 255 in all."""

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class CachedCounts:
    """Counts, and the state of the files that they were counted on."""

    key: CacheKey
    found: LabelCounts

    def answers(self, location: Location, ignore_index: int | None) -> bool:
        """True where these are the counts of the requested dataset, if no file has changed."""
        return self.key.asks(location) and self.found.serves(ignore_index)


def user_cache_folder() -> Path:
    """Return the user's cache folder for vaefit, which may not exist; `XDG_CACHE_HOME` and the like are honoured."""
    return platformdirs.user_cache_path("vaefit", appauthor=False)


def places(location: Location, cache_dir: str | Path | None, kind: str = KIND) -> Iterator[Path]:
    """Yield the paths of a cached file, in order of use: in `cache_dir`, beside the data, in the user's cache."""
    name, folder = _name(location), _folder(location)
    if cache_dir is not None:
        yield from _chosen(Path(cache_dir), name, folder, kind)
    yield location.absolute.parent / f"{name}.{kind}.json"
    # two datasets of one name in different folders must not share a path
    yield user_cache_folder() / "counts" / folder / f"{name}.{kind}.json"


def _chosen(cache_dir: Path, name: str, folder: str, kind: str) -> Iterator[Path]:
    """Yield the paths in a cache folder; data of one name in different folders never shares a file.

    The first data counted gets `NAME.h5.vaefit.json`; other data gets a name that contains a digest of its folder. It
    reads the first path too: it may be a copy of the first data.
    """
    plain, own = cache_dir / f"{name}.{kind}.json", cache_dir / f"{name}.{folder}.{kind}.json"
    if kind != KIND:
        yield own  # a file for the scan only, which removes it at the end
    elif _exists(own):
        yield from (own, plain)
    else:
        yield plain
        if _exists(plain):
            yield own


def _exists(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False  # the attempt to write gives the error


def _name(location: Location) -> str:
    """Return the start of the cached file's name: the data file's name, and the path of a dataset that was named."""
    tail = "" if location.dataset is None else "/" + location.dataset.replace("%", "%25").replace(".", "%2E")
    name = location.file.name + tail.replace("/", ".")
    whole = os.fsencode(name)
    if len(whole) <= LONGEST:
        return name
    return whole[: LONGEST - 33].decode(errors="ignore") + "%" + hashlib.sha256(whole).hexdigest()[:32]


def _folder(location: Location) -> str:
    """Return 16 hex digits that identify the data's folder, whatever path or link named it."""
    folder = os.path.realpath(location.absolute.parent)
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def belongs_to_other_data(path: Path, location: Location, cache_dir: str | Path | None) -> bool:
    """True where a path holds the counts of another dataset, which must not be replaced."""
    try:
        body = checked_json.verify_checksum(path, SCHEMA)
    except (OSError, checked_json.RejectedError):
        return False
    if body is None:
        return False
    # a file beside the data was moved or copied with it, so it belongs to this folder whatever it says
    chosen = cache_dir is not None and path.parent == Path(cache_dir)
    elsewhere = chosen and body.get("folder") not in (None, _folder(location))
    return elsewhere or body.get("asked_dataset") != location.dataset


def read(path: Path) -> CachedCounts | None:
    """Return the counts in a cached file; None without a file, and, with a warning, for one that is not valid."""
    with checked_json.ignored(path, "cached weights file"):
        body = checked_json.verify_checksum(path, SCHEMA)
        if body is not None:
            return _decode(body)
    return None


def write(entry: CachedCounts, location: Location, cache_dir: str | Path | None, replace_newer: bool) -> Path | None:
    """Write to the first path where that succeeds and return it; None, with a warning, where all fail.

    A warning is logged where the path is not in `cache_dir`. A path with a file of a later version of vaefit is skipped
    unless `replace_newer`, a path with the counts of another dataset always.
    """
    failures: list[tuple[Path, str]] = []
    try:
        body = {**entry.key.encode(), **asdict(entry.found), "folder": _folder(location)}
        data = checked_json.add_checksum(SCHEMA, body)
    except checked_json.RejectedError as error:
        _log.warning(f"the counts could not be cached: {error}")
        return None
    for path in places(location, cache_dir):
        if not replace_newer and checked_json.newer(path, SCHEMA):
            failures.append((path, "a newer version of vaefit wrote it, and only --rebuild replaces it"))
            continue
        if belongs_to_other_data(path, location, cache_dir):
            failures.append((path, "it holds the counts of another dataset"))
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # 10,000 shards would wait minutes for the disk; a file that a power cut tears is counted again
            write_atomically(path, data, durable=False)
        except OSError as error:
            # the system says of a file in place of the folder that it exists
            why = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
            failures.append((path, why or str(error)))
        else:
            remove_stale(path)
            if cache_dir is not None and path.parent != Path(cache_dir):
                # the file is not named, so that many shards give one warning
                reasons = "; ".join(dict.fromkeys(why for _, why in failures))
                _log.warning(f"{cache_dir}: the counts could not be cached in this folder: {reasons}")
            return path
    _log.warning("the counts could not be cached: " + "; ".join(f"{path}: {why}" for path, why in failures))
    return None


def _decode(body: dict[str, Any]) -> CachedCounts:
    return CachedCounts(CacheKey.decode(body), checked_json.convert(body, LabelCounts))
