"""Labels of any layout: the counts and grids that plain numpy finds, or one sentence."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaefit.cache import DataError, count_shards
from vaefit.cache.hdf5.grids import opened
from vaefit.vae.data.batch import batch_at

DTYPES = ["u1", "i1", "<u2", ">u2", "<i2", ">i4", "<u4", "<i8", ">u8", "?", "<f2", ">f4", "<f8"]
SIDES = st.integers(1, 6)
LABELS = st.sampled_from([(0, 1), (0, 1, 2, 5), (0, 3, 255), (0, 255), (-1, 0, 1), (0, 127), (0, 300, 850), (0, 70_000),
                          (0, 65_535), (7,), (0, 1, 2**63 + 1), (0, 0.5), (1, math.nan)])  # fmt: skip

STORAGE = [{}, {"chunks": True}, {"compression": "gzip", "shuffle": True}, {"fletcher32": True}, {"maxshape": True}]
NAMES = ["classes", "ignore_index", "_FillValue"]
VALUES = [1, 6, 255, -1, 1000, np.float32(255), "text"]


def fits(label: float, dtype: np.dtype[Any]) -> bool:
    """True where the type holds the label as it is, or as infinity."""
    if dtype.kind == "f":
        with np.errstate(all="ignore"):
            return math.isnan(label) or float(dtype.type(label)) in (label, math.inf)
    if dtype.kind == "b":
        return label in (0, 1)
    return isinstance(label, int) and np.iinfo(dtype).min <= label <= np.iinfo(dtype).max


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """A dataset's shape, cells, storage and attributes."""
    shape = draw(st.lists(SIDES, min_size=1, max_size=5) | st.tuples(SIDES, SIDES, SIDES).map(list))
    for _ in range(draw(st.integers(0, 5 - len(shape)))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    labels, seed = draw(LABELS), draw(st.integers(0, 99))
    kept = [label for label in labels if fits(label, dtype)] or [0, 1]
    with np.errstate(over="ignore"):
        cells = np.array(kept, dtype)[np.random.default_rng(seed).integers(0, len(kept), shape)]
    storage: dict[str, Any] = draw(st.sampled_from(STORAGE))
    attributes = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=2))
    return {"cells": cells, "storage": storage, "attributes": attributes, "of_file": draw(st.booleans())}


def expected(cells: np.ndarray, attributes: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """The labels (N, H, W) and their counts; None where there are none."""
    while cells.ndim > 3 and 1 in (cells.shape[1], cells.shape[-1]):
        cells = cells[:, 0] if cells.shape[1] == 1 else cells[..., 0]
    if cells.ndim != 3 or attributes.get("ignore_index") == "text" or attributes.get("classes") in ("text", -1):
        return None
    values = cells.reshape(-1).tolist()
    labels = [int(value) if math.isfinite(value) and value == int(value) else None for value in values]
    fill = attributes.get("_FillValue")
    ignored = attributes.get("ignore_index", None if fill == "text" else fill)
    kept = [label for label in labels if label is None or label != ignored]
    classes = int(attributes.get("classes", 1 << 16))
    if any(label is None or not 0 <= label < classes for label in kept):
        return None
    least = int(attributes.get("classes", 1))
    return cells.astype(np.int64), np.bincount(np.array(kept, np.int64), minlength=least)


def write(file: Path, cells: np.ndarray, storage: dict[str, Any], attributes: dict[str, Any], of_file: bool) -> None:
    """Write the dataset, its attributes on the file where `of_file`."""
    storage = {**storage, **({"maxshape": (None, *cells.shape[1:])} if "maxshape" in storage else {})}
    with h5py.File(file, "w") as handle:
        dataset = handle.create_dataset("cells", data=cells, **storage)
        for name, value in attributes.items():
            (handle if of_file and name != "_FillValue" else dataset).attrs[name] = value


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(layouts())
@pytest.mark.slow
def test_any_layout_is_counted_right_or_refused_in_one_sentence(layout: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cells.h5"
        write(file, **layout)
        want = expected(layout["cells"], layout["attributes"])
        if want is None:
            with pytest.raises(DataError) as caught:
                count_shards(file)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 500
            return
        labels, counts = want
        for source in ("scan", "cache"):
            found = count_shards(file)
            assert (found.source, found.shape) == (source, labels.shape)
            assert found.counts.tolist() == counts.tolist()
        indices = tuple(range(0, len(labels), 2))
        assert np.array_equal(batch_at(file, indices, allow_duplicates=True).grids, labels[list(indices)])
        with opened(file) as grids:
            assert np.array_equal(np.concatenate([block for _, block in grids.blocks()]), labels)
            cuts = grids.cuts().tolist()
            parts = [part for first, stop in itertools.pairwise(cuts) for part in grids.pieces(first, stop)]
            assert sum(part.size for _, part in parts) == labels.size
