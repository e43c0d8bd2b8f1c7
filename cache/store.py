"""The cached weights file: where it lies, what it holds, and when it is believed."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from . import sealed
from .atomic import remove_stale, write_atomically
from .histogram import MAX_CLASSES
from .key import Key
from .location import Location
from .weights import DEFAULT_SCHEME, derive_weights

SCHEMA = "vaefit.counts/2"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelCounts:
    """Counts of every label of one dataset, and how the dataset was stored."""

    dataset: str
    shape: tuple[int, int, int]
    dtype: str
    chunks: tuple[int, ...] | None
    filters: tuple[str, ...]
    fill_value: int | None
    declared_classes: int | None
    labels: tuple[int, ...]
    """Counts of the labels 0, 1, ... up to the largest that occurs."""
    outside: int = 0
    """Cells with the ignored label, where that lies outside 0..255."""
    outside_label: int | None = None

    def serves(self, ignore_index: int | None) -> bool:
        """True where no cell was left out that another ignored label would have made an error."""
        return self.outside_label is None or self.outside_label == ignore_index


@dataclass(frozen=True)
class CachedCounts:
    """Counts, and what they were counted on."""

    key: Key
    found: LabelCounts

    def answers(self, location: Location, ignore_index: int | None) -> bool:
        """True where the question is the one that was counted; says nothing about whether a file changed."""
        return self.key.asks(location) and self.found.serves(ignore_index)

    def rekeyed(self, key: Key) -> CachedCounts:
        """The same counts, found true of the files as they are now."""
        return replace(self, key=key)


def user_cache_folder() -> Path:
    """The user's cache folder for vaefit (`XDG_CACHE_HOME` and its kin are honoured); not made here."""
    return platformdirs.user_cache_path("vaefit", appauthor=False)


def places(location: Location, cache_dir: str | Path | None, kind: str = "vaefit") -> Iterator[Path]:
    """Where a cached file is looked for and written, in this order: `cache_dir`, beside the data, the user's cache."""
    tail = "" if location.dataset is None else "." + location.dataset.replace("/", ".")
    name = f"{location.file.name}{tail}.{kind}.json"
    if cache_dir is not None:
        yield Path(cache_dir) / name
    file = location.file.absolute()
    yield file.parent / name
    # two data sets of one name in different folders must not share a place
    folder = hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:16]
    yield user_cache_folder() / "counts" / folder / name


def read(path: Path) -> CachedCounts | None:
    """The counts in a cached file; None where there is none, or where it is torn or foreign, which is logged."""
    try:
        body = sealed.unseal(path, SCHEMA)
        return None if body is None else CachedCounts(Key.decode(body), _decode(body))
    except OSError as error:
        _log.warning(f"{path}: the cached weights file is ignored: {error.strerror or error}")
    except sealed.RejectedError as error:
        _log.warning(f"{path}: the cached weights file is ignored: {error}")
    return None


def write(entry: CachedCounts, location: Location, cache_dir: str | Path | None, replace_newer: bool) -> Path | None:
    """Write to the first place that takes it and return that; None, logged, where none does.

    A file of a later version of vaefit is passed over unless `replace_newer`.
    """
    failures: list[str] = []
    try:
        data = sealed.seal(SCHEMA, {**entry.key.encode(), **_encode(entry.found)})
    except sealed.RejectedError as error:
        _log.warning(f"the counts could not be cached: {error}")
        return None
    for path in places(location, cache_dir):
        if not replace_newer and sealed.newer(path, SCHEMA):
            failures.append(f"{path}: a newer version of vaefit wrote it, and only --rebuild replaces it")
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            failures.append(f"{path}: {error.strerror or error}")
        else:
            remove_stale(path)
            return path
    _log.warning("the counts could not be cached: " + "; ".join(failures))
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
    n, height, width = (sealed.whole(side, 1) for side in sealed.items(sealed.member(body, "shape"), 3, 3))
    labels = tuple(sealed.whole(count) for count in sealed.items(sealed.member(body, "labels"), most=MAX_CLASSES))
    outside, label = sealed.whole(sealed.member(body, "outside")), sealed.member(body, "outside_label")
    if label is not None and 0 <= sealed.whole(label, -(2**63), 2**64) < MAX_CLASSES:
        raise sealed.RejectedError("its contents do not fit: the ignored label is a class")
    if sum(labels) + outside != math.prod((n, height, width)) or (label is None) != (outside == 0):
        raise sealed.RejectedError("its contents do not fit: the counts are not those of all cells")
    chunks, fill, declared = (sealed.member(body, name) for name in ("chunks", "fill_value", "declared_classes"))
    return LabelCounts(
        dataset=sealed.words(sealed.member(body, "dataset")),
        shape=(n, height, width),
        dtype=sealed.words(sealed.member(body, "dtype")),
        chunks=None if chunks is None else tuple(sealed.whole(side, 1) for side in sealed.items(chunks, 3, 3)),
        filters=tuple(sealed.words(name) for name in sealed.items(sealed.member(body, "filters"), most=64)),
        fill_value=None if fill is None else sealed.whole(fill, -(2**63), 2**64),
        declared_classes=None if declared is None else sealed.whole(declared, 1, MAX_CLASSES),
        labels=labels,
        outside=outside,
        outside_label=label,
    )
