"""Confusion counts cell by cell, and the class counts of datasets in every layout, against counts in plain Python."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaefit.cache import DataError, class_counts, count_dataset
from vaefit.kernels import confusion_counts, confusion_counts_reference, focal_loss_with_counts

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LABELS = ("u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">u4", "<i4", ">i4", "<u8", ">u8", "<i8", ">i8")
backends = st.sampled_from(["auto", "eager", "reference"])
seeds = st.integers(0, 2**32)


def first_of_the_largest(row: list[float]) -> int:
    """The lowest class with the largest logit."""
    best = 0
    for c, value in enumerate(row):
        if value > row[best]:
            best = c
    return best


def table(pairs: list[tuple[int, int]], classes: int) -> list[list[int]]:
    """(target, prediction) pairs as counts (C, C)."""
    counts = Counter(pairs)
    return [[counts[target, prediction] for prediction in range(classes)] for target in range(classes)]


@settings(max_examples=150)
@given(seeds, st.data())
def test_confusion_counts_count_every_cell(seed, data):
    rng = np.random.default_rng(seed)
    backend = data.draw(backends)
    # the reference looks at one pair of classes at a time
    most = 12 if backend == "reference" else 256
    classes = data.draw(st.sampled_from([2, 10]) | st.integers(1, most))
    shape = (data.draw(st.integers(0, 4)), *data.draw(st.lists(st.sampled_from([0, 1, 2, 5]), max_size=3)))
    logits = rng.integers(-2, 3, (shape[0], classes, *shape[1:])).astype(float)  # most cells have ties
    logits[rng.random(logits.shape) < 0.1] = data.draw(st.sampled_from([-0.0, 80.0, math.inf, -math.inf]))
    logits = torch.from_numpy(logits).to(data.draw(st.sampled_from(FLOATS)))
    if data.draw(st.booleans()):
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    ignore = data.draw(st.sampled_from([-100, -1, 0, classes - 1]))
    targets = rng.integers(0, classes, shape)
    targets[rng.random(shape) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))] = ignore
    logits.movedim(1, -1)[torch.from_numpy(targets == ignore)] += data.draw(st.sampled_from([0.0, math.nan]))

    cells = [(int(targets[w]), logits.movedim(1, -1)[w].tolist()) for w in np.ndindex(*shape)]
    pairs = [(target, first_of_the_largest(row)) for target, row in cells if target != ignore]
    labels = torch.from_numpy(targets)
    found = confusion_counts(logits, labels, ignore, backend)
    assert found.dtype == torch.int64
    assert found.tolist() == table(pairs, classes)
    assert torch.equal(focal_loss_with_counts(logits, labels, ignore_index=ignore, backend=backend)[1], found)
    if classes <= 12:
        assert torch.equal(confusion_counts_reference(logits, labels, ignore), found)


@settings(max_examples=100)
@given(seeds, st.integers(1, 12), backends, st.data())
def test_confusion_counts_of_ready_predictions(seed, classes, backend, data):
    rng = np.random.default_rng(seed)
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)))
    ignore = data.draw(st.sampled_from([-100, 0, classes - 1]))
    targets, predictions = rng.integers(0, classes, shape), rng.integers(0, classes, shape)
    ignored = rng.random(shape) < 0.3
    targets[ignored] = ignore
    predictions[ignored] = data.draw(st.sampled_from([0, 77, -5]))  # no class, but at a cell that does not count
    pairs = [(int(targets[w]), int(predictions[w])) for w in np.ndindex(*shape) if targets[w] != ignore]
    ready, labels = torch.from_numpy(predictions), torch.from_numpy(targets)
    found = confusion_counts(ready, labels, ignore, backend, num_classes=classes)
    assert found.tolist() == table(pairs, classes)
    assert torch.equal(confusion_counts(ready.to(torch.int16), labels.int(), ignore, backend, classes), found)


@st.composite
def stored(draw):
    """A dataset's cells, dtype and creation options, and the label to ignore."""
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    dtype = np.dtype(draw(st.sampled_from(LABELS)))
    largest = draw(st.sampled_from([0, 1, 9, 127, 255]))
    rng = np.random.default_rng(draw(seeds))
    cells = rng.integers(0, min(largest, np.iinfo(dtype).max) + 1, shape)
    cells[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9]))] = 0
    beyond = [-100, -1, 255, 300, np.iinfo(dtype).min, np.iinfo(dtype).max]
    ignore = draw(st.sampled_from([None, 0, 3, *(int(i) for i in beyond)]))
    if ignore is not None and np.iinfo(dtype).min <= ignore <= np.iinfo(dtype).max and draw(st.booleans()):
        cells = cells.astype(dtype)  # int64 does not hold the largest of uint64
        cells[rng.random(shape) < 0.2] = ignore
    layout = {}
    if draw(st.booleans()):
        layout["chunks"] = tuple(draw(st.integers(1, size)) for size in shape)
        layout["compression"] = draw(st.sampled_from([None, "gzip", "lzf"]))
        layout["shuffle"] = draw(st.booleans())
        layout["fletcher32"] = draw(st.booleans())
    return cells.astype(dtype), layout, ignore


@settings(max_examples=150)
@given(stored(), st.booleans())
def test_class_counts_are_those_of_every_cell(case, declared):
    cells, layout, ignore = case
    kept = [label for label in cells.reshape(-1).tolist() if label != ignore]
    classes = max(kept, default=0) + 1
    expected = [kept.count(c) for c in range(classes)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grids.h5"
        with h5py.File(file, "w") as handle:
            dataset = handle.create_dataset("grids", data=cells, **layout)
            if declared:
                classes = min(classes + 2, 256)
                dataset.attrs["classes"] = classes
                expected += [0] * (classes - len(expected))
        alone = class_counts(file, use_cache=False, ignore_index=ignore)
        scanned = count_dataset(file, ignore_index=ignore)
        cached = count_dataset(file, ignore_index=ignore)
        assert class_counts(file, classes=256, ignore_index=ignore).tolist() == expected + [0] * (256 - classes)
        if max(kept, default=0) > 0:
            with pytest.raises(DataError, match=f"--classes {max(kept) + 1}, or mend the data"):
                class_counts(file, classes=max(kept), ignore_index=ignore)
    assert (scanned.source, cached.source) == ("scan", "cache")
    for found in (alone, scanned.counts, cached.counts):
        assert found.dtype == np.int64
        assert found.tolist() == expected
    assert scanned.cells == cached.cells == len(kept)
