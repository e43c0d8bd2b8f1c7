"""Shards for ranks that are threads, and helpers that compare their count with that of a single process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.ranks_as_threads import ThreadRank, together
from vaefit.cache import DataError, ShardCounts, count_shards
from vaefit.cache.hdf5.blocks import Tiles
from vaefit.cache.scan import chunk_reader, contiguous_reader, h5py_reader

GZIP = {"chunks": (4, 8, 8), "maxshape": (400, 8, 8), "compression": "gzip"}


def small_spans(patch: pytest.MonkeyPatch) -> None:
    """Cut a few grids into many spans."""
    patch.setattr(contiguous_reader, "SPAN_BYTES", 512)
    patch.setattr(chunk_reader, "SPAN_BYTES", 512)
    patch.setattr(h5py_reader.Tiles, "from_dataset", lambda dataset: Tiles(dataset.shape, (3, *dataset.shape[1:])))


def cells(grids: int, seed: int = 0, dtype: str = "u1") -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.integers(1, 6, (grids, 8, 8)) * (rng.random((grids, 8, 8)) < 0.3)
    return found.astype(dtype)


def write(file: Path, grids: np.ndarray, attribute: int | None = None, **layout: Any) -> Path:
    with h5py.File(file, "w") as handle:
        dataset = handle.create_dataset("grids", data=grids, **layout)
        if attribute is not None:
            dataset.attrs["classes"] = attribute
    return file


def shards(folder: Path, sizes: Sequence[int], **layout: Any) -> list[Path]:
    return [write(folder / f"train-{i}.h5", cells(n, i), **layout) for i, n in enumerate(sizes)]


def many(folder: Path) -> list[Path]:
    return shards(folder, [3, 40, 7, 1, 90, 12, 8, 8, 30], **GZIP)


def written(folder: Path) -> dict[str, Any]:
    """Return the cached files' contents without the times at which their stamps were taken."""
    found = {}
    for file in sorted(folder.glob("*.vaefit.json")):
        body = json.loads(file.read_text())
        del body["checksum"]
        for source in body["sources"]:
            source["stamp"] = source["stamp"] and source["stamp"][:-1]
        found[file.name] = body
    return found


def forget(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.unlink()


def plain(found: ShardCounts) -> dict[str, Any]:
    """Return counts as plain values, without seconds and threads."""
    body = asdict(replace(found, seconds=0.0))
    for shard in body["shards"]:
        shard["counts"], shard["seconds"], shard["threads"] = shard["counts"].tolist(), 0.0, 0
        shard["key"] = shard["key"] and shard["key"]["content"]  # stamps hold the times at which they were taken
    return {**body, "counts": body["counts"].tolist()}


def jointly(size: int, data: Any, kind: type[ThreadRank] = ThreadRank, **settings: Any) -> ShardCounts:
    """Count by this many ranks, which all must return the same."""
    found = together(size, lambda ranks: count_shards(data, ranks=ranks, **settings), kind)
    assert [plain(one) for one in found] == [plain(found[0])] * size
    return found[0]


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)
