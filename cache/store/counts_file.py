"""The cached weights file: where it lies, what it holds, and when it is believed."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from ..location import Location
from ..scan.histogram import MAX_CLASSES
from ..schemes import DEFAULT_SCHEME, derive_weights
from . import checked_json
from .atomic import remove_stale, write_atomically
from .cache_key import CacheKey
from .dataset_info import LabelCounts

SCHEMA = "vaefit.counts/2"
KIND = "vaefit"
LONGEST = 200
"""Bytes of a name, so that with what is put before and after it a file system takes it: most take 255."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedCounts:
    """Counts, and what they were counted on."""

    key: CacheKey
    found: LabelCounts

    def answers(self, location: Location, ignore_index: int | None) -> bool:
        """True where the question is the one that was counted; says nothing about whether a file changed."""
        return self.key.asks(location) and self.found.serves(ignore_index)

    def rekeyed(self, key: CacheKey) -> CachedCounts:
        """The same counts, found true of the files as they are now."""
        return replace(self, key=key)


def user_cache_folder() -> Path:
    """The user's cache folder for vaefit (`XDG_CACHE_HOME` and its kin are honoured); not made here."""
    return platformdirs.user_cache_path("vaefit", appauthor=False)


def places(location: Location, cache_dir: str | Path | None, kind: str = KIND) -> Iterator[Path]:
    """Where a cached file is looked for and written, in this order: `cache_dir`, beside the data, the user's cache."""
    name, folder = _name(location), _folder(location)
    if cache_dir is not None:
        yield from _chosen(Path(cache_dir), name, folder, kind)
    yield location.absolute.parent / f"{name}.{kind}.json"
    # two data sets of one name in different folders must not share a place
    yield user_cache_folder() / "counts" / folder / f"{name}.{kind}.json"


def _chosen(cache_dir: Path, name: str, folder: str, kind: str) -> Iterator[Path]:
    """Where data of any folder may have its files; data of one name in several never shares a file.

    `NAME.h5.vaefit.json` is for whoever comes first; the others have the folder of their data in the name. They look
    there as well, for their data may be a copy of the first's.
    """
    plain, own = cache_dir / f"{name}.{kind}.json", cache_dir / f"{name}.{folder}.{kind}.json"
    if kind != KIND:
        yield own  # people need not find it, and a scan removes it when it ends
    elif _exists(own):
        yield from (own, plain)
    else:
        yield plain
        if _exists(plain):
            yield own


