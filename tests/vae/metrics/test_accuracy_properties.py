"""Accuracies, shares, skill, retrieval and variation against their definitions, by loops over the cells."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaefit.vae.metrics.accuracy import Accuracies, BaselineShares, distinct, retrieval, variation

CLASSES = 5
Grids = NDArray[np.int64]


@st.composite
def reconstructions(draw) -> tuple[Grids, Grids, int | None]:
    """Targets, what was predicted for them, and the label to ignore; one cell counts at least."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    targets = rng.integers(0, draw(st.integers(1, CLASSES)), shape)
    targets[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9]))] = 0
    targets[rng.integers(shape[0])] = targets[0]
    ignore = draw(st.sampled_from([None, 0, 2, -1, 255]))
    if ignore is not None:
        targets[rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.6]))] = ignore
    assume((targets != ignore).any() if ignore is not None else True)
    right = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    own = np.where((targets >= 0) & (targets < CLASSES), targets, 0)
    predictions = np.where(rng.random(shape) < right, own, rng.integers(0, CLASSES, shape))
    return targets, predictions, ignore


def confusion(targets: Grids, predictions: Grids, ignore: int | None) -> Grids:
    counts = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for target, prediction in zip(targets.reshape(-1), predictions.reshape(-1), strict=True):
        if target != ignore:
            counts[target, prediction] += 1
    return counts


@settings(max_examples=200)
@given(reconstructions())
def test_accuracies(case):
    targets, predictions, ignore = case
    found = Accuracies.from_confusion(confusion(*case))
    cells = [(t, p) for t, p in zip(targets.reshape(-1).tolist(), predictions.reshape(-1).tolist(), strict=True)]
    cells = [(t, p) for t, p in cells if t != ignore]
    right = sum(t == p for t, p in cells)
    assert found.pixel == right / len(cells)
    assert found.exact == (right == len(cells))
    recalls = []
    for c in range(CLASSES):
        predicted = [p for t, p in cells if t == c]
        recalls.append(predicted.count(c) / len(predicted) if predicted else None)
    assert list(found.classes) == recalls
    present = [recall for recall in recalls if recall is not None]
    assert found.macro == pytest.approx(sum(present) / len(present), rel=1e-12)
    assert found.worst == min(present)
    assert found.worst_class == recalls.index(min(present))
    assert found.predicted.tolist() == [sum(p == c for _, p in cells) for c in range(CLASSES)]


@settings(max_examples=200)
@given(reconstructions())
def test_shares_and_skill(case):
    targets, predictions, ignore = case
    positions: dict[tuple[int, int], list[int]] = {}
    for b, y, x in np.ndindex(*targets.shape):
        if targets[b, y, x] != ignore:
            positions.setdefault((y, x), []).append(int(targets[b, y, x]))
    labels = [label for column in positions.values() for label in column]
    background = sum(max(column.count(c) for c in range(CLASSES)) for column in positions.values())
    majority = max(labels.count(c) for c in range(CLASSES))
    shares = BaselineShares.from_targets(targets, CLASSES, ignore)
    assert shares.background == background / len(labels)
    assert shares.majority == majority / len(labels)
    accuracies = Accuracies.from_confusion(confusion(*case))
    skill = shares.skill(accuracies.pixel)
    if background == len(labels):
        assert skill is None
    else:
        right = sum(p == t for p, t in zip(predictions.reshape(-1), targets.reshape(-1), strict=True) if t != ignore)
        assert skill == pytest.approx((right - background) / (len(labels) - background), rel=1e-9, abs=1e-12)


@settings(max_examples=300)
@given(st.integers(2, 2000), st.data())
@example(21, None)
def test_skill_is_on_the_right_side_of_its_thresholds(cells, data):
    """Draw one-cell grids of which `background` show class 0; a skill of exactly 3/4 passes."""
    background = 17 if data is None else data.draw(st.integers((cells + 1) // 2, cells - 1))
    right = 20 if data is None else data.draw(st.integers(background - 2, cells))
    exact = Fraction(right - background, cells - background)
    if data is not None and data.draw(st.booleans()):  # as near to a threshold as whole cells come
        threshold = data.draw(st.sampled_from([Fraction(3, 4), Fraction(1, 20)]))
        right = background + int((cells - background) * threshold)
        exact = Fraction(right - background, cells - background)
    targets = (np.arange(cells) >= background).astype(np.int64).reshape(cells, 1, 1)
    skill = BaselineShares.from_targets(targets, 2, None).skill(right / cells)
    assert (skill >= 0.75) == (exact >= Fraction(3, 4))
    assert (skill <= 0.05) == (exact <= Fraction(1, 20))


@settings(max_examples=200)
@given(reconstructions())
def test_retrieval(case):
    targets, predictions, ignore = case
    size = len(targets)
    hits = 0
    for i in range(size):
        own_cells = [w for w in np.ndindex(*targets.shape[1:]) if targets[i][w] != ignore]

        def agreement(j, i=i, own_cells=own_cells):
            return sum(predictions[i][w] == targets[j][w] for w in own_cells if targets[j][w] != ignore)

        others = [j for j in range(size) if any(targets[j][w] != targets[i][w] for w in own_cells)]
        hits += all(agreement(i) > agreement(j) for j in others)
    assert retrieval(predictions, targets, ignore) == (None if size == 1 else hits / size)


@settings(max_examples=200)
@given(reconstructions())
def test_variation(case):
    targets, predictions, ignore = case

    def different(grids):
        return sum(
            grids[i][w] != grids[j][w]
            for w in np.ndindex(*targets.shape[1:])
            for i in range(len(targets))
            for j in range(i)
            if ignore not in (targets[i][w], targets[j][w])
        )

    of_targets = different(targets)
    expected = different(predictions) / of_targets if of_targets else None
    assert variation(predictions, targets, int(max(targets.max(), predictions.max())) + 1, ignore) == expected


@settings(max_examples=100)
@given(reconstructions())
def test_distinct_pictures(case):
    _, predictions, _ = case
    assert distinct(predictions) == len({tuple(picture.reshape(-1).tolist()) for picture in predictions})
