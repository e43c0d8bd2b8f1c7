"""Batch, shares, skill, retrieval and verdict against plain definitions, over random datasets and predictions."""

from __future__ import annotations

import hashlib
import itertools
import re
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaefit.cache import DataError, Location
from vaefit.vae.batch import choose_batch
from vaefit.vae.recipe import RECIPES, Recipe
from vaefit.vae.signals import Accuracies, Shares, distinct, retrieval
from vaefit.vae.verdict import Evidence, judge

CLASSES = 6
seeds = st.integers(0, 10**6)


@settings(max_examples=60)
@given(seeds, st.integers(2, 9), st.integers(1, 5), st.sampled_from([None, 0, 3]))
def test_the_batch(seed, grids, size, ignore):
    rng = np.random.default_rng(seed)
    # classes are rare, so that they have to be brought in, and some grids are equal
    cells = np.where(rng.random((grids, 2, 2)) < 0.6, 0, rng.integers(0, CLASSES, (grids, 2, 2))).astype(np.uint8)
    different = {grid.tobytes() for grid in cells}
    counts = np.bincount(cells.reshape(-1), minlength=CLASSES)
    if ignore is not None:
        counts[ignore] = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grids.h5"
        with h5py.File(file, "w") as handle:
            handle["grids"] = cells
        if size > len(different):
            with pytest.raises(DataError, match=f"{len(different)} distinct grids"):
                choose_batch(Location(file), counts, size, seed, ignore)
            return
        batch = choose_batch(Location(file), counts, size, seed, ignore)
        again = choose_batch(Location(file), counts, size, seed, ignore)

    assert batch.indices == again.indices
    assert np.array_equal(batch.grids, cells[list(batch.indices)])
    assert len({grid.tobytes() for grid in batch.grids}) == size
    assert (
        batch.digest == hashlib.sha256(str((size, 2, 2)).encode() + batch.grids.astype(np.uint8).tobytes()).hexdigest()
    )
    held = {c for c in range(CLASSES) if counts[c] > 0}

    def shown(indices):
        return {int(c) for c in np.unique(cells[list(indices)])} & held

    most = max(len(shown(choice)) for choice in itertools.combinations(range(grids), size))
    if most == len(held):
        assert shown(batch.indices) == held


def by_cell(targets, ignore):
    """Positions that count."""
    return [tuple(where) for where in np.ndindex(*targets.shape) if targets[where] != ignore]


@settings(max_examples=150)
@given(
    seeds, st.integers(1, 6), st.integers(1, 4), st.sampled_from([None, 0, 2, -1]), st.sampled_from([0.0, 0.5, 0.95])
)
def test_what_is_measured(seed, size, side, ignore, right):
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random((size, side, side)) < 0.5, 0, rng.integers(0, CLASSES, (size, side, side)))
    if ignore == -1:
        targets[rng.random(targets.shape) < 0.2] = -1
    guesses = np.where(
        rng.random(targets.shape) < right, np.maximum(targets, 0), rng.integers(0, CLASSES, targets.shape)
    )
    kept = by_cell(targets, ignore)
    if not kept:
        return
    counts = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for where in kept:
        counts[targets[where], guesses[where]] += 1
    found = Accuracies.of(counts)
    correct = [where for where in kept if targets[where] == guesses[where]]
    assert found.pixel == pytest.approx(len(correct) / len(kept))
    recalls = {}
    for c in range(CLASSES):
        cells = [where for where in kept if targets[where] == c]
        if cells:
            recalls[c] = sum(guesses[where] == c for where in cells) / len(cells)
    assert {c: a for c, a in enumerate(found.classes) if a is not None} == pytest.approx(recalls)
    assert found.macro == pytest.approx(sum(recalls.values()) / len(recalls))
    assert found.worst == pytest.approx(min(recalls.values()))
    assert recalls[found.worst_class] == pytest.approx(found.worst)
    assert found.exact == (len(correct) == len(kept))

    best_picture = 0
    for y, x in itertools.product(range(side), repeat=2):
        column = [targets[i, y, x] for i in range(size) if (i, y, x) in set(kept)]
        best_picture += max((column.count(c) for c in set(column)), default=0)
    labels = [targets[where] for where in kept]
    shares = Shares.of(targets, CLASSES, ignore)
    assert shares.background == pytest.approx(best_picture / len(kept))
    assert shares.majority == pytest.approx(max(labels.count(c) for c in set(labels)) / len(kept))
    skill = shares.skill(found.pixel)
    if best_picture == len(kept):
        assert skill is None
    else:
        assert skill == pytest.approx((len(correct) - best_picture) / (len(kept) - best_picture))
    assert distinct(guesses) == len({picture.tobytes() for picture in guesses})


@settings(max_examples=100)
@given(seeds, st.integers(1, 6), st.sampled_from([0.2, 0.6, 0.9]))
def test_retrieval(seed, size, right):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, (size, 2, 3))
    targets[rng.integers(size)] = targets[0]
    guesses = np.where(rng.random(targets.shape) < right, targets, rng.integers(0, 3, targets.shape))
    hits = 0
    for i in range(size):
        agree = [int((guesses[i] == targets[j]).sum()) for j in range(size)]
        others = [agree[j] for j in range(size) if not np.array_equal(targets[j], targets[i])]
        hits += all(agree[i] > other for other in others)
    assert retrieval(guesses, targets, None) == (None if size == 1 else pytest.approx(hits / size))


edges = st.sampled_from([0.0, 0.05, 0.0501, 0.125, 0.126, 0.5, 0.74, 0.75, 0.94, 0.95, 0.951, 0.99, 1.0])


@settings(max_examples=400)
@given(
    pixel=edges,
    worst=edges,
    skill=st.none() | st.floats(-5, 1) | edges,
    retrieved=edges,
    size=st.integers(1, 40),
    predicted=st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any),
    diverged=st.booleans(),
    recipe=st.sampled_from([Recipe(), Recipe(target=0.5), Recipe(iterations=3), *RECIPES.values()]),
)
def test_the_verdict(pixel, worst, skill, retrieved, size, predicted, diverged, recipe):
    worst = min(worst, pixel)
    retrieved = None if size == 1 else retrieved
    accuracies = Accuracies(pixel, (pixel, worst, None), (pixel + worst) / 2, worst, 1, np.array(predicted))
    found = judge(Evidence(accuracies, skill, retrieved, size, "the loss is nan" if diverged else None), recipe)

    skilled = pixel == 1.0 if skill is None else skill >= 0.75
    recalled = retrieved is None or retrieved >= 0.75
    if diverged:
        expected = "DIVERGED"
    elif worst >= recipe.target and pixel > 0.95 and skilled and recalled:
        expected = "MEMORISED"
    elif skill is not None and retrieved is not None and retrieved <= max(1 / 8, 1 / size) and skill <= 0.05:
        expected = "COLLAPSED"
    else:
        expected = "LEARNING"
    assert found.verdict == expected
    assert found.passed == (expected == "MEMORISED")
    assert (found.next == "") == found.passed
    if not found.passed:
        assert re.search(r": try --[a-z][a-z-]+.*\.$", found.next)
    share = [n / sum(predicted) for n in predicted]
    covering = [c for c in range(3) if share[c] >= 0.99]
    assert found.collapsed_class == (covering[0] if expected == "COLLAPSED" and covering else None)