def _exists(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False  # writing to it says what is wrong


def _name(location: Location) -> str:
    """What the cached file's name begins with: that of the data file, and the dataset's path, where it was named."""
    tail = "" if location.dataset is None else "/" + location.dataset.replace("%", "%25").replace(".", "%2E")
    name = location.file.name + tail.replace("/", ".")
    whole = os.fsencode(name)
    if len(whole) <= LONGEST:
        return name
    return whole[: LONGEST - 33].decode(errors="ignore") + "%" + hashlib.sha256(whole).hexdigest()[:32]


def _folder(location: Location) -> str:
    """The folder in which the data lies, by whatever path or link it was named: 16 hex digits."""
    folder = os.path.realpath(location.absolute.parent)
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def belongs_to_other_data(path: Path, location: Location, cache_dir: str | Path | None) -> bool:
    """True where the counts of another dataset lie, which those of this one must not replace."""
    try:
        body = checked_json.verify_checksum(path, SCHEMA)
    except (OSError, checked_json.RejectedError):
        return False
    if body is None:
        return False
    # what lies beside the data was moved or copied with it, and is of this folder whatever it says
    chosen = cache_dir is not None and path.parent == Path(cache_dir)
    elsewhere = chosen and body.get("folder") not in (None, _folder(location))
    return elsewhere or body.get("asked_dataset") != location.dataset


def read(path: Path) -> CachedCounts | None:
    """The counts in a cached file; None where there is none, or where it is torn or foreign, which is logged."""
    try:
        body = checked_json.verify_checksum(path, SCHEMA)
        return None if body is None else CachedCounts(CacheKey.decode(body), _decode(body))
    except OSError as error:
        _log.warning(f"{path}: the cached weights file is ignored: {error.strerror or error}")
    except checked_json.RejectedError as error:
        _log.warning(f"{path}: the cached weights file is ignored: {error}")
    return None


def write(entry: CachedCounts, location: Location, cache_dir: str | Path | None, replace_newer: bool) -> Path | None:
    """Write to the first place that takes it and return that; None, logged, where none does.

    That it is not the folder that was asked for is logged as well. A file of a later version of vaefit is passed over
    unless `replace_newer`, one of another dataset always.
    """
    failures: list[tuple[Path, str]] = []
    try:
        data = checked_json.add_checksum(
            SCHEMA, {**entry.key.encode(), **_encode(entry.found), "folder": _folder(location)}
        )
    except checked_json.RejectedError as error:
        _log.warning(f"the counts could not be cached: {error}")
        return None
    for path in places(location, cache_dir):
        if not replace_newer and checked_json.newer(path, SCHEMA):
            failures.append((path, "a newer version of vaefit wrote it, and only --rebuild replaces it"))
            continue
        if belongs_to_other_data(path, location, cache_dir):
            failures.append((path, "the counts of another dataset lie there"))
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            # a file where the folder should be is said to exist
            why = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
            failures.append((path, why or str(error)))
        else:
            remove_stale(path)
            if cache_dir is not None and path.parent != Path(cache_dir):
                # no word of the file, so that many shards are one warning
                reasons = "; ".join(dict.fromkeys(why for _, why in failures))
                _log.warning(f"{cache_dir}: the counts could not be cached in this folder, as was asked: {reasons}")
            return path
    _log.warning("the counts could not be cached: " + "; ".join(f"{path}: {why}" for path, why in failures))
    return None


def _encode(found: LabelCounts) -> dict[str, Any]:
    body = asdict(found)
    # for people who open the file; a reader derives its own from the counts
    counts = np.zeros(max(len(found.labels), found.declared_classes or 0), dtype=np.int64)
    counts[: len(found.labels)] = found.labels
    weights = derive_weights(counts).tolist() if counts.any() else []
    body["weights"] = {"scheme": DEFAULT_SCHEME, "values": weights}
    return body


def _decode(body: dict[str, Any]) -> LabelCounts:
    n, height, width = (
        checked_json.whole(side, 1) for side in checked_json.items(checked_json.member(body, "shape"), 3, 3)
    )
    labels = tuple(
        checked_json.whole(count) for count in checked_json.items(checked_json.member(body, "labels"), most=MAX_CLASSES)
    )
    outside, label = (
        checked_json.whole(checked_json.member(body, "outside")),
        checked_json.member(body, "outside_label"),
    )
    if label is not None and 0 <= checked_json.whole(label, -(2**63), 2**64) < MAX_CLASSES:
        raise checked_json.RejectedError("its contents do not fit: the ignored label is a class")
    if sum(labels) + outside != math.prod((n, height, width)) or (label is None) != (outside == 0):
        raise checked_json.RejectedError("its contents do not fit: the counts are not those of all cells")
    chunks, declared = (checked_json.member(body, name) for name in ("chunks", "declared_classes"))
    return LabelCounts(
        dataset=checked_json.words(checked_json.member(body, "dataset")),
        shape=(n, height, width),
        dtype=checked_json.words(checked_json.member(body, "dtype")),
        chunks=None
        if chunks is None
        else tuple(checked_json.whole(side, 1) for side in checked_json.items(chunks, 3, 3)),
        filters=tuple(
            checked_json.words(name) for name in checked_json.items(checked_json.member(body, "filters"), most=64)
        ),
        declared_classes=None if declared is None else checked_json.whole(declared, 1, MAX_CLASSES),
        labels=labels,
        outside=outside,
        outside_label=label,
    )
