"""The cached weights file: where it lies, what it holds, and when it is believed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from .atomic import write_atomically
from .fingerprint import Stamp
from .location import Location
from .weights import DEFAULT_SCHEME, derive_weights

SCHEMA = "vaefit.counts/1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedCounts:
    """Counts of every label of one dataset, and what they were counted on."""

    asked_dataset: str | None
    """The dataset the caller named, None where it was the file's only one."""
    dataset: str
    shape: tuple[int, int, int]
    dtype: str
    declared_classes: int | None
    stamp: Stamp
    content: str
    """blake2b of the whole file."""
    labels: tuple[int, ...]
    """Counts of the labels 0, 1, ... up to the largest that occurs."""
    outside: int = 0
    """Cells with the ignored label, where that lies outside 0..255."""
    outside_label: int | None = None

    def answers(self, location: Location, ignore_index: int | None) -> bool:
        """True where the question is the one that was counted; says nothing about whether the file changed."""
        same_labels = self.outside_label is None or self.outside_label == ignore_index
        return self.asked_dataset == location.dataset and same_labels

    def restamped(self, stamp: Stamp) -> CachedCounts:
        """The same counts, found true of the file as it is stamped now."""
        return replace(self, stamp=stamp)


def user_cache_folder() -> Path:
    """The user's cache folder for vaefit (`XDG_CACHE_HOME` and its kin are honoured); not made here."""
    return platformdirs.user_cache_path("vaefit", appauthor=False)


def places(location: Location, cache_dir: str | Path | None) -> Iterator[Path]:
    """Where a cached file is looked for and written, in this order: `cache_dir`, beside the data, the user's cache."""
    tail = "" if location.dataset is None else "." + location.dataset.replace("/", ".")
    name = f"{location.file.name}{tail}.vaefit.json"
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
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning(f"{path}: the cached weights file is ignored: {error.strerror or error}")
        return None
    try:
        return _decode(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning(f"{path}: the cached weights file is ignored and will be rebuilt: {_reason(error)}")
        return None


def write(entry: CachedCounts, location: Location, cache_dir: str | Path | None) -> Path | None:
    """Write to the first place that takes it and return that; None, logged, where none does."""
    data = json.dumps(_encode(entry), indent=1).encode()
    failures: list[str] = []
    for path in places(location, cache_dir):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            failures.append(f"{path}: {error.strerror or error}")
        else:
            return path
    _log.warning("the counts could not be cached: " + "; ".join(failures))
    return None


def _encode(entry: CachedCounts) -> dict[str, Any]:
    body = asdict(entry)
    body["schema"] = SCHEMA
    # for people who open the file; a reader derives its own from the counts
    counts = np.zeros(max(len(entry.labels), entry.declared_classes or 0), dtype=np.int64)
    counts[: len(entry.labels)] = entry.labels
    weights = derive_weights(counts).tolist() if counts.any() else []
    body["weights"] = {"scheme": DEFAULT_SCHEME, "values": weights}
    body["checksum"] = _checksum(body)
    return body


def _decode(body: Any) -> CachedCounts:
    if not isinstance(body, dict) or "schema" not in body:
        raise ValueError("it is not a vaefit file")
    if body["schema"] != SCHEMA:
        raise ValueError(f"it has the schema {body['schema']}, this version reads {SCHEMA}")
    if body.pop("checksum", None) != _checksum(body):
        raise ValueError("its checksum does not fit")
    return CachedCounts(
        asked_dataset=body["asked_dataset"],
        dataset=body["dataset"],
        shape=tuple(body["shape"]),
        dtype=body["dtype"],
        declared_classes=body["declared_classes"],
        stamp=Stamp(**body["stamp"]),
        content=body["content"],
        labels=tuple(body["labels"]),
        outside=body["outside"],
        outside_label=body["outside_label"],
    )


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "it is not whole JSON"
    return str(error) if type(error) is ValueError else "its contents do not fit"
